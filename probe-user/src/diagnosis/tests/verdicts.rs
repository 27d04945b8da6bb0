//! Verdict, outcome and confidence, and which updates are told when.

use std::sync::Arc;

use super::make::*;
use crate::diagnosis::incident::{Confidence, Outcome, Verdict};
use crate::diagnosis::{Diagnosis, NodeFacts, Settings, Update};
use crate::observation::{Fact, Nanos, Observation, Owner};

fn judged(observations: impl IntoIterator<Item = Observation>) -> (Verdict, Outcome, Confidence) {
    let incident = incident(observations);
    (incident.verdict, incident.outcome, incident.confidence)
}

#[test]
fn the_incident_as_it_was_first_seen_is_told_in_full() {
    let incident = incident([
        at(0, began()),
        at(0, hijacked()),
        at(0, reset(BACKEND, Some(BACKEND_NS))),
        at(1031, retransmitted()),
        at(1031, hijacked()),
        at(1031, reset(BACKEND, Some(BACKEND_NS))),
        at(2001, died(0)),
    ]);
    assert_eq!(incident.id, "20220915T190902.533940000Z-10.23.77.129:36704-10.23.77.138:80");
    assert_eq!(incident.started_at, "2022-09-15T19:09:02.533940000Z");
    assert_eq!(incident.duration_ms, Some(2001));
    assert_eq!(incident.connection.syn_retransmits, 1);
    assert_eq!(incident.connection.isn, Some(ISN));
    assert_eq!(incident.owner.pid, Some(607_529));
    assert_eq!(incident.resets.len(), 2);
    assert_eq!(incident.hijack.as_ref().map(|hijack| hijack.backend.as_str()), Some(BACKEND));
    assert_eq!(incident.service.as_ref().map(|service| service.backends.len()), Some(1));
    assert_eq!(
        texts(&incident),
        [
            "10.23.77.129:36704 sent its first SYN to 10.23.77.138:80 (sequence number 4142039474)",
            "IPVS handed the reply of 10.23.77.138:80 to backend 10.23.77.139:8443 as if it were a new connection to service \
             10.23.77.129:36704",
            "the stack of backend 10.23.77.139:8443 reset it: RST seq 4142039475 = ISN + 1 (namespace 4026532290)",
            "no reply had reached the socket: the SYN was sent again",
            "IPVS handed the reply of 10.23.77.138:80 to backend 10.23.77.139:8443 as if it were a new connection to service \
             10.23.77.129:36704",
            "the stack of backend 10.23.77.139:8443 reset it: RST seq 4142039475 = ISN + 1 (namespace 4026532290)",
            "its process closed the socket before the handshake completed",
        ]
    );
}

#[test]
fn a_hijack_is_told_without_its_reset_only_after_waiting_for_it() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    diagnosis.observe(at(0, began()));
    diagnosis.observe(at(1, hijacked()));
    assert!(diagnosis.advance(START + 200 * MS).is_empty());
    assert!(matches!(diagnosis.advance(START + 201 * MS).as_slice(), [Update::Clear(clear)]
        if clear.outcome == Outcome::Hijacked && clear.resets.is_empty()));
}

#[test]
fn a_connection_begins_once_is_clear_once_and_is_concluded_once() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    let feed = |diagnosis: &mut Diagnosis, ms, fact| diagnosis.observe(at(ms, fact));
    assert!(feed(&mut diagnosis, 0, hijacked()).is_empty(), "parked: its connect is not known yet");
    assert!(matches!(feed(&mut diagnosis, 0, began()).as_slice(), [Update::Began(_)]));
    assert!(feed(&mut diagnosis, 0, began()).is_empty(), "the same connect, told by another source");
    assert!(feed(&mut diagnosis, 1, reset(BACKEND, Some(BACKEND_NS))).is_empty());
    assert!(diagnosis.advance(START + 5 * MS).is_empty(), "evidence of the same moment is waited for");
    assert_eq!(diagnosis.next_deadline(), Some(START + 6 * MS));
    assert!(matches!(diagnosis.advance(START + 6 * MS).as_slice(), [Update::Clear(clear)]
        if clear.outcome == Outcome::Hijacked && clear.duration_ms.is_none() && clear.resets.len() == 1));
    assert!(feed(&mut diagnosis, 6, hijacked()).is_empty());
    assert!(diagnosis.advance(START + 20 * MS).is_empty(), "told already");
    assert!(feed(&mut diagnosis, 2001, died(0)).is_empty());
    assert_eq!(diagnosis.next_deadline(), Some(START + 2251 * MS));
    assert!(diagnosis.advance(START + 2250 * MS).is_empty(), "late evidence may still come");
    let updates = diagnosis.advance(START + 2251 * MS);
    assert!(matches!(updates.as_slice(), [Update::Concluded(_)]), "{updates:#?}");
    assert!(diagnosis.observe(at(0, began())).is_empty(), "the same connect once more");
    assert!(diagnosis.observe(at(2001, reset(BACKEND, None))).is_empty());
    assert!(diagnosis.finish(START + 9000 * MS).is_empty());
    assert_eq!(diagnosis.counts().get(&Verdict::Collision), Some(&1));
    assert!(diagnosis.unjoined().is_empty(), "late is not unexplained");
}

