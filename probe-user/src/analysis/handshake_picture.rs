//! The ladder and the timeline of an incident, from its packets and everything else that the inputs say about it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::model::{Arrow, ArrowKind, Ladder, Moment, PacketRef, Party, Role};
use super::picture;
use crate::diagnosis::incident::Incident;
use crate::handshakes::{Connect, PacketKind, Seen};
use crate::pods::naming;

/// Names an interface of an input, and a packet or line of it.
pub(super) type PlaceName<'a> = &'a dyn Fn(&Seen) -> String;

/// Who sends or receives a packet of the handshake.
struct Sides {
    clients: BTreeSet<SocketAddr>,
    servers: BTreeSet<SocketAddr>,
    backends: BTreeSet<SocketAddr>,
}

impl Sides {
    fn of(connect: &Connect, incident: &Incident) -> Self {
        let parse = |text: &Option<String>| -> Option<SocketAddr> { text.as_deref()?.parse().ok() };
        let (mut clients, mut servers) = (connect.clients(), connect.servers());
        clients.extend(parse(&incident.connection.local));
        servers.extend(parse(&incident.connection.remote));
        let hijack = incident.hijack.as_ref().and_then(|hijack| hijack.backend.parse().ok());
        let backends = connect.astray().iter().map(|seen| seen.destination).chain(hijack).collect();
        Self { clients, servers, backends }
    }

    fn role(&self, address: SocketAddr) -> Role {
        if self.backends.contains(&address) {
            Role::Backend
        } else if self.servers.contains(&address) {
            Role::Server
        } else if self.clients.contains(&address) {
            Role::Client
        } else {
            Role::Ipvs
        }
    }
}

/// The packets as arrows.
pub(super) fn ladder(connect: &Connect, incident: &Incident, place: PlaceName<'_>) -> Ladder {
    let sides = Sides::of(connect, incident);
    let mut arrows: Vec<Arrow> =
        connect.distinct_all().into_iter().filter_map(|seen| arrow(seen, &sides, incident, place)).collect();
    arrows.sort_by_key(|arrow| arrow.at);
    let roles: BTreeSet<Role> = arrows.iter().flat_map(|arrow| [arrow.from, arrow.to]).collect();
    Ladder { parties: roles.into_iter().map(|role| party(role, incident)).collect(), arrows }
}

fn arrow(seen: &Seen, sides: &Sides, incident: &Incident, place: PlaceName<'_>) -> Option<Arrow> {
    let collides = incident.service.is_some() || incident.hijack.is_some();
    let (mut from, mut to) = (sides.role(seen.source), sides.role(seen.destination));
    let (kind, label) = match seen.kind {
        PacketKind::Syn => (ArrowKind::Syn, format!("SYN seq {}", seen.sequence)),
        PacketKind::SynAck if to == Role::Backend => {
            from = Role::Ipvs;
            (ArrowKind::Hijacked, format!("the same SYN-ACK to {}", seen.destination))
        }
        PacketKind::SynAck => {
            // Addressed to the client, but IPVS takes it before the client's stack can.
            if collides {
                to = Role::Ipvs;
            }
            let (sequence, acknowledgement) = (seen.sequence, seen.acknowledgement);
            (ArrowKind::SynAck, format!("SYN-ACK seq {sequence} ack {acknowledgement}"))
        }
        PacketKind::Reset => {
            if from == Role::Client && collides {
                from = Role::Ipvs;
            }
            (ArrowKind::Reset, format!("RST seq {}", seen.sequence))
        }
        PacketKind::ResetAck => (ArrowKind::Reset, format!("RST, ACK seq {}", seen.sequence)),
        PacketKind::Ack => (ArrowKind::Ack, "ACK".to_owned()),
        PacketKind::Unreachable { port, .. } => {
            (from, to) = (Role::Ipvs, sides.role(seen.source));
            let what = if port { "ICMP port unreachable" } else { "ICMP unreachable" };
            (ArrowKind::Unreachable, what.to_owned())
        }
    };
    (from != to).then(|| Arrow { at: Some(seen.at), from, to, kind, label, place: place(seen) })
}

fn party(role: Role, incident: &Incident) -> Party {
    let title = match role {
        Role::Client => incident.owner.comm.clone().unwrap_or_else(|| "client".to_owned()),
        Role::Ipvs => "node, IPVS".to_owned(),
        Role::Server => incident.probe.as_ref().map_or_else(
            || "server".to_owned(),
            |probe| format!("pod {}/{}", probe.pod.namespace, probe.pod.name),
        ),
        Role::Backend => match incident.service.as_ref().and_then(|service| service.name.as_ref()) {
            Some(name) => format!("backend of {name}"),
            None => "backend".to_owned(),
        },
    };
    let address = match role {
        Role::Client => incident.connection.local.clone(),
        Role::Server => incident.connection.remote.clone(),
        Role::Ipvs => None,
        Role::Backend => incident
            .hijack
            .as_ref()
            .map(|hijack| hijack.backend.clone())
            .or_else(|| incident.resets.first().map(|reset| reset.local.clone())),
    };
    Party { role, title, address }
}

/// Which packets they are.
pub(super) fn packets(connect: &Connect) -> Vec<PacketRef> {
    let refer = |seen: &Seen| PacketRef { input: seen.input, number: seen.number, at: seen.at };
    connect.seen.iter().map(refer).collect()
}

/// Packets, and whatever else the incident has evidence of; what only names things is left out.
pub(super) fn timeline(connect: &Connect, incident: &Incident, place: PlaceName<'_>) -> Vec<Moment> {
    let from_packets: BTreeSet<String> =
        connect.seen.iter().map(|seen| source(place(seen).as_str()).to_owned()).collect();
    let packets =
        connect.seen.iter().map(|seen| Moment { at: Some(seen.at), source: place(seen), text: packet(seen) });
    // What evidence says of packets is said by the packets themselves.
    let others = incident
        .evidence
        .iter()
        .filter(|evidence| !naming::is_note(evidence) && !from_packets.contains(source(&evidence.source)));
    let others = others.map(|evidence| Moment {
        at: picture::nanos(&evidence.at),
        source: evidence.source.clone(),
        text: evidence.text.clone(),
    });
    let mut all: Vec<Moment> = packets.chain(others).collect();
    all.sort_by_key(|moment| moment.at);
    all
}

/// The input and interface without the number of the packet.
fn source(place: &str) -> &str {
    place.rsplit_once(", ").map_or(place, |(source, _)| source)
}

/// A packet in few words.
fn packet(seen: &Seen) -> String {
    let Seen { source, destination, sequence, acknowledgement, .. } = seen;
    match seen.kind {
        PacketKind::Syn => format!("{source} > {destination} SYN seq {sequence}"),
        PacketKind::SynAck => {
            format!("{source} > {destination} SYN-ACK seq {sequence} ack {acknowledgement}")
        }
        PacketKind::Reset => format!("{source} > {destination} RST seq {sequence}"),
        PacketKind::ResetAck => {
            format!("{source} > {destination} RST-ACK seq {sequence} ack {acknowledgement}")
        }
        PacketKind::Ack => format!("{source} > {destination} ACK seq {sequence} ack {acknowledgement}"),
        PacketKind::Unreachable { from, port } => {
            let what = if port { "port unreachable" } else { "destination unreachable" };
            format!("{from} says ICMP {what} about a packet {source} > {destination}")
        }
    }
}
