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
