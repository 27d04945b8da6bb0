//! Follows the handshakes of one input. Memory is bounded by the handshakes that are open, not by the input's length.

mod conclude;

use std::collections::{BTreeMap, VecDeque};

use foldhash::{HashMap, HashMapExt};

use super::flow::Flow;
use super::ports::Ports;
use super::{PacketKind, Seen, Sight, relative};
use crate::capture::{Decoded, Frame, Undecoded, decode, glance};
use crate::observation::{Nanos, Tuple};

/// Handshakes that are open at one time; beyond it the oldest is given up, and counted.
const MAX_OPEN: usize = 131_072;
/// Packets of all handshakes that are kept, in all inputs together.
pub const MAX_KEPT_PACKETS: usize = 1 << 20;
/// A RST follows its SYN-ACK within this: at the beginning of an input it may be about one in the input before.
const HEAD_NS: Nanos = 100_000_000;
/// Handshakes of which an input has only such a RST.
const MAX_HEADLESS: usize = 1024;
/// What a tracker counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets looked at.
    pub packets: u64,
    /// Connects whose SYN was seen.
    pub connects: u64,
    /// Handshakes that were completed.
    pub completed: u64,
    /// Frames that could not be read, by reason.
    pub undecoded: BTreeMap<Undecoded, u64>,
    /// Handshakes that were given up because too many were open, or not kept because too many were worth a look.
    pub forgotten: u64,
    /// Time of the earliest and of the latest packet.
    pub span: Option<(Nanos, Nanos)>,
}

/// Follows handshakes. Packets come in the order of the input, about in the order of time.
pub struct Tracker<'a> {
    input: u32,
    /// Whether a connect from here is to be kept even if nothing is wrong with it: its own address is a service.
    is_service: &'a (dyn Fn(Tuple) -> bool + Sync),
    flows: HashMap<u32, Flow>,
    tuples: HashMap<Tuple, u32>,
    /// Numbers of handshakes by what is acknowledged, where the SYN carried data.
    beyond: HashMap<u32, u32>,
    /// Numbers in the order in which their handshakes began, with that time.
    order: VecDeque<(Nanos, u32)>,
    pending: Ports,
    kept: Vec<Flow>,
    /// Closed ports and aborts: not to be in the way of what may be a collision.
    refused: Vec<Flow>,
    uneventful: VecDeque<Flow>,
    headless: usize,
    /// Packets that may still be kept.
    room: usize,
    counts: Counts,
    last: Nanos,
    earliest: Nanos,
    latest: Nanos,
}

impl<'a> Tracker<'a> {
    /// For the input with this number. `is_service` tells of which connects to keep everything.
    pub fn new(input: u32, is_service: &'a (dyn Fn(Tuple) -> bool + Sync)) -> Self {
        Self {
            input,
            is_service,
            flows: HashMap::new(),
            tuples: HashMap::new(),
            beyond: HashMap::new(),
            order: VecDeque::new(),
            pending: Ports::default(),
            kept: Vec::new(),
            refused: Vec::new(),
            uneventful: VecDeque::new(),
            headless: 0,
            room: MAX_KEPT_PACKETS,
            counts: Counts::default(),
            last: 0,
            earliest: Nanos::MAX,
            latest: Nanos::MIN,
        }
    }

    /// With so much left of [`MAX_KEPT_PACKETS`].
    #[must_use]
    pub fn with_room(self, packets: usize) -> Self {
        Self { room: packets, ..self }
    }

    /// How much of its room is left.
    pub const fn room(&self) -> usize {
        self.room
    }

    /// Takes a frame of a capture.
    pub fn frame(&mut self, frame: &Frame<'_>) {
        self.counts.packets += 1;
        let at = frame.at.unwrap_or(self.last);
        self.note_time(at);
        // Nearly all packets of a capture are of connections that were made long ago.
        let pending = &self.pending;
        if glance(frame.link, frame.bytes).is_some_and(|seen| !seen.opens && !pending.has(seen.source_port)) {
            return;
        }
        match decode(frame.link, frame.bytes) {
            Ok(packet) => {
                let sight = Sight { at, place: frame.interface, number: self.counts.packets };
                self.packet(sight, &packet);
            }
            Err(reason) => *self.counts.undecoded.entry(reason).or_default() += 1,
        }
    }

    /// Takes a packet of a listing.
    pub fn listed(&mut self, sight: Sight, packet: &Decoded) {
        self.counts.packets += 1;
        self.note_time(sight.at);
        self.packet(sight, packet);
    }

    /// Takes a packet of a listing whose sequence numbers are counted from the beginning of each connection.
    pub fn listed_relative(&mut self, sight: Sight, packet: &Decoded) {
        self.counts.packets += 1;
        self.note_time(sight.at);
        self.seen(Seen::new(self.input, sight, packet).map(relative::told_apart));
    }

    #[inline]
    fn note_time(&mut self, at: Nanos) {
        self.last = at;
        self.earliest = self.earliest.min(at);
        self.latest = self.latest.max(at);
    }

    fn packet(&mut self, sight: Sight, packet: &Decoded) {
        self.seen(Seen::new(self.input, sight, packet));
    }

