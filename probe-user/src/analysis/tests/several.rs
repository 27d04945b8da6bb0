//! Several captures of one incident.

use super::make::{Input, MS, analyse, with_table};
use super::verdicts::{POD, judged, only};
use crate::analysis::material::Material;
use crate::diagnosis::incident::{Confidence, Outcome, Verdict};

const BACKEND: &str = "
    0    0 10.23.77.138:80 > 10.23.77.139:8443 SYN-ACK 500 101
    0    0 10.23.77.139:8443 > 10.23.77.138:80 RST 101
    1030 0 10.23.77.138:80 > 10.23.77.139:8443 SYN-ACK 700 101
    1030 0 10.23.77.139:8443 > 10.23.77.138:80 RST 101
";

#[test]
fn the_captures_of_two_namespaces_prove_together_what_neither_does() {
    for order in
        [[("pod.pcap", POD), ("backend.pcap", BACKEND)], [("backend.pcap", BACKEND), ("pod.pcap", POD)]]
    {
        let inputs = order.map(|(name, text)| Input(name, 0, text));
        let analysis = analyse(&Material::default(), &inputs);
        assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Hijacked, Confidence::Proven));
        let incident = only(&analysis);
        assert_eq!(incident.connection.local.as_deref(), Some("10.23.77.129:36704"));
        assert_eq!((incident.resets.len(), incident.connection.syn_retransmits), (2, 1));
        assert!(analysis.clocks[0].contains("agree"), "{:?}", analysis.clocks);
    }
}

#[test]
fn clocks_that_differ_are_set_right_and_told() {
    let inputs = [Input("pod.pcap", 0, POD), Input("backend.pcap", 3_200, BACKEND)];
    let analysis = analyse(&with_table(), &inputs);
    let incident = only(&analysis);
    assert_eq!(incident.resets.len(), 2);
    assert_eq!(analysis.clocks.len(), 1);
    assert!(analysis.clocks[0].contains("backend.pcap is 3.200 s ahead of"), "{:?}", analysis.clocks);
    let times: Vec<i64> = analysis.incidents[0].timeline.iter().filter_map(|moment| moment.at).collect();
    let length = times.iter().max().unwrap() - times.iter().min().unwrap();
    assert!(length < 2_000 * MS, "{length}");
}

#[test]
fn a_backend_alone_tells_that_something_went_astray() {
    let analysis = analyse(&with_table(), &[Input("backend.pcap", 0, BACKEND)]);
    assert!(analysis.incidents.is_empty());
    assert!(analysis.notes[0].contains("10.23.77.139:8443 reset 1 replies"), "{:?}", analysis.notes);
}

/// Wireshark counts sequence numbers from 0 in every connection unless told otherwise.
#[test]
fn handshakes_with_relative_numbers_are_told_apart_and_no_number_is_made_up() {
    use crate::analysis::{PacketInput, Packets, conclude};
    use crate::handshakes::{Sight, Tracker, join};
    let material = with_table();
    let coverage = material.coverage();
    let is_service = |tuple: crate::observation::Tuple| coverage.is_service(tuple.local);
    let mut tracker = Tracker::new(0, &is_service);
    let second = POD.replace("36704", "36705");
    for (ms, place, packet) in
        POD.lines().chain(second.lines()).filter(|line| !line.trim().is_empty()).map(super::make::packet)
    {
        let packet = match packet {
            crate::capture::Decoded::Tcp(mut segment) => {
                segment.sequence %= 100;
                segment.acknowledgement %= 100;
                crate::capture::Decoded::Tcp(segment)
            }
            other => other,
        };
        tracker.listed_relative(Sight { at: super::make::START + ms * MS, place, number: 1 }, &packet);
    }
    let (joined, counts) = join(vec![tracker]);
    let counts = counts.into_iter().next().unwrap();
    let input = PacketInput { name: "export.txt".into(), interfaces: vec![None], unit: "line", counts };
    let analysis = conclude(&material, &Packets { inputs: vec![input], joined });
    let verdicts: Vec<_> = analysis.incidents.iter().map(|one| one.incident.verdict).collect();
    assert_eq!(verdicts, [Verdict::Collision, Verdict::OtherReset]);
    let incident = &analysis.incidents[0].incident;
    assert_eq!(incident.connection.isn, None);
    assert!(incident.resets.iter().all(|reset| reset.seq == 1), "{:?}", incident.resets);
    assert!(
        incident.evidence[0].text.contains("(sequence number 0, relative)"),
        "{:?}",
        incident.evidence[0]
    );
    assert!(analysis.incidents[0].ladder.arrows[0].label.ends_with("seq 0"));
}
