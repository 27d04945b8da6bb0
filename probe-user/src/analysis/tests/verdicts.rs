//! One capture each.

use super::make::{Input, analyse, with_table};
use crate::analysis::material::Material;
use crate::analysis::model::{Analysis, ArrowKind};
use crate::diagnosis::incident::{Confidence, Incident, Outcome, Verdict};

/// The only incident.
pub(super) fn only(analysis: &Analysis) -> &Incident {
    let [one] = analysis.incidents.as_slice() else { panic!("{:#?}", analysis.incidents) };
    &one.incident
}

pub(super) fn judged(analysis: &Analysis) -> (Verdict, Outcome, Confidence) {
    let incident = only(analysis);
    (incident.verdict, incident.outcome, incident.confidence)
}

/// What the pod's own capture shows of the incident: the SYN-ACK is answered by a RST, and the SYN comes again.
pub(super) const POD: &str = "
    0    0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
    0    0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 101
    1    0 10.23.77.129:36704 > 10.23.77.138:80 RST 101
    1030 0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
    1030 0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 700 101
    1031 0 10.23.77.129:36704 > 10.23.77.138:80 RST 101
";

/// The same on the node, with the backend's device.
const NODE: &str = "
    0    0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
    0    0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 101
    0    1 10.23.77.138:80 > 10.23.77.139:8443 SYN-ACK 500 101
    1    1 10.23.77.139:8443 > 10.23.77.138:80 RST 101
    1    0 10.23.77.129:36704 > 10.23.77.138:80 RST 101
";

#[test]
fn a_table_makes_the_pods_capture_likely() {
    let analysis = analyse(&with_table(), &[Input("pod.pcap", 0, POD)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Pending, Confidence::Likely));
    let incident = only(&analysis);
    assert_eq!(incident.connection.isn, Some(100));
    assert_eq!(incident.connection.syn_retransmits, 1);
    assert_eq!(incident.resets.len(), 2);
    assert_eq!(incident.service.as_ref().unwrap().address, "10.23.77.129:36704");
    assert_eq!(analysis.incidents[0].ladder.arrows.len(), 6);
    assert_eq!(analysis.incidents[0].timeline.len(), 6);
    assert_eq!(analysis.incidents[0].timeline[0].source, "pod.pcap eth0, packet 1");
}

#[test]
fn without_any_evidence_of_ipvs_it_is_possible_at_best() {
    let analysis = analyse(&Material::default(), &[Input("pod.pcap", 0, POD)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Pending, Confidence::Possible));
    assert_eq!(only(&analysis).service, None);
}

#[test]
fn the_hijack_itself_proves_it_with_and_without_a_table() {
    for material in [Material::default(), with_table()] {
        let analysis = analyse(&material, &[Input("node.pcap", 0, NODE)]);
        assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Hijacked, Confidence::Proven));
        let incident = only(&analysis);
        assert_eq!(incident.hijack.as_ref().unwrap().backend, "10.23.77.139:8443");
        let [reset] = incident.resets.as_slice() else { panic!("{:#?}", incident.resets) };
        assert_eq!((reset.local.as_str(), reset.seq), ("10.23.77.139:8443", 101));
        let kinds: Vec<_> = analysis.incidents[0].ladder.arrows.iter().map(|arrow| arrow.kind).collect();
        assert!(kinds.contains(&ArrowKind::Hijacked), "{kinds:?}");
    }
}

#[test]
fn a_client_that_goes_silent_while_the_capture_goes_on_failed() {
    let text = format!("{POD} 20000 0 10.0.0.1:1000 > 10.0.0.2:80 SYN 7");
    let analysis = analyse(&with_table(), &[Input("pod.pcap", 0, &text)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Failed, Confidence::Likely));
}

#[test]
fn a_service_without_backends_answers_with_port_unreachable() {
    let text = "
        0 0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
        0 0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 101
        0 0 10.23.77.138:80 > 10.23.77.129:36704 ICMP 500
    ";
    let analysis = analyse(&with_table(), &[Input("a", 0, text)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::NoBackend, Confidence::Proven));
    let without = analyse(&Material::default(), &[Input("a", 0, text)]);
    assert_eq!(judged(&without), (Verdict::Collision, Outcome::NoBackend, Confidence::Likely));
    let other_port = text.replace("36704", "40000");
    assert!(analyse(&with_table(), &[Input("a", 0, &other_port)]).incidents.is_empty());
}

