//! The outcomes that real kernels were seen to produce, by the letters of the outcome table in the kernel notes.

use super::make::*;
use crate::diagnosis::incident::{Confidence, Incident, Outcome, Verdict};
use crate::observation::{Fact, Observation, Tuple};

fn assert_judged(incident: &Incident, verdict: Verdict, outcome: Outcome, confidence: Confidence) {
    assert_eq!((incident.verdict, incident.outcome, incident.confidence), (verdict, outcome, confidence));
}

fn assert_hijacked(incident: &Incident) {
    assert_judged(incident, Verdict::Collision, Outcome::Hijacked, Confidence::Proven);
}

/// A and C: conn_reuse_mode=1 with conntrack. Every other SYN-ACK is dropped by IPVS without a trace.
#[test]
fn resets_that_alternate_with_silent_drops() {
    let incident = incident([
        at(0, began()),
        at(0, hijacked()),
        at(0, reset(BACKEND, Some(BACKEND_NS))),
        at(1000, retransmitted()),
        at(2000, hijacked()),
        at(2000, reset(BACKEND, Some(BACKEND_NS))),
        at(3000, retransmitted()),
        at(5000, died(110)),
    ]);
    assert_hijacked(&incident);
    assert_eq!((incident.resets.len(), incident.connection.syn_retransmits), (2, 2));
}

/// B, F, no conntrack: every SYN-ACK is reset.
#[test]
fn a_reset_for_every_reply() {
    let tries = [0, 1000, 3000]
        .into_iter()
        .flat_map(|ms| [at(ms, hijacked()), at(ms, reset(BACKEND, Some(BACKEND_NS)))]);
    let incident = incident(std::iter::once(at(0, began())).chain(tries).chain([at(4000, died(0))]));
    assert_hijacked(&incident);
    assert_eq!(incident.resets.len(), 3);
}

/// D and E: no destination, or all of weight 0. ICMP port unreachable, no RST anywhere.
#[test]
fn a_service_without_a_backend() {
    let incident = incident([at(0, began()), at(0, no_backend()), at(1000, no_backend()), at(2000, died(0))]);
    assert_judged(&incident, Verdict::Collision, Outcome::NoBackend, Confidence::Proven);
    assert!(incident.resets.is_empty());
    assert!(texts(&incident)[1].contains("ICMP port unreachable"));
}

/// G: nobody listens on the backend's port, so the RST comes without a socket; its reason says so.
#[test]
fn a_closed_backend_port() {
    let Fact::Reset { remote, local, netns, seq, .. } = reset(BACKEND, Some(BACKEND_NS)) else {
        unreachable!()
    };
    let reset = Fact::Reset { remote, local, netns, seq, reason: Some("NO_SOCKET".to_owned()) };
    let incident = incident([at(0, began()), at(0, reset), at(2000, died(0))]);
    assert_hijacked(&incident);
    assert!(texts(&incident)[1].ends_with("(namespace 4026532290, reason NO_SOCKET)"));
}

/// H: the backend is a process of the node's own namespace, so the RST comes from there, but from another port.
#[test]
fn a_backend_on_the_host_network() {
    let Fact::ConnectBegan { tuple, netns, isn, socket, owner, .. } = began() else { unreachable!() };
    let service = Some(std::sync::Arc::new(service(LOCAL, &["10.23.77.129:8081"])));
    let began = Fact::ConnectBegan { tuple, netns, isn, socket, owner, service };
    assert_hijacked(&incident([
        at(0, began),
        at(0, reset("10.23.77.129:8081", Some(HOST))),
        at(2000, died(0)),
    ]));
}

/// I: the peer is a socket of the same host, over loopback (node-local-dns does that to itself).
#[test]
fn a_peer_on_loopback() {
    let local = sock("169.254.20.10:36704");
    let peer = sock("169.254.20.10:8080");
    let began = Fact::ConnectBegan {
        tuple: Tuple { local, remote: peer },
        netns: Some(HOST),
        isn: Some(1),
        socket: None,
        owner: None,
        service: None,
    };
    let row = crate::ipvs::table::IpvsConnection { client: peer, virtual_address: local, ..row(BACKEND) };
    let reset =
        Fact::Reset { remote: peer, local: sock(BACKEND), netns: Some(BACKEND_NS), seq: 2, reason: None };
    let hijacked = Fact::Hijacked { connection: row, netns: Some(HOST), ack: Some(2) };
    assert_hijacked(&incident([at(0, reset), at(0, hijacked), at(0, began)]));
}

/// J and V: the RST is dropped on its way, or sent on another node. Only IPVS itself is seen here.
#[test]
fn a_reset_that_is_never_seen_here() {
    let incident =
        incident([at(0, began()), at(0, hijacked()), at(1000, retransmitted()), at(2000, died(0))]);
    assert_hijacked(&incident);
    assert!(incident.resets.is_empty());
}

/// V with no hook on IPVS: the row of its connection table proves it.
#[test]
fn a_row_of_the_connection_table_proves_it_after_the_fact() {
    let mut row = row(BACKEND);
    row.state = "SYN_RECV".to_owned();
    let incident = incident([
        at(0, began()),
        at(2000, died(0)),
        at(9000, Fact::ConnectionRow { row, netns: Some(HOST) }),
    ]);
    assert_hijacked(&incident);
    assert_eq!(incident.hijack.unwrap().state.as_deref(), Some("SYN_RECV"));
}

