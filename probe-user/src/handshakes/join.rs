//! Puts together what several inputs saw of one handshake, and finds by how much their clocks differ.

use std::collections::{BTreeMap, BTreeSet};

use super::PacketKind;
use super::connect::Connect;
use super::flow::Flow;
use crate::observation::{Nanos, Tuple};

/// Clocks that differ by less agree: the packets themselves take that long.
const SAME_CLOCK_NS: Nanos = 5_000_000;
/// A SYN is not sent again after this (tcp_syn_retries of 6: 127 s).
const SYN_SENT_NS: Nanos = 130_000_000_000;

/// By how much the clock of one input differs from that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Whose clock.
    pub input: u32,
    /// Compared with whose.
    pub reference: u32,
    /// How far it is ahead, nanoseconds; negative if behind.
    pub ahead_ns: Nanos,
    /// From how many packets that both inputs have.
    pub packets: usize,
}

impl ClockOffset {
    /// Whether the difference is no more than what packets take.
    pub const fn agrees(&self) -> bool {
        self.ahead_ns.unsigned_abs() < SAME_CLOCK_NS.unsigned_abs()
    }
}

/// Handshakes of all inputs.
#[derive(Debug, Default)]
pub struct Joined {
    /// Each once, the earliest first, on the clock of the first input that has part in it.
    pub connects: Vec<Connect>,
    /// How clocks differ, for inputs that share packets with an earlier one.
    pub clocks: Vec<ClockOffset>,
}

/// Joins the flows of all inputs.
fn join_flows(flows: Vec<Flow>, spans: &BTreeMap<u32, Span>) -> Joined {
    let groups = group(flows);
    let clocks = clocks(&groups, spans);
    let shift: BTreeMap<u32, Nanos> =
        clocks.iter().filter(|clock| !clock.agrees()).map(|clock| (clock.input, clock.ahead_ns)).collect();
    let mut connects: Vec<Connect> = groups.into_iter().map(|group| Connect::new(group, &shift)).collect();
    connects.sort_by_key(Connect::order);
    forget_retold(&mut connects);
    Joined { connects, clocks }
}

/// A listing that counts sequence numbers from 0 may be of the same packets as another input, whose numbers are true: what
/// has the same addresses and the same rhythm is told once.
fn forget_retold(connects: &mut Vec<Connect>) {
    type Rhythm = Vec<(PacketKind, Nanos)>;
    let rhythm = |connect: &Connect| -> Rhythm {
        let begin = connect.order().0;
        connect.distinct_all().iter().map(|seen| (seen.kind, seen.at.saturating_sub(begin))).collect()
    };
    let alike = |one: &Rhythm, other: &Rhythm| {
        let near = |((kind, at), (other, later)): (&(PacketKind, Nanos), &(PacketKind, Nanos))| {
            kind == other && at.abs_diff(*later) < SAME_CLOCK_NS.unsigned_abs()
        };
        one.len() > 1 && one.len() == other.len() && one.iter().zip(other).all(near)
    };
    if !connects.iter().any(Connect::is_relative) {
        return;
    }
    let mut absolute: BTreeMap<Tuple, Vec<Rhythm>> = BTreeMap::new();
    for connect in connects.iter().filter(|connect| !connect.is_relative()) {
        if let Some(tuple) = connect.tuple() {
            absolute.entry(tuple).or_default().push(rhythm(connect));
        }
    }
    connects.retain(|connect| {
        let known = connect.tuple().filter(|_| connect.is_relative()).and_then(|tuple| absolute.get(&tuple));
        let own = known.map(|_| rhythm(connect)).unwrap_or_default();
        !known.is_some_and(|all| all.iter().any(|other| alike(&own, other)))
    });
}

