//! `tcpdump -nn` as text, with any of its options that add to a line: -v, -e, -t to -ttttt, -S, --number, -A and -X
//! (whose payload is passed over), and the interface column of `-i any`.

use std::sync::Arc;

use super::flows::Flows;
use super::moment::{self, Clock, Stamp};
use super::tcpdump_packet::{self as packet, Body, Tcp};
use super::{Listed, ListedPacket, ListedTime, Out};
use crate::capture::packet::{Segment, Unreachable};
use crate::observation::Nanos;

/// Packets that are held back until it is clear what their times are relative to.
const MAX_HELD: usize = 64;

/// Whether a line, by itself, is a packet of tcpdump: for telling kinds of files apart.
pub(super) fn is_packet(line: &str) -> bool {
    let (stamp, rest) = stamp(line);
    let (_, rest) = interface(rest);
    let starts = rest.starts_with("IP ") || rest.starts_with("IP6 ");
    if packet::is_tcp(rest) {
        return stamp.is_some() || starts || line.starts_with([' ', '\t']);
    }
    stamp.is_some() && (starts || rest.contains("ethertype IPv") || rest.starts_with("ARP, "))
}

/// Number of the packet (`--number`) and stamp are taken off.
fn stamp(line: &str) -> (Option<Stamp>, &str) {
    if let Some((stamp, rest)) = moment::take(line) {
        return (Some(stamp), rest.trim_start());
    }
    let numbered = line.trim_start().split_once(' ').filter(|(word, _)| word.parse::<u64>().is_ok());
    match numbered.and_then(|(_, rest)| moment::take(rest)) {
        Some((stamp, rest)) => (Some(stamp), rest.trim_start()),
        None => (None, line),
    }
}

/// `eth0  In  IP …`: name of the interface, and the rest from its protocol on.
fn interface(rest: &str) -> (Option<&str>, &str) {
    let words = || rest.trim_start().split_once(' ');
    let Some((name, after)) = words() else { return (None, rest) };
    let Some((way, after)) = after.trim_start().split_once(' ') else { return (None, rest) };
    let is_way = matches!(way, "In" | "Out" | "B" | "M" | "P");
    if is_way && !name.ends_with(',') { (Some(name), after.trim_start()) } else { (None, rest) }
}

/// What is known of a packet before its addresses.
#[derive(Clone, Debug)]
struct Head {
    time: ListedTime,
    interface: Option<Arc<str>>,
    ip_id: Option<u16>,
    line: u64,
}

/// What the next line may belong to.
#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    /// A header of -v: the addresses come in the next line.
    Header(Head),
    /// A packet that is not TCP. What it carries may come in the next line (VXLAN, Geneve).
    Outer(Head),
    /// An ICMP message of -v: the packet that it is about follows.
    Icmp { head: Head, message: Unreachable },
}

/// Follows a listing.
#[derive(Default)]
pub(super) struct Parser {
    open: Open,
    clock: Clock,
    deltas: Deltas,
    flows: Flows,
    any_stamp: bool,
}

impl Parser {
    pub(super) fn line(&mut self, line: u64, text: &str, out: &mut Out<'_>) {
        let (stamp, rest) = stamp(text);
        match std::mem::take(&mut self.open) {
            _ if stamp.is_some() => {
                self.any_stamp = true;
                self.first_line(line, text, stamp, rest, out);
            }
            Open::Header(head) if text.starts_with([' ', '\t']) => {
                // The stamp's line carries the place; the packet may still be an outer one.
                self.packet(head, text, text, true, out);
            }
            Open::Icmp { head, message } => self.about(head, message, text, out),
            Open::Outer(head) if starts_packet(text) => {
                let head = Head { line, ip_id: None, ..head };
                self.start(head, text, text, out);
            }
            _ if !self.any_stamp && starts_packet(text) => self.first_line(line, text, None, text, out),
            // Payload of -A and -X, or what tcpdump says about itself.
            _ => {}
        }
    }

    /// The first line of a packet, its stamp taken off.
    fn first_line(&mut self, line: u64, text: &str, stamp: Option<Stamp>, rest: &str, out: &mut Out<'_>) {
        if let Open::Icmp { head, message } = std::mem::take(&mut self.open) {
            self.hand_out(&head, ListedPacket::Unreachable(message), false, out);
        }
        let (interface, rest) = interface(rest);
        let head =
            Head { time: self.clock.time(stamp), interface: interface.map(Arc::from), ip_id: None, line };
        self.start(head, text, rest, out);
    }

    fn start(&mut self, mut head: Head, text: &str, rest: &str, out: &mut Out<'_>) {
        let verbose = rest.contains("(tos ")
            || rest.contains("(class ")
            || rest.contains("(flowlabel ")
            || rest.contains("(hlim ");
        head.ip_id = ip_id(rest);
        if verbose && rest.trim_end().ends_with(')') && !rest.contains(" > ") || is_link_header(rest) {
            self.open = Open::Header(head);
        } else {
            self.packet(head, text, rest, verbose, out);
        }
    }

