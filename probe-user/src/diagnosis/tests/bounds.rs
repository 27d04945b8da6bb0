//! Memory is bounded, whatever comes.

use std::sync::Arc;

use proptest::prelude::*;

use super::make::*;
use crate::diagnosis::incident::Verdict;
use crate::diagnosis::{Diagnosis, Settings, Update};
use crate::observation::{Fact, Observation, Owner, Tuple};

fn small() -> Settings {
    Settings { max_connections: 4, max_parked: 6, ..Settings::default() }
}

fn nth(n: u32) -> Fact {
    let tuple = Tuple { local: sock(LOCAL), remote: sock(&format!("10.0.0.{}:80", n % 200)) };
    Fact::ConnectBegan {
        tuple,
        netns: None,
        isn: Some(n),
        socket: Some(u64::from(n)),
        owner: None,
        service: None,
    }
}

#[test]
fn the_oldest_connection_is_concluded_early_and_counted() {
    let mut diagnosis = Diagnosis::new(small());
    for n in 0..4 {
        assert!(matches!(diagnosis.observe(at(n.into(), nth(n))).as_slice(), [Update::Began(_)]));
    }
    let updates = diagnosis.observe(at(4, nth(4)));
    assert!(matches!(updates.as_slice(), [Update::Began(_), Update::Concluded(first)]
        if first.connection.isn == Some(0)));
    assert_eq!(diagnosis.forgotten(), 1);
    assert_eq!(concluded(diagnosis.finish(START)).len(), 4);
}

#[test]
fn a_burst_from_one_port_to_one_server_is_told_apart_by_sequence_numbers_within_a_bound() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    let mut all = Vec::new();
    for n in 0..2000_u32 {
        let (tuple, netns, socket) = (Tuple { local: sock(LOCAL), remote: sock(POD) }, Some(HOST), Some(7));
        let isn = n.wrapping_mul(0x0100_0000 + 77);
        let ms = i64::from(n);
        let began = Fact::ConnectBegan { tuple, netns, isn: Some(isn), socket, owner: None, service: None };
        let reset = Fact::Reset {
            remote: sock(POD),
            local: sock(BACKEND),
            netns: Some(BACKEND_NS),
            seq: isn.wrapping_add(1),
            reason: None,
        };
        let died = Fact::Died { tuple, netns, socket, errno: 0 };
        all.extend([began, reset, died].into_iter().flat_map(|fact| diagnosis.observe(at(ms, fact))));
    }
    let early = diagnosis.forgotten();
    all.extend(diagnosis.finish(START + 10_000 * MS));
    let all = concluded(all);
    assert_eq!((all.len(), early), (2000, 2000 - 16));
    assert!(all.iter().all(|incident| incident.resets.len() == 1));
}

#[test]
fn evidence_without_a_connection_is_given_up_and_counted_by_kind() {
    let mut diagnosis = Diagnosis::new(small());
    for n in 0..8 {
        diagnosis.observe(at(n, reset(BACKEND, None)));
    }
    assert_eq!(diagnosis.unjoined().get("reset"), Some(&2), "beyond the bound");
    diagnosis.observe(at(8, hijacked()));
    diagnosis.advance(START + 8000 * MS);
    assert_eq!(diagnosis.unjoined().get("reset"), Some(&8), "{:?}", diagnosis.unjoined());
    assert_eq!(diagnosis.unjoined().get("hijacked"), Some(&1));
    assert_eq!(diagnosis.next_deadline(), None);
}

#[test]
fn a_table_that_was_replaced_is_forgotten_although_nothing_else_happens() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    let park = diagnosis.settings().park_ns;
    let old = table(&[service(LOCAL, &[BACKEND])]);
    let held = Arc::downgrade(&old);
    diagnosis.observe(at(0, Fact::Services { netns: Some(HOST), table: old }));
    assert_eq!(diagnosis.next_deadline(), None, "it is the table that is in force");
    diagnosis.observe(at(5, began()));
    let of_connection = diagnosis.next_deadline();
    diagnosis.observe(at(9, Fact::Services { netns: Some(HOST), table: table(&[]) }));
    assert_eq!(diagnosis.next_deadline(), of_connection, "the connection began before");
    assert_eq!(diagnosis.advance(of_connection.unwrap()).len(), 1);
    assert!(held.upgrade().is_none() && diagnosis.next_deadline().is_none());

    diagnosis.observe(at(1_000_000, Fact::Services { netns: Some(HOST), table: table(&[]) }));
    let due = START + 1_000_000 * MS + park;
    assert_eq!(diagnosis.next_deadline(), Some(due));
    assert!(diagnosis.advance(due).is_empty());
    assert_eq!(diagnosis.next_deadline(), None);
}

#[test]
fn one_connection_keeps_only_its_earliest_facts() {
    let mut diagnosis = Diagnosis::new(small());
    diagnosis.observe(at(0, began()));
    for n in 0..1000 {
        diagnosis.observe(at(n, reset(BACKEND, None)));
    }
    let incident = concluded(diagnosis.finish(START + 2000 * MS)).remove(0);
    assert_eq!(incident.resets.len(), 128);
    assert_eq!(diagnosis.unjoined().get("reset"), Some(&872));
    assert_eq!(incident.resets[127].at, "2022-09-15T19:09:02.660940000Z");
}

