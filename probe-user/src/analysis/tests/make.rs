//! Makes inputs of packets out of short lines.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::analysis::material::{FromInput, Material};
use crate::analysis::model::Analysis;
use crate::analysis::{PacketInput, Packets, conclude};
use crate::capture::{Decoded, Flags, Segment, Unreachable};
use crate::handshakes::{Sight, Tracker, join};
use crate::ipvs::{Content, parse_services};
use crate::observation::Nanos;

/// 2022-09-15 19:09:02.533940 UTC
pub(super) const START: Nanos = 1_663_268_942_533_940_000;
pub(super) const MS: Nanos = 1_000_000;

/// One input: its name (`relative` counts sequence numbers from 0), how far its clock is ahead in milliseconds, and its packets as
/// `milliseconds interface source > destination FLAGS sequence acknowledgement TSval`.
pub(super) struct Input<'a>(pub(super) &'a str, pub(super) Nanos, pub(super) &'a str);

pub(super) fn table(text: &str) -> FromInput<(crate::ipvs::table::ServiceTable, Option<String>)> {
    let Content::Services(table) = parse_services(text.as_bytes()).unwrap().content else { panic!("{text}") };
    FromInput { input: Arc::from("ipvsadm.txt"), at: START, value: (table, None) }
}

/// The table of the node: one NodePort with a backend, one ClusterIP.
pub(super) const TABLE: &str = "\
TCP  10.23.77.129:36704 rr
  -> 10.23.77.139:8443            Masq    1      0          0
TCP  10.23.254.52:443 rr
  -> 10.23.77.139:8443            Masq    1      0          0
";

pub(super) fn with_table() -> Material {
    Material { tables: vec![table(TABLE)], ..Material::default() }
}

pub(super) fn analyse(material: &Material, inputs: &[Input<'_>]) -> Analysis {
    let coverage = material.coverage();
    let is_service = |tuple: crate::observation::Tuple| coverage.is_service(tuple.local);
    let mut trackers = Vec::new();
    for (number, Input(name, ahead, text)) in (0..).zip(inputs) {
        let mut tracker = Tracker::new(number, &is_service);
        for (line, text) in (1..).zip(text.lines().filter(|line| !line.trim().is_empty())) {
            let (ms, place, packet) = packet(text);
            let sight = Sight { at: START + (ms + ahead) * MS, place, number: line };
            if *name == "relative" {
                tracker.listed_relative(sight, &packet);
            } else {
                tracker.listed(sight, &packet);
            }
        }
        trackers.push(tracker);
    }
    let (joined, counts) = join(trackers);
    let inputs = inputs.iter().zip(counts).map(|(Input(name, ..), counts)| PacketInput {
        name: Arc::from(*name),
        interfaces: ["eth0", "veth1", "veth2"].map(|name| Some(name.to_owned())).to_vec(),
        unit: "packet",
        counts,
    });
    conclude(material, &Packets { inputs: inputs.collect(), joined })
}

pub(super) fn packet(text: &str) -> (Nanos, u32, Decoded) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [ms, place, source, ">", destination, flags, numbers @ ..] = words.as_slice() else {
        panic!("{text}")
    };
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let number = |n: usize| numbers.get(n).map_or(0, |text| text.parse().unwrap());
    let (source, destination) = (address(source), address(destination));
    let (flags, payload) = flags.split_once('+').unwrap_or((flags, "0"));
    let flags = match flags {
        "SYN" => Flags::SYN,
        "SYN-ACK" => Flags::SYN | Flags::ACK,
        "RST" => Flags::RST,
        "RST-ACK" => Flags::RST | Flags::ACK,
        "ACK" => Flags::ACK,
        "ICMP" => {
            let icmp = Unreachable {
                from: destination.ip(),
                to: source.ip(),
                code: 3,
                source,
                destination,
                sequence: number(0),
            };
            return (ms.parse().unwrap(), place.parse().unwrap(), Decoded::Unreachable(icmp));
        }
        other => panic!("{other}"),
    };
    let segment = Segment {
        source,
        destination,
        sequence: number(0),
        acknowledgement: number(1),
        flags: Flags(flags),
        window: None,
        payload: Some(payload.parse().unwrap()),
        ip_id: None,
        timestamp: numbers.get(2).map(|text| text.parse().unwrap()),
        depth: 0,
    };
    (ms.parse().unwrap(), place.parse().unwrap(), Decoded::Tcp(segment))
}
