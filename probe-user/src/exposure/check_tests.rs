use std::collections::BTreeMap;

use proptest::prelude::*;

use super::check::{Severity, Status, judge};
use super::node::{Measured, Node, Sourced};
use super::samples::{crowded, ranges, seed, table};
use crate::node::port_ranges::PortRanges;
use crate::node::sockets::text::parse_sockets;

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= b.abs() * 1e-3
}

#[test]
fn measured_connects_are_spread_over_the_addresses_like_their_sockets() {
    let sockets = b"TIME-WAIT 0 0 192.0.2.10:40000 10.1.0.7:8080\nTIME-WAIT 0 0 192.0.2.11:40002 10.1.0.7:8080\n\
                    TIME-WAIT 0 0 192.0.2.10:40004 10.96.0.1:443\nTIME-WAIT 0 0 192.0.2.10:40006 10.1.0.8:8080\n";
    let node = Node {
        live: true,
        ipvs: table("TCP  192.0.2.10:31000 rr\nTCP  10.96.0.1:443 rr\nTCP  192.0.2.11:80 rr\n"),
        sockets: Some(Sourced { value: parse_sockets(sockets).sockets, source: String::new() }),
        measured: Some(Measured { connects: 400, seconds: 10.0 }),
        ..ranges("1024 65535", Some(""))
    };
    let check = judge(&node);
    // One of four goes to a service; of the other three, two start from the address with the exposed port.
    assert!(near(check.connects_per_second.unwrap(), 30.0));
    assert!(near(check.expected_failures_per_hour.unwrap(), 20.0 * 3600.0 / 32_256.0), "{check:?}");
    let between = check.expected_failures_range.unwrap();
    assert!(between.low > 0.0 && between.high > check.expected_failures_per_hour.unwrap());
}

#[test]
fn without_sockets_a_measured_rate_may_come_from_anywhere() {
    let node = Node {
        ipvs: table("TCP  192.0.2.10:31000 rr\n"),
        measured: Some(Measured { connects: 100, seconds: 10.0 }),
        ..ranges("1024 65535", Some(""))
    };
    let between = judge(&node).expected_failures_range.unwrap();
    assert!(between.low.abs() < 1e-12 && between.high > 0.0);
}

#[test]
fn a_listener_on_a_service_port_keeps_connect_away_from_it() {
    let listening = Node {
        ipvs: table("TCP  192.0.2.10:31000 rr\n"),
        sockets: Some(Sourced {
            value: parse_sockets(b"LISTEN 0 0 *:31000 *:*\n").sockets,
            source: String::new(),
        }),
        ..ranges("1024 65535", Some(""))
    };
    let check = judge(&listening);
    assert_eq!((check.exposed_count, check.reachable_count), (Some(1), Some(0)), "kube-proxy before 1.24");
    assert!(check.chance_per_connect.unwrap().abs() < 1e-12);
}

#[test]
fn a_service_for_all_ports_exposes_the_whole_range() {
    let node =
        Node { ipvs: table("TCP  192.0.2.10:0 rr persistent 300\n"), ..ranges("32768 60999", Some("")) };
    let check = judge(&node);
    assert_eq!((check.status, check.exposed_count), (Status::Fail, Some(28_232)));
    assert!(near(check.chance_per_connect.unwrap(), 1.0));
}

#[test]
fn a_block_of_services_fails_several_connects_in_a_row() {
    let check = judge(&crowded());
    let notes: Vec<&str> = check.findings.iter().map(|finding| finding.text.as_str()).collect();
    let notes = notes.join("\n");
    assert!(
        notes.contains("2768 exposed ports lie side by side: about 1384 connects"),
        "global hint: {notes}"
    );
    assert!(notes.contains("one position for the whole machine"));
    assert_eq!(check.port_search.as_deref(), Some("global"));
}

#[test]
fn a_port_range_that_is_known_to_differ_is_not_assumed_to_be_the_default() {
    let node = Node {
        ipvs: table("TCP  192.0.2.10:31000 rr\nTCP  192.0.2.10:28000 rr\n"),
        ..ranges("1024 65535", Some("28000,31000"))
    };
    let check = judge(&node);
    assert_eq!((check.status, check.node_port_range, check.overlap_count), (Status::Pass, None, None));
    let default = Node { ipvs: table("TCP  192.0.2.10:31000 rr\n"), ..ranges("1024 65535", Some("31000")) };
    let check = judge(&default);
    assert_eq!((check.status, check.exposed_count), (Status::Fail, Some(0)), "the next Service gets another");
    assert!(check.findings.iter().any(|finding| finding.severity == Severity::Error));
}

#[test]
fn counts_alone_give_a_rate() {
    let node = Node { time_wait_counts: BTreeMap::from([("192.0.2.10".parse().unwrap(), 600)]), ..seed() };
    assert!(near(judge(&node).connects_per_second.unwrap(), 10.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// What the advice says to reserve makes the node pass, and keeps what was reserved.
    #[test]
    fn a_node_passes_once_the_advice_is_followed(
        first in 1024_u16..40_000,
        size in 2_u16..20_000,
        reserved in proptest::collection::vec((1_u16..60_000, 0_u16..300), 0..4),
        services in proptest::collection::vec(1_u16..65_535, 0..20),
        extra in proptest::option::of(1_u16..65_535),
        given in any::<bool>(),
    ) {
        let reserved = PortRanges::from_ranges(reserved.into_iter().map(|(first, size)| (first, first + size)));
        let rows: String = services.iter().map(|port| format!("TCP  192.0.2.10:{port} rr\n")).chain(["TCP  192.0.2.10:80 rr\n".to_owned()]).collect();
        let mut node = Node {
            live: true,
            addresses: Some([("192.0.2.10".parse().unwrap(), crate::node::addresses::Interface::new("eth0", false))].into_iter().collect()),
            ipvs: table(&rows),
            node_port_range: given.then(|| Sourced { value: (20_000, 20_500), source: String::new() }),
            extra_ports: extra.into_iter().collect(),
            ..ranges(&format!("{first} {}", first.saturating_add(size)), Some(&reserved.to_string()))
        };
        let check = judge(&node);
        let unreserved = |node: &Node| services.iter().any(|port| node.candidates().contains(*port));
        if unreserved(&node) {
            prop_assert_eq!(check.status, Status::Fail);
        }
        if check.status == Status::Fail {
            let value: PortRanges = check.advice[0].value.as_deref().unwrap().parse().unwrap();
            prop_assert!(reserved.difference(&value).is_empty(), "keeps what is reserved");
            prop_assert_eq!(check.advice[0].value.clone(), Some(value.to_string()));
            node.reserved = Some(Sourced { value, source: String::new() });
            let after = judge(&node);
            prop_assert_eq!(after.status, Status::Pass, "{:?}", after);
            prop_assert!(!unreserved(&node));
        }
    }
}