#[test]
fn exhausted_processes_are_bounded_too() {
    let mut diagnosis = Diagnosis::new(Settings::default());
    let mut told = 0;
    for pid in 0..2000 {
        let owner = Owner { pid: Some(pid), ..Owner::default() };
        let fact = Fact::ConnectFailed {
            local: None,
            remote: None,
            netns: None,
            socket: None,
            errno: 99,
            owner: Some(owner.into()),
        };
        told += concluded(diagnosis.observe(at(pid.into(), fact))).len();
    }
    assert_eq!(told, 2000 - 1024);
    assert_eq!(diagnosis.forgotten(), 976);
    diagnosis.finish(START);
    assert_eq!(diagnosis.counts().get(&Verdict::Exhaustion), Some(&2000));
}

fn anything() -> impl Strategy<Value = Observation> {
    let address = (any::<bool>(), any::<u8>(), 0..3_u16).prop_map(|(v6, host, port)| {
        sock(&if v6 { format!("[::ffff:10.0.0.{host}]:{port}") } else { format!("10.0.0.{host}:{port}") })
    });
    let time =
        prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), any::<i64>(), START..START + 1_000_000_000];
    let numbers =
        (prop::option::of(any::<u32>()), prop::option::of(any::<u64>()), any::<u32>(), any::<i32>());
    (0..11_u8, time, address.clone(), address, numbers, any::<String>()).prop_map(
        |(kind, at, local, remote, (netns, socket, seq, errno), reason)| {
            let tuple = Tuple { local, remote };
            let mut row = row(BACKEND);
            (row.client, row.virtual_address, row.state) = (remote, local, reason.clone());
            let fact = match kind {
                0..=2 => Fact::ConnectBegan { tuple, netns, isn: netns, socket, owner: None, service: None },
                3 => Fact::Reset { remote, local, netns, seq, reason: Some(reason) },
                4 => Fact::Hijacked { connection: row, netns, ack: netns },
                5 => Fact::NoBackend { tuple, netns, ack: Some(seq) },
                6 => Fact::ConnectionRow { row, netns },
                7 => Fact::Died { tuple, netns, socket, errno },
                8 => Fact::SynRetransmitted { tuple, netns, socket },
                9 => Fact::Services { netns, table: table(&[service(LOCAL, &[BACKEND])]) },
                _ => {
                    let (local, remote) = (Some(local), Some(remote));
                    let errno = if errno > 0 { 99 } else { errno };
                    Fact::ConnectFailed { local, remote, netns, socket, errno, owner: None }
                }
            };
            Observation { at, source: reason_source(), fact }
        },
    )
}

fn reason_source() -> Arc<str> {
    Arc::from("fuzz")
}

proptest! {
    #[test]
    fn nothing_panics_and_every_connection_is_concluded_exactly_once(
        steps in prop::collection::vec((anything(), prop::option::of(any::<i64>())), 0..120)
    ) {
        let mut diagnosis = Diagnosis::new(small());
        let mut updates = Vec::new();
        for (observation, time) in steps {
            updates.extend(diagnosis.observe(observation));
            let [connections, facts, parked, _] = diagnosis.state.sizes();
            prop_assert!(connections <= 4 && parked <= 6 && facts <= 6 + 4 * 128);
            updates.extend(time.into_iter().flat_map(|time| diagnosis.advance(time)));
        }
        updates.extend(diagnosis.finish(i64::MAX));
        prop_assert_eq!(diagnosis.state.sizes(), [0, 0, 0, 0]);
        prop_assert!(diagnosis.state.indexes_are_empty());
        let told = |wanted: fn(&Update) -> bool| updates.iter().filter(|update| wanted(update)).count();
        let concluded = told(|update| matches!(update, Update::Concluded(_)));
        prop_assert!(told(|update| matches!(update, Update::Began(_))) <= concluded);
        prop_assert!(told(|update| matches!(update, Update::Clear(_))) <= concluded);
        prop_assert_eq!(diagnosis.next_deadline(), None);
    }
}

#[test]
fn concluded_connections_are_remembered_for_two_minutes() {
    let unjoined_after = |ms: i64| {
        let mut diagnosis = Diagnosis::new(Settings::default());
        diagnosis.observe(at(0, began()));
        diagnosis.observe(at(1500, died(110)));
        assert_eq!(concluded(diagnosis.advance(START + 10_000 * MS)).len(), 1);
        diagnosis.advance(START + ms * MS);
        diagnosis.observe(at(ms, retransmitted()));
        diagnosis.finish(START + (ms + 60_000) * MS);
        diagnosis.unjoined().values().sum::<u64>()
    };
    assert_eq!([unjoined_after(100_000), unjoined_after(140_000)], [0, 1]);
}