#[test]
fn a_completed_handshake_from_a_service_port_survived() {
    let text = "
        0 0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
        0 0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 101
        0 0 10.23.77.129:36704 > 10.23.77.138:80 ACK 101 501
    ";
    let analysis = analyse(&with_table(), &[Input("a", 0, text)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Survived, Confidence::Likely));
}

#[test]
fn what_completes_or_is_merely_unanswered_is_no_incident() {
    let text = "
        0    0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        0    0 10.23.77.138:80 > 10.23.77.129:40000 SYN-ACK 500 101
        0    0 10.23.77.129:40000 > 10.23.77.138:80 ACK 101 501
        5    0 10.23.77.129:40000 > 10.23.77.138:80 RST-ACK 150 501
        10   0 10.23.77.129:40002 > 10.23.77.138:80 SYN 200
        1010 0 10.23.77.129:40002 > 10.23.77.138:80 SYN 200
    ";
    for material in [Material::default(), with_table()] {
        let analysis = analyse(&material, &[Input("a", 0, text)]);
        assert!(analysis.incidents.is_empty(), "{:#?}", analysis.incidents);
        assert_eq!(analysis.summary.connects_seen, Some(2));
    }
}

pub(super) fn other_reset(text: &str, words: &str, confidence: Confidence) {
    for material in [Material::default(), with_table()] {
        let analysis = analyse(&material, &[Input("a", 0, text)]);
        assert_eq!(judged(&analysis), (Verdict::OtherReset, Outcome::Failed, confidence), "{words}");
        let evidence = &only(&analysis).evidence;
        assert!(evidence.iter().any(|evidence| evidence.text.contains(words)), "{evidence:#?}");
    }
}

#[test]
fn a_closed_port_is_another_reset() {
    let text = "
        0 0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        0 0 10.23.77.138:80 > 10.23.77.129:40000 RST-ACK 0 101
    ";
    other_reset(text, "nobody listens there", Confidence::Likely);
}

#[test]
fn an_abort_by_the_client_is_another_reset() {
    let text = "
        0 0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        0 0 10.23.77.138:80 > 10.23.77.129:40000 SYN-ACK 500 101
        0 0 10.23.77.129:40000 > 10.23.77.138:80 RST-ACK 101 501
    ";
    other_reset(text, "aborted the connection", Confidence::Likely);
}

#[test]
fn a_reply_whose_address_was_not_translated_back_is_another_reset() {
    let text = "
        0 0 10.23.77.129:40000 > 10.23.200.1:80 SYN 100
        0 0 10.23.77.138:8080 > 10.23.77.129:40000 SYN-ACK 500 101
        0 0 10.23.77.129:40000 > 10.23.77.138:8080 RST 101
    ";
    other_reset(text, "the reply came from 10.23.77.138:8080", Confidence::Likely);
}

#[test]
fn a_reply_that_comes_after_the_client_gave_up_is_another_reset() {
    let text = "
        0    0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        1000 0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        2500 0 10.23.77.138:80 > 10.23.77.129:40000 SYN-ACK 500 101
        2500 0 10.23.77.129:40000 > 10.23.77.138:80 RST 101
    ";
    other_reset(text, "had given up", Confidence::Possible);
}

#[test]
fn a_reset_of_a_port_that_the_table_lacks_is_not_because_of_ipvs() {
    let text = POD.replace("36704", "40000");
    let analysis = analyse(&with_table(), &[Input("a", 0, &text)]);
    assert_eq!(judged(&analysis), (Verdict::OtherReset, Outcome::Failed, Confidence::Possible));
}

/// iovisor, sngrep and others: the same packet on several interfaces, or twice on `any`, is no retransmission
/// (ucsb CVEX #6, kubernetes/kubernetes#25793).
#[test]
fn copies_of_a_packet_are_one_packet() {
    let text = "
        0    0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
        0    0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
        0    1 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
        0    1 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 101
        0    0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 101
        1    0 10.23.77.129:36704 > 10.23.77.138:80 RST 101
        1    1 10.23.77.129:36704 > 10.23.77.138:80 RST 101
        1000 0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
        1000 1 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
    ";
    let analysis = analyse(&with_table(), &[Input("any.pcap", 0, text)]);
    let incident = only(&analysis);
    assert_eq!((incident.connection.syn_retransmits, incident.resets.len()), (1, 1));
    assert_eq!(analysis.incidents[0].ladder.arrows.len(), 4);
    assert_eq!(analysis.incidents[0].timeline.len(), 9, "the timeline has every sight");
}