    fn seen(&mut self, seen: Option<Seen>) {
        let Some(seen) = seen else { return };
        match seen.kind {
            PacketKind::Syn => self.syn(seen),
            PacketKind::SynAck => self.syn_ack(seen),
            PacketKind::Reset => self.reset(seen),
            PacketKind::ResetAck => {
                // A closed port acknowledges the SYN; a program that aborts goes on where it was.
                let number = self.number_of(seen.acknowledgement);
                let refused = self.flows.contains_key(&number).then_some(number);
                let refused = refused.or_else(|| self.with_data(&seen));
                self.add(refused.unwrap_or_else(|| self.number_of(seen.sequence)), seen);
            }
            PacketKind::Ack => self.ack(seen),
            PacketKind::Unreachable { .. } => self.unreachable(seen),
        }
        self.expire();
    }

    fn syn(&mut self, seen: Seen) {
        let number = seen.sequence.wrapping_add(1);
        match self.flows.get(&number) {
            Some(flow) if flow.can_hold(&seen) => {
                self.tuples.insert(tuple_of_syn(&seen), number);
                self.add(number, seen);
            }
            Some(_) => {
                self.conclude(number);
                self.open(number, seen);
            }
            None => self.open(number, seen),
        }
    }

    fn open(&mut self, number: u32, seen: Seen) {
        let tuple = match seen.kind {
            PacketKind::SynAck => Tuple { local: seen.destination, remote: seen.source },
            _ => tuple_of_syn(&seen),
        };
        // The port is used again: what went before is over.
        if let Some(before) = self.tuples.insert(tuple, number)
            && before != number
        {
            self.conclude(before);
            self.tuples.insert(tuple, number);
        }
        if seen.kind == PacketKind::Syn {
            self.counts.connects += 1;
        }
        self.order.push_back((seen.at, number));
        self.flows.insert(number, Flow::new(number, seen));
        self.expect(number, tuple.local.port());
    }

    /// From now on packets from this port are looked at.
    fn expect(&mut self, number: u32, port: u16) {
        if let Some(flow) = self.flows.get_mut(&number)
            && !flow.ports.contains(&port)
        {
            flow.ports.push(port);
            self.pending.add(port);
        }
    }

    fn syn_ack(&mut self, seen: Seen) {
        let number = self.number_of(seen.acknowledgement);
        if self.flows.contains_key(&number) {
            self.add(number, seen);
        } else if let Some(number) = self.with_data(&seen) {
            self.beyond.insert(seen.acknowledgement, number);
            if let Some(flow) = self.flows.get_mut(&number) {
                flow.beyond = Some(seen.acknowledgement);
            }
            self.add(number, seen);
        } else {
            self.open(seen.acknowledgement, seen);
        }
    }

    /// The handshake that a number of a packet belongs to, if it belongs to any.
    fn number_of(&self, number: u32) -> u32 {
        self.beyond.get(&number).copied().unwrap_or(number)
    }

    /// The handshake with the addresses of this SYN-ACK, if data in its SYN explains what is acknowledged.
    fn with_data(&self, reply: &Seen) -> Option<u32> {
        let number = *self.tuples.get(&Tuple { local: reply.destination, remote: reply.source })?;
        let flow = self.flows.get(&number)?;
        let fits = (1..=super::MAX_SYN_DATA).contains(&reply.acknowledgement.wrapping_sub(number));
        (fits && flow.beyond.is_none()).then_some(number)
    }

    fn add(&mut self, number: u32, seen: Seen) {
        if let Some(flow) = self.flows.get_mut(&number) {
            flow.push(seen);
            match seen.kind {
                PacketKind::Syn => self.expect(number, seen.source.port()),
                PacketKind::SynAck => self.expect(number, seen.destination.port()),
                _ => {}
            }
        }
    }

    /// The SYN-ACK that it answers may be in another input, at whose end this one begins.
    fn reset(&mut self, seen: Seen) {
        let number = self.number_of(seen.sequence);
        let begin = self.earliest.min(seen.at);
        if !self.flows.contains_key(&number)
            && seen.at.saturating_sub(begin) <= HEAD_NS
            && self.headless < MAX_HEADLESS
        {
            self.headless += 1;
            self.order.push_back((seen.at, number));
            self.flows.insert(number, Flow::new(number, seen));
            return;
        }
        self.add(number, seen);
    }

    fn ack(&mut self, seen: Seen) {
        let number = self.number_of(seen.sequence);
        let Some(flow) = self.flows.get_mut(&number) else { return };
        if flow.established || !flow.completes(&seen) {
            return;
        }
        flow.push(seen);
        flow.established = true;
        self.counts.completed += 1;
        if !self.is_noteworthy(number) {
            self.forget(number);
        }
    }

    /// An ICMP error about a SYN-ACK comes from the client's side, one about a SYN from the server's.
    fn unreachable(&mut self, seen: Seen) {
        let about_reply = Tuple { local: seen.destination, remote: seen.source };
        let about_syn = Tuple { local: seen.source, remote: seen.destination };
        let number = self.tuples.get(&about_reply).or_else(|| self.tuples.get(&about_syn)).copied();
        if let Some(number) = number {
            self.add(number, seen);
        }
    }

    pub(super) fn into_parts(mut self) -> (Vec<Flow>, Counts) {
        self.end();
        self.kept.extend(self.refused);
        self.kept.extend(self.uneventful);
        self.counts.span = (self.earliest <= self.latest).then_some((self.earliest, self.latest));
        (self.kept, self.counts)
    }

    /// Number of its input.
    pub(super) const fn input(&self) -> u32 {
        self.input
    }

    /// What was counted so far.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }
}

fn tuple_of_syn(seen: &Seen) -> Tuple {
    Tuple { local: seen.source, remote: seen.destination }
}
