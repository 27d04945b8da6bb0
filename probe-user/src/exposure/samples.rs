//! Nodes for tests: the incident's, a safe one, one of which little is known.

use std::collections::BTreeMap;

use super::check::{Check, judge};
use super::node::{Ipvs, Measured, Node, Sourced};
use crate::ipvs::{Content, parse_services};
use crate::kubernetes::list;
use crate::node::port_ranges::PortRanges;
use crate::node::sockets::text::parse_sockets;

/// A node with these ranges and nothing else known.
pub(crate) fn ranges(local: &str, reserved: Option<&str>) -> Node {
    Node {
        what: "a node as the options and files describe it".to_owned(),
        live: false,
        ephemeral: Sourced { value: local.parse().unwrap(), source: "--local-port-range".to_owned() },
        reserved: reserved
            .map(|ports| Sourced { value: ports.parse().unwrap(), source: "--reserved-ports".to_owned() }),
        node_port_range: None,
        ipvs: Ipvs::Unknown("no --ipvs".to_owned()),
        addresses: None,
        sockets: None,
        time_wait_counts: BTreeMap::new(),
        services: None,
        refused: Vec::new(),
        extra_ports: PortRanges::default(),
        kernel: None,
        conn_reuse_mode: None,
        conntrack: None,
        measured: None,
        findings: Vec::new(),
        incomplete: Vec::new(),
    }
}

/// From a listing of `ipvsadm -Ln`.
pub(crate) fn table(text: &str) -> Ipvs {
    match parse_services(text.as_bytes()).unwrap().content {
        Content::Services(value) => {
            Ipvs::Table(Sourced { value: value.into(), source: "ipvsadm.txt".to_owned() })
        }
        Content::Connections(_) => panic!("not services"),
    }
}

/// The incident's node.
pub(crate) fn seed() -> Node {
    Node {
        node_port_range: Some(Sourced { value: (20_000, 40_000), source: "--node-port-range".to_owned() }),
        ipvs: table(include_str!("../../tests/data/seed/ipvsadm.txt")),
        services: Some(
            list::parse_services(include_bytes!("../../tests/data/seed/services.txt")).unwrap().items,
        ),
        time_wait_counts: BTreeMap::from([("10.23.77.129".parse().unwrap(), 849)]),
        kernel: Some("5.10.262".to_owned()),
        ..ranges("1024 65000", Some(""))
    }
}

/// Live, every NodePort of a block in use on two families, connects measured, one row unreadable.
pub(crate) fn crowded() -> Node {
    let rows: String = (30_000..32_768)
        .map(|port| format!("TCP  192.0.2.10:{port} rr\nTCP  [2001:db8::10]:{port} rr\n"))
        .chain(["TCP  node:http rr\n".to_owned()])
        .collect();
    let sockets =
        parse_sockets(b"TIME-WAIT 0 0 192.0.2.10:40000 10.1.0.7:8080\nLISTEN 0 0 *:10250 *:*\n").sockets;
    Node {
        live: true,
        what: "this node, network namespace 4026531840 (of pid 1)".to_owned(),
        ipvs: table(&rows),
        sockets: Some(Sourced { value: sockets, source: "the running kernel".to_owned() }),
        measured: Some(Measured { connects: 500, seconds: 10.0 }),
        kernel: Some("4.18.20".to_owned()),
        conn_reuse_mode: Some(1),
        incomplete: vec![
            "the IPVS table: 1 rows could not be read, the first is 5537: \"node:http\"".to_owned(),
        ],
        ..ranges("10240 65535", Some("10250,50000-50001"))
    }
}

/// Reports with a name.
pub(crate) fn reports() -> [(&'static str, Check); 5] {
    let safe = Node { reserved: ranges("1 2", Some("20000-40000")).reserved, ..seed() };
    let without = Node {
        live: true,
        ipvs: Ipvs::NotInUse("/proc/1/net/ip_vs does not exist".to_owned()),
        ..ranges("1024 65535", Some(""))
    };
    [
        ("the incident's node", judge(&seed())),
        ("the same node with its NodePorts reserved", judge(&safe)),
        ("a crowded node, live", judge(&crowded())),
        ("ranges alone, reserved not known", judge(&ranges("12000 65001", None))),
        ("no IPVS", judge(&without)),
    ]
}
