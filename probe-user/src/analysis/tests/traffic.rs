//! Traffic that has nothing to do with IPVS, as real stacks send it.

use super::make::{Input, TABLE, analyse, table, with_table};
use super::verdicts::{judged, only, other_reset};
use crate::analysis::material::Material;
use crate::diagnosis::incident::{Confidence, Outcome, Verdict};

fn nothing(text: &str) {
    for material in [Material::default(), with_table()] {
        let analysis = analyse(&material, &[Input("a", 0, text)]);
        assert!(analysis.incidents.is_empty(), "{:#?}", analysis.incidents);
    }
}

/// `nmap -sS`, and load balancers that open nothing: the RST is that of a stack without a socket, as in a hijack.
#[test]
fn a_half_open_scan_is_no_collision() {
    let text = "
        0 0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        0 0 10.23.77.138:80 > 10.23.77.129:40000 SYN-ACK 500 101
        0 0 10.23.77.129:40000 > 10.23.77.138:80 RST 101
    ";
    other_reset(text, "rejected the reply", Confidence::Possible);
}

/// As captured with the filter of docs/analyze.md, which leaves out the ACK.
#[test]
fn a_server_that_accepts_and_aborts_is_no_closed_port() {
    let text = "
        0 0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        0 0 10.23.77.138:80 > 10.23.77.129:40000 SYN-ACK 500 101
        1 0 10.23.77.138:80 > 10.23.77.129:40000 RST-ACK 501 101
    ";
    other_reset(text, "aborted the connection right after its own reply", Confidence::Likely);
    let analysis = analyse(&with_table(), &[Input("a", 0, &text.replace("40000", "36704"))]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Survived, Confidence::Likely));
}

#[test]
fn a_reply_that_was_lost_and_came_again_is_no_collision() {
    nothing(
        "
        0    0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        0    0 10.23.77.138:80 > 10.23.77.129:40000 SYN-ACK 500 101
        1030 0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        1030 0 10.23.77.138:80 > 10.23.77.129:40000 SYN-ACK 500 101
        3100 0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        3100 0 10.23.77.138:80 > 10.23.77.129:40000 SYN-ACK 500 101
    ",
    );
}

/// The ACK is sent only by a client that had its reply.
#[test]
fn a_capture_of_the_clients_direction_alone_shows_that_it_came_about() {
    let text = "
        0 0 10.23.77.129:36704 > 10.23.77.138:80 SYN 100
        1 0 10.23.77.129:36704 > 10.23.77.138:80 ACK 101 501
    ";
    let analysis = analyse(&with_table(), &[Input("a", 0, text)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Survived, Confidence::Likely));
    assert!(analyse(&Material::default(), &[Input("a", 0, text)]).incidents.is_empty());
}

/// TCP Fast Open: everything after the SYN counts its data in.
#[test]
fn a_syn_with_data_is_one_handshake() {
    let text = "
        0 0 10.23.77.129:36704 > 10.23.77.138:80 SYN+18 100
        0 0 10.23.77.138:80 > 10.23.77.129:36704 SYN-ACK 500 119
        1 0 10.23.77.129:36704 > 10.23.77.138:80 ACK 119 501
    ";
    let analysis = analyse(&with_table(), &[Input("a", 0, text)]);
    assert_eq!(judged(&analysis), (Verdict::Collision, Outcome::Survived, Confidence::Likely));
    assert_eq!(only(&analysis).connection.isn, Some(100));
    nothing(&text.replace("36704", "40000"));
    let refused = "
        0 0 10.23.77.129:40000 > 10.23.77.138:80 SYN+18 100
        0 0 10.23.77.138:80 > 10.23.77.129:40000 RST-ACK 0 119
    ";
    other_reset(refused, "nobody listens there", Confidence::Likely);
    // A server that does not take the data answers the SYN alone.
    let without = text.replace("119", "101");
    let analysis = analyse(&with_table(), &[Input("a", 0, &without)]);
    assert_eq!(only(&analysis).outcome, Outcome::Survived);
}

#[test]
fn a_service_at_the_destination_port_is_no_collision() {
    let text = "
        0    0 10.23.77.140:40000 > 10.23.77.129:36704 SYN 100
        0    0 10.23.77.129:36704 > 10.23.77.140:40000 SYN-ACK 500 101
        1    0 10.23.77.140:40000 > 10.23.77.129:36704 RST 101
    ";
    let material = Material { tables: vec![table(TABLE)], ..Material::default() };
    let analysis = analyse(&material, &[Input("a", 0, text)]);
    assert_eq!(only(&analysis).verdict, Verdict::OtherReset);
}

/// A half-open scan through masquerading, of whose server's side only one direction was captured from its SYN-ACK on.
#[test]
fn a_reply_before_masquerading_is_undone_is_no_hijack() {
    let client = "
        0  0 10.23.77.129:40000 > 10.23.77.138:80 SYN 100
        10 0 10.23.77.138:80 > 10.23.77.129:40000 SYN-ACK 500 101
        10 0 10.23.77.129:40000 > 10.23.77.138:80 RST 101
    ";
    let server = "
        5  0 10.23.77.138:80 > 192.0.2.7:55555 SYN-ACK 500 101
        15 0 192.0.2.7:55555 > 10.23.77.138:80 RST 101
    ";
    let analysis = analyse(&Material::default(), &[Input("client", 0, client), Input("server", 0, server)]);
    assert_eq!(only(&analysis).verdict, Verdict::OtherReset);
}