#[test]
fn a_clear_verdict_of_a_socket_that_stays_open_is_concluded_after_a_while() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    diagnosis.observe(at(0, began()));
    diagnosis.observe(at(3, no_backend()));
    assert!(matches!(diagnosis.advance(START + 8 * MS).as_slice(), [Update::Clear(_)]));
    assert!(diagnosis.advance(START + 10_000 * MS).is_empty());
    let updates = diagnosis.advance(START + 10_003 * MS);
    assert!(matches!(updates.as_slice(), [Update::Concluded(incident)]
        if incident.outcome == Outcome::NoBackend && incident.duration_ms.is_none()));
}

#[test]
fn a_connection_whose_end_is_never_seen_is_concluded_as_pending() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    diagnosis.observe(at(0, began()));
    let updates = diagnosis.advance(START + 300_000 * MS);
    assert!(
        matches!(updates.as_slice(), [Update::Concluded(incident)] if incident.outcome == Outcome::Pending)
    );
}

#[test]
fn a_death_without_evidence_is_likely_only_after_waiting_in_vain() {
    let failed = |confidence| (Verdict::Collision, Outcome::Failed, confidence);
    assert_eq!(judged([at(0, began()), at(5, died(0))]), failed(Confidence::Possible));
    assert_eq!(
        judged([at(0, began()), at(1000, retransmitted()), at(2000, died(0))]),
        failed(Confidence::Likely)
    );
    assert_eq!(judged([at(0, began()), at(130_000, died(110))]), failed(Confidence::Likely));
    let unknown = Fact::ConnectBegan {
        tuple: tuple(),
        netns: None,
        isn: None,
        socket: None,
        owner: None,
        service: None,
    };
    assert_eq!(judged([at(0, unknown), at(130_000, died(110))]), failed(Confidence::Possible));
}

#[test]
fn a_refused_or_unreachable_server_is_a_false_alarm() {
    for errno in [111, 113, 101] {
        let none = (Verdict::None, Outcome::Failed, Confidence::Likely);
        assert_eq!(judged([at(0, began()), at(1, died(errno))]), none);
    }
    let hijacked = judged([at(0, began()), at(0, hijacked()), at(1, died(113))]);
    assert_eq!(hijacked, (Verdict::Collision, Outcome::Hijacked, Confidence::Proven));
}

#[test]
fn a_handshake_that_completes_survived_whatever_happened_before() {
    assert_eq!(
        judged([at(0, began()), at(1, established())]),
        (Verdict::Collision, Outcome::Survived, Confidence::Likely)
    );
    assert_eq!(
        judged([at(0, began()), at(0, hijacked()), at(1000, established())]),
        (Verdict::Collision, Outcome::Survived, Confidence::Proven)
    );
}

/// kernel: `ip_vs_out_hook` comes first, so the reply of a service is never scheduled.
#[test]
fn a_connect_to_a_service_is_not_at_risk() {
    let services = Fact::Services { netns: Some(HOST), table: table(&[service(POD, &[BACKEND])]) };
    let updates = run([at(-5, services.clone()), at(0, began()), at(1, established())]);
    assert!(matches!(updates.as_slice(), [Update::Concluded(incident)] if incident.verdict == Verdict::None));
    let proven = judged([at(-5, services), at(0, began()), at(0, hijacked()), at(9, died(0))]);
    assert_eq!(proven.1, Outcome::Hijacked, "evidence beats theory");
}

