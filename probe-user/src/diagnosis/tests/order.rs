//! The order of arrival decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::make::*;
use crate::diagnosis::incident::{Incident, Outcome};
use crate::diagnosis::{Diagnosis, Settings};
use crate::ipvs::table::IpvsConnection;
use crate::kubelet_log::ProbeFailure;
use crate::observation::{Fact, Observation, Tuple};

/// What happens to the `n`-th of many connects. Local ports, servers and sockets repeat, as they do on a node.
fn story(n: u32, kind: u8, start_ms: i64) -> Vec<Observation> {
    let port = 30_000 + u16::try_from(n % 7).unwrap();
    let local = sock(&format!("10.23.77.129:{port}"));
    let remote = sock(&format!("10.23.77.{}:80", 130 + n % 3));
    let tuple = Tuple { local, remote };
    let socket = Some(u64::from(n % 5));
    let isn = n.wrapping_mul(2_654_435_761);
    let seq = isn.wrapping_add(1);
    let netns = Some(HOST);
    let start = start_ms + i64::from(n) * 20_000;
    let connection =
        IpvsConnection { client: remote, virtual_address: local, ..row(&format!("10.0.0.1:{}", 1000 + n)) };
    let began = Fact::ConnectBegan { tuple, netns, isn: Some(isn), socket, owner: None, service: None };
    let mut facts = vec![at(start, began)];
    match kind % 7 {
        0 => {
            let reset = Fact::Reset { remote, local: connection.backend, netns: Some(1), seq, reason: None };
            facts.push(at(start, Fact::Hijacked { connection, netns, ack: Some(seq) }));
            facts.push(at(start, reset.clone()));
            facts.push(at(start + 1000, Fact::SynRetransmitted { tuple, netns, socket }));
            facts.push(at(start + 1000, reset));
            facts.push(at(start + 2000, Fact::Died { tuple, netns, socket, errno: 0 }));
        }
        1 => facts.push(at(start, Fact::NoBackend { tuple, netns, ack: Some(seq) })),
        2 => facts.push(at(start + 1, Fact::Established { tuple, netns, socket })),
        3 => facts.push(at(start + 1, Fact::Died { tuple, netns, socket, errno: 111 })),
        4 => {
            facts.push(at(start, Fact::ConnectionRow { row: connection, netns: None }));
            facts.push(at(start + 900, Fact::Died { tuple, netns, socket, errno: 110 }));
        }
        5 => {
            facts.push(at(start + 2000, Fact::Died { tuple, netns, socket, errno: 0 }));
            let targets = vec![remote];
            facts.push(at(start + 2003, Fact::ProbeFailed { failure: probe_failure(start + 2003), targets }));
        }
        _ => {
            facts.push(at(start + 10, Fact::Died { tuple, netns, socket, errno: 0 }));
            let reset = Fact::Reset { remote, local, netns, seq, reason: None };
            facts.push(at(start + 20, reset));
        }
    }
    facts
}

fn by_id(mut incidents: Vec<Incident>) -> Vec<Incident> {
    incidents.sort_by(|a, b| a.id.cmp(&b.id));
    incidents
}

fn stories() -> impl Strategy<Value = Vec<Vec<Observation>>> {
    prop::collection::vec((any::<u8>(), 0..500_i64), 1..30).prop_map(|kinds| {
        let numbered = kinds.into_iter().zip(0_u32..);
        numbered.map(|((kind, start), n)| story(n, kind, start)).collect()
    })
}

fn shuffled() -> impl Strategy<Value = (Vec<Observation>, Vec<Observation>)> {
    stories().prop_flat_map(|stories| {
        let facts = stories.concat();
        (Just(facts.clone()), Just(facts).prop_shuffle())
    })
}

/// Few values in every field, so that almost every fact fits several connects in some way.
fn collision_of_everything() -> impl Strategy<Value = Observation> {
    let address = prop::sample::select(vec!["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:30000", "[::1]:30001"]);
    let address = address.prop_map(sock);
    let tuple = (address.clone(), address.clone()).prop_map(|(local, remote)| Tuple { local, remote });
    let netns = prop::option::of(1..3_u32);
    let socket = prop::option::of(1..4_u64);
    let seq = prop::sample::select(vec![0, 1, 2, 900, u32::MAX, u32::MAX - 1]);
    let source = prop::sample::select(vec!["a", "b"]);
    (0..13_u8, 0..6_i64, source, tuple, netns, socket, prop::option::of(seq.clone()), seq, address).prop_map(
        |(kind, seconds, source, tuple, netns, socket, isn, seq, backend)| {
            let connection =
                IpvsConnection { client: tuple.remote, virtual_address: tuple.local, ..row("10.0.0.9:9") };
            let connection = IpvsConnection { backend, ..connection };
            let fact = match kind {
                0..=3 => Fact::ConnectBegan { tuple, netns, isn, socket, owner: None, service: None },
                4 => Fact::Reset { remote: tuple.remote, local: tuple.local, netns, seq, reason: None },
                5 => Fact::Hijacked { connection, netns, ack: isn },
                6 => Fact::NoBackend { tuple, netns, ack: isn },
                7 => Fact::ConnectionRow { row: connection, netns },
                8 => Fact::SynRetransmitted { tuple, netns, socket },
                9 => Fact::Established { tuple, netns, socket },
                11..=12 => {
                    let source = if kind == 11 { None } else { Some(tuple.local) };
                    let failure = ProbeFailure { source, ..(*probe_failure(seconds * 1000)).clone() };
                    Fact::ProbeFailed { failure: Arc::new(failure), targets: vec![tuple.remote, backend] }
                }
                _ => Fact::Died { tuple, netns, socket, errno: if seq == 0 { 0 } else { 110 } },
            };
            Observation { source: Arc::from(source), ..at(seconds * 1000, fact) }
        },
    )
}