/// Joins what the trackers of all inputs kept.
pub fn join(trackers: Vec<super::Tracker<'_>>) -> (Joined, Vec<super::Counts>) {
    let inputs: Vec<u32> = trackers.iter().map(super::Tracker::input).collect();
    let (flows, counts): (Vec<_>, Vec<super::Counts>) =
        trackers.into_iter().map(super::Tracker::into_parts).unzip();
    let spans = inputs.into_iter().zip(&counts).filter_map(|(input, counts)| Some((input, counts.span?)));
    let spans = spans.collect();
    (join_flows(flows.into_iter().flatten().collect(), &spans), counts)
}

/// Flows with the same number that have something else in common too: 32 bits alone may be chance.
fn group(flows: Vec<Flow>) -> Vec<Vec<Flow>> {
    let mut by_number: BTreeMap<u32, Vec<Vec<Flow>>> = BTreeMap::new();
    for flow in flows {
        let groups = by_number.entry(flow.number).or_default();
        let fits = |group: &&mut Vec<Flow>| {
            group.iter().all(|other| input(other) != input(&flow))
                && group.iter().any(|other| related(other, &flow))
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push(flow),
            None => groups.push(vec![flow]),
        }
    }
    by_number.into_values().flatten().collect()
}

fn input(flow: &Flow) -> Option<u32> {
    flow.seen.first().map(|seen| seen.input)
}

/// An address in common, or a SYN-ACK.
fn related(one: &Flow, other: &Flow) -> bool {
    let addresses = |flow: &Flow| -> BTreeSet<_> {
        flow.seen.iter().flat_map(|seen| [seen.source, seen.destination]).collect()
    };
    let replies = |flow: &Flow| -> BTreeSet<u32> {
        let replies = flow.seen.iter().filter(|seen| seen.kind == PacketKind::SynAck);
        replies.map(|seen| seen.sequence).collect()
    };
    !addresses(one).is_disjoint(&addresses(other)) || !replies(one).is_disjoint(&replies(other))
}

/// What makes two sights the same packet, or the same packet sent again, whatever translations did to its addresses.
type Packet = (PacketKind, u32, u32);

/// A packet of a flow, without copies: when it was seen, and its TSval.
type Sighted = (Nanos, Option<u32>);

/// The packets of a flow as one input shows them, in the order of time.
fn packets(flow: &Flow) -> BTreeMap<Packet, Vec<Sighted>> {
    let mut packets: BTreeMap<Packet, Vec<Sighted>> = BTreeMap::new();
    for seen in &flow.seen {
        if matches!(seen.kind, PacketKind::Syn | PacketKind::SynAck) {
            let all = packets.entry((seen.kind, seen.sequence, seen.acknowledgement)).or_default();
            if !all.iter().any(|(known, _)| known.abs_diff(seen.at) <= super::COPY_NS.unsigned_abs()) {
                all.push((seen.at, seen.timestamp));
            }
        }
    }
    for all in packets.values_mut() {
        all.sort_unstable();
    }
    packets
}

/// How much later the second input has each packet that both have. TSvals tell which those are. Without them, of a packet
/// that was sent several times, one input may lack the first ones: the alignment is taken in which all differences are the
/// most alike, and the smallest of those.
fn differences(earlier: &[Sighted], later: &[Sighted]) -> Vec<Nanos> {
    if earlier.iter().chain(later).all(|(_, timestamp)| timestamp.is_some()) {
        let twin = |(at, timestamp): &Sighted| {
            let found = later.iter().find(|(_, other)| other == timestamp)?;
            Some(found.0.saturating_sub(*at))
        };
        return earlier.iter().filter_map(twin).collect();
    }
    let (short, long) = if earlier.len() <= later.len() { (earlier, later) } else { (later, earlier) };
    let sign = if earlier.len() <= later.len() { 1 } else { -1 };
    let aligned = long.windows(short.len().max(1)).map(|window| -> Vec<Nanos> {
        window.iter().zip(short).map(|((one, _), (other, _))| sign * one.saturating_sub(*other)).collect()
    });
    let unlike = |differences: &Vec<Nanos>| {
        let spread = differences.iter().max().zip(differences.iter().min()).map_or(0, |(max, min)| max - min);
        let size = differences.first().map_or(0, |first| first.unsigned_abs());
        (spread / super::COPY_NS, size)
    };
    aligned.min_by_key(unlike).unwrap_or_default()
}