#[test]
fn the_service_is_the_one_of_the_table_that_was_valid_at_connect_time() {
    let table_at = |ms, backend| {
        at(ms, Fact::Services { netns: Some(HOST), table: table(&[service(LOCAL, &[backend])]) })
    };
    let Fact::ConnectBegan { tuple, netns, isn, socket, owner, .. } = began() else { unreachable!() };
    let began = Fact::ConnectBegan { tuple, netns, isn, socket, owner, service: None };
    let incident = incident([
        table_at(10, "10.0.0.3:3"),
        at(0, began),
        table_at(-10, "10.0.0.2:2"),
        table_at(-20, "10.0.0.1:1"),
        at(1, reset("10.0.0.2:2", None)),
    ]);
    assert_eq!(incident.service.unwrap().backends, ["10.0.0.2:2"]);
    assert_eq!(incident.confidence, Confidence::Proven, "the namespace is unknown, but it is a backend");
}

#[test]
fn a_reset_from_an_unknown_address_is_likely_in_the_own_namespace_and_proven_in_another() {
    let stranger = "10.23.77.200:1";
    let hijacked = |confidence| (Verdict::Collision, Outcome::Hijacked, confidence);
    assert_eq!(judged([at(0, began()), at(0, reset(stranger, Some(HOST)))]), hijacked(Confidence::Likely));
    assert_eq!(judged([at(0, began()), at(0, reset(stranger, None))]), hijacked(Confidence::Likely));
    assert_eq!(judged([at(0, began()), at(0, reset(stranger, Some(7)))]), hijacked(Confidence::Proven));
}

#[test]
fn without_an_isn_a_foreign_reset_proves_only_if_it_comes_from_a_backend() {
    let blind = |service| Fact::ConnectBegan {
        tuple: tuple(),
        netns: Some(HOST),
        isn: None,
        socket: None,
        owner: None,
        service,
    };
    let foreign = at(1, reset(BACKEND, Some(BACKEND_NS)));
    assert_eq!(judged([at(0, blind(None)), foreign.clone()]).2, Confidence::Likely);
    let known = Some(Arc::new(service(LOCAL, &[BACKEND])));
    assert_eq!(judged([foreign, at(0, blind(known))]).2, Confidence::Proven);
}

#[test]
fn a_translated_reset_in_a_capture_is_no_look_alike_while_the_client_still_waits() {
    let (verdict, outcome, confidence) =
        judged([at(0, began()), at(0, reset(LOCAL, None)), at(2000, died(0))]);
    assert_eq!((verdict, outcome, confidence), (Verdict::Collision, Outcome::Failed, Confidence::Likely));
    let (verdict, ..) = judged([at(0, began()), at(2000, died(0)), at(2100, reset(LOCAL, None))]);
    assert_eq!(verdict, Verdict::OtherReset);
}

fn no_port(pid: u32, ms: i64) -> Observation {
    let owner = Owner { pid: Some(pid), comm: Some("wget".to_owned()), ..Owner::default() };
    let fact = Fact::ConnectFailed {
        local: None,
        remote: Some(sock(POD)),
        netns: Some(HOST),
        socket: None,
        errno: 99,
        owner: Some(Arc::new(owner)),
    };
    at(ms, fact)
}

#[test]
fn exhaustion_is_one_incident_per_process_and_destination_however_often_it_tried() {
    let updates = run([no_port(7, 30), no_port(7, 0), no_port(8, 5), no_port(7, 10)]);
    let clear = updates.iter().filter(|update| matches!(update, Update::Clear(_))).count();
    assert_eq!(clear, 2);
    let all = concluded(updates);
    let times: Vec<_> =
        all.iter().map(|incident| (incident.owner.pid, texts(incident)[0].to_owned())).collect();
    assert_eq!(
        times,
        [
            (
                Some(7),
                "connect() to 10.23.77.138:80 failed with EADDRNOTAVAIL 3 times within 0.030 s: no free source port"
                    .to_owned()
            ),
            (
                Some(8),
                "connect() to 10.23.77.138:80 failed with EADDRNOTAVAIL: no free source port".to_owned()
            ),
        ]
    );
    assert!(all.iter().all(|incident| incident.verdict == Verdict::Exhaustion));
    assert_eq!(all[0].duration_ms, Some(30));
}

#[test]
fn a_bound_socket_whose_tuple_is_in_use_is_not_exhaustion() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    let fact = Fact::ConnectFailed {
        local: Some(sock(LOCAL)),
        remote: Some(sock(POD)),
        netns: None,
        socket: None,
        errno: 99,
        owner: None,
    };
    assert!(diagnosis.observe(at(0, fact)).is_empty());
    assert!(diagnosis.finish(START).is_empty());
    assert_eq!(diagnosis.counts().get(&Verdict::None), Some(&1));
}