/// W: another node drops the SYN-ACK. With no hook on IPVS nothing is left but a connect that waits in vain.
#[test]
fn a_reply_that_vanishes() {
    let incident =
        incident([at(0, began()), at(1000, retransmitted()), at(3000, retransmitted()), at(7000, died(0))]);
    assert_judged(&incident, Verdict::Collision, Outcome::Failed, Confidence::Likely);
}

/// Y: pods on one bridge without br_netfilter. The RST reaches the pod untranslated; who sends it is the same.
#[test]
fn a_reset_that_bypasses_ipvs() {
    assert_hijacked(&incident([at(0, began()), at(0, reset(BACKEND, None)), at(2000, died(0))]));
}

/// T: the service was deleted meanwhile; IPVS drops one reply and lets the next pass.
#[test]
fn a_stale_entry_costs_a_second_and_the_handshake_completes() {
    let incident = incident([at(0, began()), at(1000, retransmitted()), at(1001, established())]);
    assert_judged(&incident, Verdict::Collision, Outcome::Survived, Confidence::Likely);
    assert_eq!(incident.duration_ms, Some(1001));
}

fn look_alike() -> Vec<Observation> {
    vec![at(0, began()), at(1000, died(0)), at(1100, reset(LOCAL, Some(HOST)))]
}

/// 1.5: the client closed, then a late SYN-ACK came, and the node's own stack reset it. On the wire it is identical.
#[test]
fn a_late_reply_to_a_client_that_closed_is_not_ipvs() {
    let incident = incident(look_alike());
    assert_judged(&incident, Verdict::OtherReset, Outcome::Failed, Confidence::Likely);
    assert!(texts(&incident)[2].starts_with("this node's own stack, at 10.23.77.129:36704, reset"));
    assert!(incident.advice.is_empty());
}

#[test]
fn evidence_of_a_hijack_beats_the_look_alike() {
    let hijack = look_alike().into_iter().chain([at(0, hijacked())]);
    assert_hijacked(&incident(hijack));
    let backend = look_alike().into_iter().chain([at(0, reset(BACKEND, Some(BACKEND_NS)))]);
    assert_hijacked(&incident(backend));
}

#[test]
fn ipv6_behaves_the_same() {
    let tuple = Tuple { local: sock("[fd00::1]:36704"), remote: sock("[fd00::2]:80") };
    let began =
        Fact::ConnectBegan { tuple, netns: None, isn: Some(9), socket: None, owner: None, service: None };
    let reset = Fact::Reset {
        remote: tuple.remote,
        local: sock("[fd00::3]:8443"),
        netns: Some(7),
        seq: 10,
        reason: None,
    };
    let incident = incident([at(0, began), at(0, reset)]);
    assert_eq!(incident.outcome, Outcome::Hijacked);
    assert_eq!(incident.id, "20220915T190902.533940000Z-[fd00::1]:36704-[fd00::2]:80");
}

#[test]
fn a_v4_mapped_address_is_the_ipv4_address() {
    let Fact::ConnectBegan { netns, isn, socket, owner, service, .. } = began() else { unreachable!() };
    let tuple =
        Tuple { local: sock("[::ffff:10.23.77.129]:36704"), remote: sock("[::ffff:10.23.77.138]:80") };
    let began = Fact::ConnectBegan { tuple, netns, isn, socket, owner, service };
    let incident = incident([at(0, began), at(0, hijacked()), at(9, died(0))]);
    assert_hijacked(&incident);
    assert_eq!(incident.connection.local.as_deref(), Some(LOCAL));
}

#[test]
fn sequence_numbers_wrap_around() {
    let Fact::ConnectBegan { tuple, netns, socket, owner, service, .. } = began() else { unreachable!() };
    let began = Fact::ConnectBegan { tuple, netns, isn: Some(u32::MAX), socket, owner, service };
    let reset = Fact::Reset { remote: sock(POD), local: sock(BACKEND), netns: Some(1), seq: 0, reason: None };
    let incident = incident([at(0, began), at(0, reset)]);
    assert_hijacked(&incident);
    assert!(texts(&incident)[1].contains("seq 0 = ISN + 1"));
}

/// A SYN with data (TCP Fast Open) is acknowledged beyond ISN + 1.
#[test]
fn fast_open_acknowledges_more_than_the_syn() {
    let hijack = Fact::Hijacked { connection: row(BACKEND), netns: Some(HOST), ack: Some(ISN + 1 + 900) };
    let reset = Fact::Reset {
        remote: sock(POD),
        local: sock(BACKEND),
        netns: Some(BACKEND_NS),
        seq: ISN + 1 + 900,
        reason: None,
    };
    let incident = incident([at(0, reset), at(0, hijack), at(0, began())]);
    assert_hijacked(&incident);
    assert_eq!(incident.resets.len(), 1);
}

/// NAT of the client's SYN: IPVS sees another server than the client, but the same sequence number.
#[test]
fn a_translated_server_is_recognised_by_the_sequence_number_alone() {
    let reset = Fact::Reset {
        remote: sock("10.99.0.1:8080"),
        local: sock(BACKEND),
        netns: Some(BACKEND_NS),
        seq: ISN + 1,
        reason: None,
    };
    assert_hijacked(&incident([at(0, reset.clone()), at(0, began())]));

    let other = Fact::ConnectBegan {
        tuple: Tuple { local: sock("10.23.77.129:36705"), remote: sock("10.23.77.150:80") },
        netns: Some(HOST),
        isn: Some(ISN),
        socket: None,
        owner: None,
        service: None,
    };
    let both = concluded(run([at(0, began()), at(0, reset), at(0, other)]));
    assert!(both.iter().all(|incident| incident.resets.is_empty()), "two connects fit: never guess");
}
