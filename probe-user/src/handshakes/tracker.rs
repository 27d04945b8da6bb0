//! Follows the handshakes of one input. Memory is bounded by the handshakes that are open, not by the input's length.

use std::collections::{BTreeMap, VecDeque};

use foldhash::{HashMap, HashMapExt};

use super::flow::Flow;
use super::ports::Ports;
use super::{PacketKind, Seen, Sight, relative};
use crate::capture::{Decoded, Frame, Undecoded, decode, glance};
use crate::observation::{Nanos, Tuple};

/// Handshakes that are open at one time; beyond it the oldest is given up, and counted.
const MAX_OPEN: usize = 131_072;
/// Handshakes that are kept for a closer look; beyond it they are counted.
const MAX_KEPT: usize = 32_768;
/// Of those that nothing is wrong with but that nobody answered, or that came about unseen, the latest: they are worth a
/// look only if another input knows more.
const MAX_UNEVENTFUL: usize = 8192;
/// A RST follows its SYN-ACK within this: at the beginning of an input it may be about one in the input before.
const HEAD_NS: Nanos = 100_000_000;
/// Handshakes of which an input has only such a RST.
const MAX_HEADLESS: usize = 1024;
/// A handshake of which nothing was seen for so long is over: a SYN_SENT socket lives about 130 s.
const IDLE_NS: Nanos = 150_000_000_000;

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
            counts: Counts::default(),
            last: 0,
            earliest: Nanos::MAX,
            latest: Nanos::MIN,
        }
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

    /// Whether a completed handshake is worth more than being counted.
    fn is_noteworthy(&self, number: u32) -> bool {
        let Some(flow) = self.flows.get(&number) else { return false };
        flow.again
            || flow.has(PacketKind::Reset)
            || flow
                .seen
                .iter()
                .any(|seen| seen.kind == PacketKind::Syn && (self.is_service)(tuple_of_syn(seen)))
    }

    fn forget(&mut self, number: u32) -> Option<Flow> {
        let flow = self.flows.remove(&number)?;
        if let Some(beyond) = &flow.beyond {
            self.beyond.remove(beyond);
        }
        for port in &flow.ports {
            self.pending.remove(*port);
        }
        for seen in flow.seen.iter().filter(|seen| seen.kind == PacketKind::Syn) {
            if self.tuples.get(&tuple_of_syn(seen)) == Some(&number) {
                self.tuples.remove(&tuple_of_syn(seen));
            }
        }
        if let Some(tuple) = flow.tuple()
            && self.tuples.get(&tuple) == Some(&number)
        {
            self.tuples.remove(&tuple);
        }
        Some(flow)
    }

    /// The handshake is over, or will not go on.
    fn conclude(&mut self, number: u32) {
        let noteworthy = self.is_noteworthy(number);
        let Some(flow) = self.forget(number) else { return };
        if flow.established && !noteworthy {
            return;
        }
        let refused = flow.has(PacketKind::ResetAck);
        let broken =
            refused || flow.seen.iter().any(|seen| matches!(seen.kind, PacketKind::Unreachable { .. }));
        if !noteworthy && !broken {
            self.uneventful.push_back(flow);
            if self.uneventful.len() > MAX_UNEVENTFUL {
                self.uneventful.pop_front();
            }
            return;
        }
        let kept = if refused && !noteworthy { &mut self.refused } else { &mut self.kept };
        if kept.len() < MAX_KEPT {
            kept.push(flow);
        } else {
            self.counts.forgotten += 1;
        }
    }

    fn expire(&mut self) {
        if self.order.len() > 4 * MAX_OPEN {
            let flows = &self.flows;
            self.order.retain(|(began, number)| flows.get(number).is_some_and(|flow| flow.first() == *began));
        }
        while let Some(&(began, number)) = self.order.front() {
            let crowded = self.flows.len() > MAX_OPEN;
            if !crowded && began.saturating_add(IDLE_NS) > self.last {
                return;
            }
            self.order.pop_front();
            let Some(flow) = self.flows.get(&number).filter(|flow| flow.first() == began) else { continue };
            if !crowded && flow.last.saturating_add(IDLE_NS) > self.last {
                // Still being retried: looked at again when it may be over.
                self.order.push_back((began, number));
                return;
            }
            self.counts.forgotten += u64::from(crowded);
            self.conclude(number);
        }
    }

    /// The input is at its end.
    pub(super) fn into_parts(mut self) -> (Vec<Flow>, Counts) {
        let mut open: Vec<_> = self.flows.values().map(|flow| (flow.first(), flow.number)).collect();
        open.sort_unstable();
        for (_, number) in open {
            self.conclude(number);
        }
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
