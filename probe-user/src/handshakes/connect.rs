//! One handshake with all that any input shows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::flow::Flow;
use super::{PacketKind, Seen, relative};
use crate::observation::{Nanos, Tuple};

/// A handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// ISN + 1.
    pub number: u32,
    /// Its packets, the earliest first, times on one clock.
    pub seen: Vec<Seen>,
    /// Packets beyond those that were kept.
    pub more: u64,
}

impl Connect {
    /// What the inputs have of it, each with its clock set right by `ahead`.
    pub(super) fn new(flows: Vec<Flow>, ahead: &BTreeMap<u32, Nanos>) -> Self {
        let number = flows.first().map_or(0, |flow| flow.number);
        let more = flows.iter().map(|flow| flow.more).sum();
        let shifted = |seen: Seen| {
            let ahead = ahead.get(&seen.input).copied().unwrap_or_default();
            Seen { at: seen.at.saturating_sub(ahead), ..seen }
        };
        let mut seen: Vec<Seen> = flows.into_iter().flat_map(|flow| flow.seen).map(shifted).collect();
        seen.sort_by_key(|seen| (seen.at, seen.input, seen.number));
        Self { number, seen, more }
    }

    pub(super) fn order(&self) -> (Nanos, u32, u64) {
        self.seen.first().map_or((0, 0, 0), |seen| (seen.at, seen.input, seen.number))
    }

    /// Whether its numbers are known only from the beginning of the connection on.
    pub fn is_relative(&self) -> bool {
        self.seen.iter().any(|seen| seen.relative)
    }

    /// With the numbers that the listing shows.
    #[must_use]
    pub fn as_listed(&self) -> Self {
        Self { seen: self.seen.iter().copied().map(relative::as_listed).collect(), ..self.clone() }
    }

    /// Packets of one kind.
    pub fn of(&self, kind: PacketKind) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(move |seen| seen.kind == kind)
    }

    /// Addresses of the connect: those of its earliest SYN.
    pub fn tuple(&self) -> Option<Tuple> {
        self.of(PacketKind::Syn).next().map(|syn| Tuple { local: syn.source, remote: syn.destination })
    }

    /// Every address that its SYNs come from: the client's own, and what masquerading made of it.
    pub fn clients(&self) -> BTreeSet<SocketAddr> {
        self.of(PacketKind::Syn).map(|syn| syn.source).collect()
    }

    /// Every address that its SYNs go to: the server's, and what address translation made of it.
    pub fn servers(&self) -> BTreeSet<SocketAddr> {
        self.of(PacketKind::Syn).map(|syn| syn.destination).collect()
    }

    /// SYN-ACKs on their way to somebody who sent no SYN, copies left out: what IPVS makes of a reply that it takes for
    /// a new connection.
    pub fn astray(&self) -> Vec<&Seen> {
        let clients = self.clients();
        self.distinct(|seen| seen.kind == PacketKind::SynAck && !clients.contains(&seen.destination))
    }

    /// Packets that `wanted` takes, each packet once per pair of addresses.
    pub(super) fn distinct(&self, wanted: impl Fn(&Seen) -> bool) -> Vec<&Seen> {
        let mut found: Vec<&Seen> = Vec::new();
        for seen in self.seen.iter().filter(|seen| wanted(seen)) {
            if !found.iter().any(|known| seen.is_copy_of(known)) {
                found.push(seen);
            }
        }
        found
    }

    /// Its packets without copies of them on other devices or in other inputs.
    pub fn distinct_all(&self) -> Vec<&Seen> {
        self.distinct(|_| true)
    }

    /// Whether a SYN-ACK to somebody else is the client's own before masquerading was undone, in an input that lacks the
    /// SYN. Whoever is further from the one that resets waits longer for the RST: the server's side, where an address was
    /// masqueraded; the client's name, where a backend was handed the reply. Clocks do not matter for that.
    pub(super) fn is_masqueraded(&self, astray: &Seen, clients: &BTreeSet<SocketAddr>) -> bool {
        let wait = |reply: &Seen| {
            let answers = self.of(PacketKind::Reset).filter(|rst| {
                (rst.input, rst.place, rst.source) == (reply.input, reply.place, reply.destination)
                    && rst.at >= reply.at
            });
            answers.map(|rst| rst.at.saturating_sub(reply.at)).min()
        };
        let own = self
            .of(PacketKind::SynAck)
            .filter(|reply| reply.input != astray.input && clients.contains(&reply.destination));
        let (own, other) = (own.filter_map(wait).min(), wait(astray));
        own.zip(other).is_some_and(|(own, other)| other > own)
    }

    /// Whether this is the RST with ACK of a server that goes on from its own SYN-ACK. A closed port has sent none, and
    /// its RST counts from 0 (RFC 9293, section 3.10.7.1).
    pub(super) fn is_after_reply(&self, rst: &Seen) -> bool {
        rst.kind == PacketKind::ResetAck
            && self.of(PacketKind::SynAck).any(|reply| {
                reply.source == rst.source
                    && reply.at <= rst.at
                    && reply.sequence.wrapping_add(1) == rst.sequence
                    && reply.acknowledgement == rst.acknowledgement
            })
    }

    /// Time of its last packet.
    pub fn last(&self) -> Nanos {
        self.seen.last().map_or(0, |seen| seen.at)
    }

    /// Whether the ACK that completes it was seen.
    pub fn is_completed(&self) -> bool {
        self.of(PacketKind::Ack).next().is_some()
    }
}
