//! Inputs that go on where others end, that begin late, and that are there twice.

use super::make::{Input, analyse, packet, with_table};
use super::verdicts::{POD, judged, only};
use crate::analysis::model::Analysis;
use crate::diagnosis::incident::{Confidence, Outcome, Verdict};

/// The pod's capture in two files, of which the second begins with this packet.
fn cut_at(at: usize) -> Analysis {
    let lines: Vec<&str> = POD.lines().filter(|line| !line.trim().is_empty()).collect();
    let [one, other] = [&lines[..at], &lines[at..]].map(|lines| lines.join("\n"));
    analyse(&with_table(), &[Input("a.pcap0", 0, &one), Input("a.pcap1", 0, &other)])
}

#[test]
fn a_handshake_that_is_cut_across_two_files_is_told_as_of_one() {
    let whole = analyse(&with_table(), &[Input("a.pcap", 0, POD)]);
    for at in 1..6 {
        let analysis = cut_at(at);
        assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Pending, Confidence::Likely), "{at}");
        let (one, other) = (only(&analysis), only(&whole));
        assert_eq!(one.connection.syn_retransmits, other.connection.syn_retransmits, "{at}");
        assert_eq!((one.resets.len(), &one.started_at), (other.resets.len(), &other.started_at), "{at}");
        assert!(analysis.clocks.is_empty(), "{at}: {:?}", analysis.clocks);
    }
}

#[test]
fn an_input_that_began_late_has_the_same_clock() {
    let late: String = POD.lines().skip(4).collect::<Vec<_>>().join("\n");
    for ahead in [0, 200_000] {
        let before = "900 0 10.0.0.1:1000 > 10.0.0.2:80 SYN 7";
        let inputs = [
            Input("all.pcap", 0, &format!("{before}\n{POD}")),
            Input("late.pcap", ahead, &format!("{before}\n{late}")),
        ];
        let analysis = analyse(&with_table(), &inputs);
        let incident = only(&analysis);
        assert_eq!((incident.connection.syn_retransmits, incident.resets.len()), (1, 2));
        let said = if ahead == 0 { "agree" } else { "is 200.000 s ahead" };
        assert!(analysis.clocks[0].contains(said), "{:?}", analysis.clocks);
    }
}

/// A packet that is sent again has another TSval; a copy of it elsewhere has the same.
#[test]
fn timestamps_tell_a_copy_from_a_packet_that_was_sent_again() {
    let one = "
        0    0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100 0 5000
        0    0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 101 8000
    ";
    let other = "
        1030 0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100 0 6030
        1030 0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 101 9030
        1031 0 10.23.77.129:36704 > 10.23.77.138:80 RST 101
    ";
    let analysis = analyse(&with_table(), &[Input("a", 0, one), Input("b", 0, other)]);
    assert_eq!(only(&analysis).connection.syn_retransmits, 1);
    assert!(analysis.clocks.is_empty(), "{:?}", analysis.clocks);
    let copy = other.replace("6030", "5000").replace("9030", "8000");
    let analysis = analyse(&with_table(), &[Input("a", 0, one), Input("b", 0, &copy)]);
    assert_eq!(only(&analysis).connection.syn_retransmits, 0);
    assert!(analysis.clocks[0].contains("is 1.030 s ahead"), "{:?}", analysis.clocks);
}

#[test]
fn the_same_file_twice_is_one_incident() {
    let doubled: String = POD.lines().flat_map(|line| [line, line]).collect::<Vec<_>>().join("\n");
    for inputs in [vec![Input("a", 0, POD), Input("copy", 0, POD)], vec![Input("merged", 0, &doubled)]] {
        let analysis = analyse(&with_table(), &inputs);
        let incident = only(&analysis);
        assert_eq!((incident.connection.syn_retransmits, incident.resets.len()), (1, 2));
        assert_eq!(analysis.incidents[0].ladder.arrows.len(), 6);
    }
}

/// More closed ports, and more connects whose ACK a filter left out, than are kept.
#[test]
fn what_is_refused_or_came_about_is_not_in_the_way_of_a_collision() {
    use crate::handshakes::{Sight, Tracker, join};
    let mut tracker = Tracker::new(0, &|_| false);
    let mut take = |text: &str| {
        let (ms, place, packet) = packet(text);
        tracker.listed(Sight { at: ms * 1_000_000, place, number: 1 }, &packet);
    };
    for n in 0..40_000_u32 {
        let (client, number) = (format!("10.1.{}.{}:50000", n >> 8, n & 255), n * 1000);
        take(&format!("{n} 0 {client} > 10.0.0.2:9 SYN {number}"));
        take(&format!("{n} 0 10.0.0.2:9 > {client} RST-ACK 0 {}", number + 1));
        take(&format!("{n} 0 {client} > 10.0.0.2:80 SYN {}", number + 400));
        take(&format!("{n} 0 10.0.0.2:80 > {client} SYN-ACK 7 {}", number + 401));
    }
    let last = 50_000;
    take(&format!("{last} 0 10.0.0.1:36704 > 10.0.0.2:80 SYN 4000000000"));
    take(&format!("{last} 0 10.0.0.2:80 > 10.0.0.1:36704 SYN-ACK 7 4000000001"));
    take(&format!("{last} 0 10.0.0.1:36704 > 10.0.0.2:80 RST 4000000001"));
    let (joined, counts) = join(vec![tracker]);
    assert!(joined.connects.iter().any(|connect| connect.number == 4_000_000_001));
    assert_eq!(counts[0].forgotten, 40_000 - 32_768, "only closed ports were too many");
}

/// Wireshark's summary counts sequence numbers and time from 0: the same packets again, told once.
#[test]
fn a_listing_with_relative_numbers_of_the_same_packets_is_told_once() {
    let relative =
        POD.replace(" 101", " 1").replace(" 100", " 0").replace(" 500", " 0").replace(" 700", " 0");
    let analysis = analyse(&with_table(), &[Input("pod.pcap", 0, POD), Input("relative", 99_000, &relative)]);
    assert_eq!(only(&analysis).connection.isn, Some(100));
    // Another connect from the same port is another one.
    let other: String = relative.lines().take(4).collect::<Vec<_>>().join("\n");
    let analysis = analyse(&with_table(), &[Input("pod.pcap", 0, POD), Input("relative", 99_000, &other)]);
    assert_eq!(analysis.incidents.len(), 2);
}