/// kubernetes/kubernetes#70747 and #81775: exactly one second more, because the first SYN to a reused port was dropped.
#[test]
fn a_second_syn_to_a_service_that_then_completes_is_a_delay() {
    let text = "
        0    0 10.23.77.140:51000 > 10.23.254.52:443 SYN 100
        1000 0 10.23.77.140:51000 > 10.23.254.52:443 SYN 100
        1000 0 10.23.254.52:443 > 10.23.77.140:51000 SYN-ACK 500 101
        1000 0 10.23.77.140:51000 > 10.23.254.52:443 ACK 101 501
    ";
    let analysis = analyse(&with_table(), &[Input("a", 0, text)]);
    assert_eq!(judged(&analysis), (Verdict::ReuseDelay, Outcome::Survived, Confidence::Possible));
    let to_a_pod = text.replace("10.23.254.52:443", "10.23.77.138:80");
    assert!(analyse(&with_table(), &[Input("a", 0, &to_a_pod)]).incidents.is_empty());
}

/// cilium/cilium#23604: the socket's own port is innocent; masquerading put the service's port on the wire.
#[test]
fn a_port_that_masquerading_chose_is_told_apart() {
    let text = "
        0 1 10.23.77.140:51000 > 198.51.100.10:80 SYN 100
        0 0 10.23.77.129:36704 > 198.51.100.10:80 SYN 100
        9 0 198.51.100.10:80 > 10.23.77.129:36704 SYN-ACK 500 101
        9 2 198.51.100.10:80 > 10.23.77.139:8443 SYN-ACK 500 101
        9 2 10.23.77.139:8443 > 198.51.100.10:80 RST 101
    ";
    let analysis = analyse(&with_table(), &[Input("node.pcap", 0, text)]);
    assert_eq!(judged(&analysis), (Verdict::CollisionSnat, Outcome::Hijacked, Confidence::Proven));
    let incident = only(&analysis);
    assert_eq!(incident.connection.local.as_deref(), Some("10.23.77.129:36704"));
    assert!(
        incident.evidence.iter().any(|e| e.text.contains("from 10.23.77.140:51000 to 10.23.77.129:36704"))
    );
}

#[test]
fn a_reply_that_is_followed_by_another_syn_is_a_sign_without_any_reset() {
    let text = "
        0    0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
        0    0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 101
        1030 0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
        1030 0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 700 101
    ";
    let with = analyse(&with_table(), &[Input("uplink.pcap", 0, text)]);
    assert_eq!(judged(&with), (Verdict::Collision, Outcome::Pending, Confidence::Likely));
    let evidence = &only(&with).evidence;
    assert!(evidence.iter().any(|evidence| evidence.text.contains("answered anew")), "{evidence:#?}");
    let without = analyse(&Material::default(), &[Input("uplink.pcap", 0, text)]);
    assert_eq!(judged(&without), (Verdict::Collision, Outcome::Pending, Confidence::Possible));
    let other_port = text.replace("36704", "40000");
    assert!(analyse(&with_table(), &[Input("uplink.pcap", 0, &other_port)]).incidents.is_empty());
}

/// TCP Fast Open: the reply acknowledges the data in the SYN too.
#[test]
fn a_syn_with_data_is_the_same_handshake() {
    let text = "
        0    0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
        0    0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 125
        0    1 10.23.77.138:80 > 10.23.77.139:8443 SYN-ACK 500 125
        1    1 10.23.77.139:8443 > 10.23.77.138:80 RST 125
        1    0 10.23.77.129:36704 > 10.23.77.138:80 RST 125
    ";
    let analysis = analyse(&with_table(), &[Input("node.pcap", 0, text)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Hijacked, Confidence::Proven));
    assert_eq!(only(&analysis).connection.isn, Some(100));
    assert_eq!(only(&analysis).resets.len(), 1);
}