#[test]
fn the_advice_uses_the_services_of_the_table_where_the_caller_names_none() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    diagnosis.set_node(NodeFacts {
        reserved: Some("50000".to_owned()),
        local_port_range: Some((1024, 65_000)),
        ..NodeFacts::default()
    });
    let services = [service(LOCAL, &[BACKEND]), service("10.23.77.129:20869", &[])];
    diagnosis.observe(at(-1, Fact::Services { netns: Some(HOST), table: table(&services) }));
    diagnosis.observe(at(0, began()));
    let incidents = concluded(diagnosis.finish(START + MS));
    assert_eq!(incidents[0].advice[0].value.as_deref(), Some("20869,36704,50000"));
}

#[test]
fn open_connections_are_those_that_a_table_row_could_still_prove() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    diagnosis.observe(at(0, began()));
    assert_eq!(diagnosis.open_connections(), [(tuple(), Some(HOST))]);
    diagnosis.observe(at(1, Fact::ConnectionRow { row: row(BACKEND), netns: None }));
    assert!(diagnosis.open_connections().is_empty());
}

#[test]
fn a_fact_about_a_socket_belongs_to_the_latest_connect_on_it() {
    let retransmitted =
        Fact::SynRetransmitted { tuple: tuple(), netns: Some(HOST), socket: Some(0xffff_8881) };
    let second = Fact::ConnectBegan {
        tuple: tuple(),
        netns: Some(HOST),
        isn: Some(5),
        socket: Some(0xffff_8881),
        owner: None,
        service: None,
    };
    let all = concluded(run([at(500, retransmitted), at(400, second), at(0, began()), at(100, died(0))]));
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].connection.syn_retransmits, all[1].connection.syn_retransmits), (0, 1));
    assert_eq!(all[1].duration_ms, None, "the first socket's death is not the second's");
}

#[test]
fn exhaustion_is_concluded_when_it_stops_and_every_ten_seconds_while_it_goes_on() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    assert!(matches!(diagnosis.observe(no_port(7, 0)).as_slice(), [Update::Clear(_)]));
    assert!(diagnosis.advance(START + 999 * MS).is_empty());
    assert!(matches!(diagnosis.advance(START + 1000 * MS).as_slice(), [Update::Concluded(_)]));
    let mut concluded = Vec::new();
    for ms in (2000..13_000).step_by(500) {
        diagnosis.observe(no_port(7, ms));
        concluded.extend(diagnosis.advance(START + ms * MS).iter().map(|_| ms));
    }
    assert_eq!(concluded, [12_000]);
}

/// The same connect from another port, as the number-th.
fn another(number: u32) -> Fact {
    let Fact::ConnectBegan { tuple, netns, owner, service, .. } = began() else { panic!("no connect") };
    let (isn, socket) = (Some(number), Some(number.into()));
    Fact::ConnectBegan { tuple, netns, isn, socket, owner, service }
}

#[test]
fn advice_follows_what_is_known_about_the_node() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    let mut values = Vec::new();
    for (number, ports) in [(1, vec![36_704, 40_000]), (2, vec![36_704, 40_000]), (3, vec![36_704])] {
        if number != 2 {
            let reserved = Some(String::new());
            diagnosis.set_node(NodeFacts { service_ports: ports, reserved, ..NodeFacts::default() });
        }
        let mut updates = diagnosis.observe(at(Nanos::from(number) * 1000, another(number)));
        updates.extend(diagnosis.finish(START + 3_600_000 * MS));
        values
            .extend(concluded(updates).into_iter().map(|incident| incident.advice[0].value.clone().unwrap()));
    }
    assert_eq!(values, ["36704,40000", "36704,40000", "36704"]);
}

#[test]
fn whoever_asks_for_conclusions_only_gets_the_same_and_nothing_else() {
    let facts =
        || [at(0, began()), at(0, hijacked()), at(0, reset(BACKEND, Some(BACKEND_NS))), at(1500, died(110))];
    let told = |conclusions_only| {
        let mut diagnosis = Diagnosis::new(Settings { conclusions_only, ..Settings::default() });
        let mut updates: Vec<Update> = facts().into_iter().flat_map(|fact| diagnosis.observe(fact)).collect();
        updates.extend(diagnosis.advance(START + 10 * MS));
        updates.extend(diagnosis.advance(START + 10_000 * MS));
        updates
    };
    let (all, conclusions) = (told(false), told(true));
    assert!(all.len() > 1 && conclusions.len() == 1, "{all:#?} {conclusions:#?}");
    assert_eq!(all.last(), conclusions.last());
}