    fn packet(&mut self, head: Head, text: &str, rest: &str, verbose: bool, out: &mut Out<'_>) {
        match packet::body(rest) {
            Ok(Body::Tcp(tcp)) => {
                let (segment, absolute) = self.segment(&tcp, head.ip_id);
                self.hand_out(&head, ListedPacket::Tcp(segment), absolute, out);
            }
            Ok(Body::Icmp { from, to, about }) => {
                let code = if from.is_ipv4() { 3 } else { 4 };
                let source = (to, 0).into();
                let message = Unreachable { from, to, code, source, destination: about, sequence: 0 };
                if verbose {
                    self.open = Open::Icmp { head, message };
                } else {
                    self.hand_out(&head, ListedPacket::Unreachable(message), false, out);
                }
            }
            Ok(Body::Other) => {
                out.account.other += 1;
                self.open = Open::Outer(head);
            }
            Err(refusal) => out.refuse(head.line, text, refusal),
        }
    }

    /// A line after an ICMP message of -v.
    fn about(&mut self, head: Head, mut message: Unreachable, text: &str, out: &mut Out<'_>) {
        let inner = text.trim_start();
        if inner.starts_with("IP (") || inner.starts_with("IP6 (") && !packet::is_tcp(inner) {
            self.open = Open::Icmp { head, message };
            return;
        }
        let mut absolute = false;
        if let Ok(Body::Tcp(tcp)) = packet::body(inner) {
            let (segment, known) = self.segment(&tcp, None);
            (message.source, message.destination) = (segment.source, segment.destination);
            message.sequence = segment.sequence;
            absolute = known;
        } else if let Some((source, destination)) = packet::ends(inner) {
            (message.source, message.destination) = (source, destination);
        }
        self.hand_out(&head, ListedPacket::Unreachable(message), absolute, out);
    }

    fn segment(&mut self, tcp: &Tcp, ip_id: Option<u16>) -> (Segment, bool) {
        let printed = tcp.printed;
        let numbers = self.flows.numbers(printed);
        let segment = Segment {
            source: printed.source,
            destination: printed.destination,
            sequence: numbers.sequence,
            acknowledgement: numbers.acknowledgement,
            flags: printed.flags,
            window: tcp.window,
            payload: Some(printed.payload),
            ip_id,
            timestamp: tcp.timestamp,
            depth: 0,
        };
        (segment, numbers.absolute)
    }

    fn hand_out(&mut self, head: &Head, packet: ListedPacket, absolute: bool, out: &mut Out<'_>) {
        let Head { time, interface, line, .. } = head;
        let (time, interface, line) = (*time, interface.clone(), *line);
        self.deltas.take(Listed { time, packet, absolute, interface, number: None, line }, out);
    }

    pub(super) fn finish(&mut self, out: &mut Out<'_>) {
        if let Open::Icmp { head, message } = std::mem::take(&mut self.open) {
            self.hand_out(&head, ListedPacket::Unreachable(message), false, out);
        }
        self.deltas.finish(out);
    }
}

/// A packet at the beginning of a line, without a stamp.
fn starts_packet(text: &str) -> bool {
    let (_, rest) = interface(text);
    let indented = text.starts_with([' ', '\t']);
    !indented && (rest.starts_with("IP ") || rest.starts_with("IP6 "))
}

/// `… ethertype IPv4 (0x0800), length 74: (tos …` has its addresses in the next line; so does nothing else.
fn is_link_header(rest: &str) -> bool {
    rest.contains("ethertype ") && rest.contains(": (tos ") && rest.trim_end().ends_with(')')
}

/// `id 54321` of -v.
fn ip_id(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("(tos ")?;
    rest.split(", ").find_map(|field| field.strip_prefix("id ")?.parse().ok())
}

/// `-ttt` prints the time since the packet before, `-ttttt` since the first one, and both look like a time of day. The
/// first packet has zero in both; a later one that goes back tells that they are differences.
#[derive(Default)]
enum Deltas {
    #[default]
    Start,
    Undecided(Vec<Listed>),
    SinceFirst,
    SinceLast(Nanos),
    /// Times of another kind.
    None,
}

impl Deltas {
    fn take(&mut self, listed: Listed, out: &mut Out<'_>) {
        match self {
            Self::Start if listed.time == ListedTime::TimeOfDay(0) => *self = Self::Undecided(vec![listed]),
            Self::Start => {
                *self = Self::None;
                out.packet(listed);
            }
            Self::Undecided(held) => {
                let back = held.last().is_some_and(|last| last.time > listed.time);
                held.push(listed);
                if back || held.len() >= MAX_HELD {
                    self.decide(back, out);
                }
            }
            Self::SinceFirst => out.packet(relative(listed, 0)),
            Self::SinceLast(sum) => {
                let listed = relative(listed, *sum);
                if let ListedTime::Relative(at) = listed.time {
                    *sum = at;
                }
                out.packet(listed);
            }
            Self::None => out.packet(listed),
        }
    }

    fn decide(&mut self, since_last: bool, out: &mut Out<'_>) {
        let next = if since_last { Self::SinceLast(0) } else { Self::SinceFirst };
        if let Self::Undecided(held) = std::mem::replace(self, next) {
            for listed in held {
                self.take(listed, out);
            }
        }
    }

    fn finish(&mut self, out: &mut Out<'_>) {
        if matches!(self, Self::Undecided(_)) {
            self.decide(false, out);
            out.account
                .notes
                .push("its times are taken as those since the first packet (tcpdump -ttttt)".to_owned());
        }
    }
}

fn relative(listed: Listed, sum: Nanos) -> Listed {
    match listed.time {
        ListedTime::TimeOfDay(at) => Listed { time: ListedTime::Relative(sum.saturating_add(at)), ..listed },
        _ => listed,
    }
}