fn both_orders() -> impl Strategy<Value = (Vec<Observation>, Vec<Observation>)> {
    prop::collection::vec(collision_of_everything(), 1..40)
        .prop_flat_map(|facts| (Just(facts.clone()), Just(facts).prop_shuffle()))
}

/// All that diagnosis says: incidents, and what it counts. Between the batches time passes, so that some of the
/// connections are concluded.
fn everything(batches: &[&[Observation]]) -> (Vec<Incident>, BTreeMap<&'static str, u64>) {
    let mut diagnosis = Diagnosis::new(Settings::default());
    let mut updates = Vec::new();
    for batch in batches {
        updates.extend(diagnosis.advance(START + 4000 * MS));
        updates.extend(batch.iter().flat_map(|observation| diagnosis.observe(observation.clone())));
    }
    updates.extend(diagnosis.finish(START + 3_600_000 * MS));
    let lines = [
        ("elsewhere", diagnosis.probe_failures_elsewhere()),
        ("ambiguous", diagnosis.probe_failures_ambiguous()),
    ];
    let counts = diagnosis.unjoined().iter().map(|(kind, count)| (*kind, *count)).chain(lines);
    (concluded(updates), counts.collect())
}

proptest! {
    #[test]
    fn any_order_gives_the_same_incidents((in_order, shuffled) in shuffled()) {
        prop_assert_eq!(by_id(concluded(run(in_order))), by_id(concluded(run(shuffled))));
    }

    #[test]
    fn any_order_gives_the_same_incidents_even_where_everything_is_ambiguous(
        (in_order, shuffled) in both_orders()
    ) {
        prop_assert_eq!(everything(&[&in_order]), everything(&[&shuffled]));
    }

    #[test]
    fn any_order_of_what_comes_between_two_moments_gives_the_same_incidents(
        ((first, first_shuffled), (then, then_shuffled)) in (both_orders(), both_orders())
    ) {
        prop_assert_eq!(everything(&[&first, &then]), everything(&[&first_shuffled, &then_shuffled]));
    }

    #[test]
    fn every_connection_gets_its_own_evidence_and_no_other(
        (stories, shuffled) in stories().prop_flat_map(|stories| {
            let facts = stories.concat();
            (Just(stories), Just(facts).prop_shuffle())
        })
    ) {
        let alone: Vec<Incident> =
            stories.iter().flat_map(|story| concluded(run(story.clone()))).collect();
        prop_assert_eq!(alone.len(), stories.len());
        prop_assert_eq!(by_id(alone), by_id(concluded(run(shuffled))));
    }
}

proptest! {
    #[test]
    fn a_live_trace_and_a_replay_of_it_give_the_same_incidents(stories in stories()) {
        let mut facts = stories.concat();
        facts.sort_by_key(|observation| observation.at);
        let mut diagnosis = Diagnosis::new(Settings::default());
        let mut updates = Vec::new();
        for observation in facts.clone() {
            // A live source is woken at every deadline before the next fact comes.
            while let Some(deadline) = diagnosis.next_deadline().filter(|deadline| *deadline <= observation.at) {
                updates.extend(diagnosis.advance(deadline));
            }
            updates.extend(diagnosis.observe(observation));
        }
        updates.extend(diagnosis.finish(START + 3_600_000 * MS));
        prop_assert_eq!(by_id(concluded(updates)), by_id(concluded(run(facts))));
    }
}

#[test]
fn a_fact_may_come_before_its_connect_although_one_with_its_addresses_was_concluded() {
    let mut again = began();
    let Fact::ConnectBegan { isn, socket, .. } = &mut again else { panic!() };
    (*isn, *socket) = (Some(7), None);
    let died = Fact::Died { tuple: tuple(), netns: Some(HOST), socket: None, errno: 110 };
    let ended = |second: [Observation; 2]| {
        let mut diagnosis = Diagnosis::new(Settings::default());
        diagnosis.observe(at(0, began()));
        diagnosis.observe(at(1500, died.clone()));
        assert_eq!(concluded(diagnosis.advance(START + 10_000 * MS)).len(), 1);
        for fact in second {
            diagnosis.observe(fact);
        }
        concluded(diagnosis.finish(START + 60_000 * MS)).remove(0).duration_ms
    };
    let (connect, end) = (at(11_000, again), at(12_000, died.clone()));
    assert_eq!(ended([connect.clone(), end.clone()]), Some(1000));
    assert_eq!(ended([end, connect]), Some(1000));
}

#[test]
fn a_hundred_connects_at_once_to_one_server_keep_their_evidence_apart() {
    let mut facts = Vec::new();
    for n in 0..100_u32 {
        let local = sock(&format!("10.23.77.129:{}", 30_000 + n));
        let tuple = Tuple { local, remote: sock(POD) };
        let isn = n * 70_000;
        let began = Fact::ConnectBegan {
            tuple,
            netns: Some(HOST),
            isn: Some(isn),
            socket: Some(u64::from(n)),
            owner: None,
            service: None,
        };
        let backend = format!("10.23.77.139:{}", 1000 + n);
        facts.push(at(0, began));
        facts.push(at(
            0,
            Fact::Reset {
                remote: sock(POD),
                local: sock(&backend),
                netns: Some(1),
                seq: isn + 1,
                reason: None,
            },
        ));
    }
    facts.reverse();
    let incidents = concluded(run(facts));
    assert_eq!(incidents.len(), 100);
    for incident in incidents {
        assert_eq!(incident.outcome, Outcome::Hijacked);
        let n: u32 = incident.connection.local.unwrap().rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(incident.resets.len(), 1);
        assert_eq!(incident.resets[0].local, format!("10.23.77.139:{}", n - 29_000));
    }
}