/// Time of the first and of the last packet of an input.
type Span = (Nanos, Nanos);

/// Whether one input may simply go on where the other one ends, as the files of a capture that was split do: then what
/// both have of a handshake is a SYN that was sent again.
fn continues(one: Option<&Span>, other: Option<&Span>, ahead: Nanos) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    (one.1 <= other.0 || other.1 <= one.0) && ahead.unsigned_abs() <= SYN_SENT_NS.unsigned_abs()
}

/// Compares every input with the first one that it shares packets with, directly or through others.
fn clocks(groups: &[Vec<Flow>], spans: &BTreeMap<u32, Span>) -> Vec<ClockOffset> {
    let mut found: BTreeMap<(u32, u32), [Vec<Nanos>; 2]> = BTreeMap::new();
    for group in groups {
        let inputs: BTreeMap<u32, _> =
            group.iter().filter_map(|flow| Some((input(flow)?, packets(flow)))).collect();
        for (one, earlier) in &inputs {
            for (other, later) in inputs.range(one + 1..) {
                let [forth, back] = found.entry((*one, *other)).or_default();
                for (packet, sighted) in earlier {
                    let Some(again) = later.get(packet) else { continue };
                    let list = if packet.0 == PacketKind::Syn { &mut *forth } else { &mut *back };
                    list.extend(differences(sighted, again));
                }
            }
        }
    }
    let measured: BTreeMap<(u32, u32), (Nanos, usize)> = found
        .into_iter()
        .filter_map(|(pair, [forth, back])| {
            let (count, only_syns) = (forth.len() + back.len(), back.is_empty());
            let ahead = offset(forth, back)?;
            let goes_on = only_syns && continues(spans.get(&pair.0), spans.get(&pair.1), ahead);
            (!goes_on).then_some((pair, (ahead, count)))
        })
        .collect();
    spread(&measured)
}

/// A packet needs its time in either direction; what is left in the middle is the difference of the clocks.
fn offset(forth: Vec<Nanos>, back: Vec<Nanos>) -> Option<Nanos> {
    match (median(forth), median(back)) {
        (Some(forth), Some(back)) => Some(forth.midpoint(back)),
        (one, other) => one.or(other),
    }
}

fn median(mut values: Vec<Nanos>) -> Option<Nanos> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// From differences of pairs to the difference from the first input of each connected set.
fn spread(measured: &BTreeMap<(u32, u32), (Nanos, usize)>) -> Vec<ClockOffset> {
    let inputs: BTreeSet<u32> = measured.keys().flat_map(|(one, other)| [*one, *other]).collect();
    let mut known: BTreeMap<u32, ClockOffset> = BTreeMap::new();
    for start in inputs {
        if known.contains_key(&start) {
            continue;
        }
        known.insert(start, ClockOffset { input: start, reference: start, ahead_ns: 0, packets: 0 });
        let mut waiting = vec![start];
        while let Some(at) = waiting.pop() {
            let here = known.get(&at).map_or(0, |clock| clock.ahead_ns);
            for ((one, other), (ahead, packets)) in measured {
                let (next, step) = match (*one == at, *other == at) {
                    (true, _) => (*other, *ahead),
                    (_, true) => (*one, -*ahead),
                    _ => continue,
                };
                known.entry(next).or_insert_with(|| {
                    waiting.push(next);
                    let ahead_ns = here.saturating_add(step);
                    ClockOffset { input: next, reference: start, ahead_ns, packets: *packets }
                });
            }
        }
    }
    known.into_values().filter(|clock| clock.input != clock.reference).collect()
}
