//! tcpdump's relative numbers, made absolute again.
//!
//! Without -S, tcpdump prints the numbers of packets without ACK, of SYN-ACKs, and of the first packet of a
//! conversation as they are, and all others relative to what it remembered then (`tcp_print`, print-tcp.c).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::capture::packet::Flags;

/// Conversations that are remembered; then the oldest are forgotten.
const MAX_FLOWS: usize = 65_536;
/// A first packet with numbers below this is not the first: its conversation began before what was pasted.
const SMALL: u32 = 65_536;

/// Numbers as they are printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printed {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) flags: Flags,
    /// tcpdump leaves it out of bare ACKs.
    pub(super) sequence: Option<u32>,
    pub(super) acknowledgement: Option<u32>,
    pub(super) payload: u32,
}

/// Numbers as they were on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    /// False: they are as printed, because what they are relative to was not.
    pub(super) absolute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Relative,
    /// -S
    Absolute,
}

/// Of the two ends, the one with the smaller address first.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// What each end's numbers are relative to.
    base: [Option<u32>; 2],
    /// What each end sends next, on the wire.
    next: [Option<u32>; 2],
}

/// The conversations of one listing.
#[derive(Debug, Default)]
pub(super) struct Flows {
    known: HashMap<(SocketAddr, SocketAddr), Flow>,
    order: VecDeque<(SocketAddr, SocketAddr)>,
    style: Option<Style>,
}

impl Flows {
    pub(super) fn numbers(&mut self, printed: Printed) -> Numbers {
        let Printed { source, destination, flags, .. } = printed;
        let turned = source > destination;
        let key = if turned { (destination, source) } else { (source, destination) };
        let mut flow = self.known.get(&key).copied().unwrap_or_default();
        let style = &mut self.style;
        if turned {
            flow.turn();
        }
        let (numbers, sequence_known) = flow.take(printed, style);
        if sequence_known {
            let control = u32::from(flags.0 & Flags::SYN != 0) + u32::from(flags.0 & Flags::FIN != 0);
            if !flags.is_rst() {
                flow.next[0] = Some(numbers.sequence.wrapping_add(printed.payload).wrapping_add(control));
            }
        }
        if turned {
            flow.turn();
        }
        self.remember(key, flow);
        numbers
    }

    fn remember(&mut self, key: (SocketAddr, SocketAddr), flow: Flow) {
        if self.known.insert(key, flow).is_none() {
            self.order.push_back(key);
            if self.order.len() > MAX_FLOWS
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

impl Flow {
    fn turn(&mut self) {
        self.base.reverse();
        self.next.reverse();
    }

    /// The numbers of a packet from the first end, and whether its sequence number is that of the wire.
    fn take(&mut self, printed: Printed, style: &mut Option<Style>) -> (Numbers, bool) {
        let Printed { flags, sequence, acknowledgement, .. } = printed;
        let [mine, peers] = self.base;
        let Some(ack) = acknowledgement.filter(|_| flags.0 & Flags::ACK != 0) else {
            return self.done(sequence, 0, true);
        };
        if flags.0 & Flags::SYN != 0 {
            self.base = [sequence, Some(ack.wrapping_sub(1))];
            return self.done(sequence, ack, true);
        }
        let Some(peers) = peers else {
            if ack < SMALL && sequence.is_none_or(|sequence| sequence < SMALL) {
                let sequence = sequence.unwrap_or(0);
                return (Numbers { sequence, acknowledgement: ack, absolute: false }, false);
            }
            self.base = [sequence, Some(ack.wrapping_sub(1))];
            return self.done(sequence, ack, true);
        };
        if *style.get_or_insert_with(|| style_of(ack, peers)) == Style::Absolute {
            return self.done(sequence, ack, true);
        }
        let sequence = match (sequence, mine) {
            (None, _) => None,
            (Some(relative), Some(base)) => Some(base.wrapping_add(relative)),
            (Some(relative), None) => {
                return (Numbers { sequence: relative, acknowledgement: ack, absolute: false }, false);
            }
        };
        self.done(sequence, peers.wrapping_add(ack), true)
    }

    fn done(&self, sequence: Option<u32>, acknowledgement: u32, absolute: bool) -> (Numbers, bool) {
        match sequence.or(self.next[0]) {
            Some(sequence) => (Numbers { sequence, acknowledgement, absolute }, absolute),
            None => (Numbers { sequence: 0, acknowledgement, absolute: false }, false),
        }
    }
}

/// A number that is nearer to zero than to the other end's first number is relative.
fn style_of(ack: u32, base: u32) -> Style {
    let distance = |number: u32| number.cast_signed().unsigned_abs();
    if distance(ack) <= distance(ack.wrapping_sub(base)) { Style::Relative } else { Style::Absolute }
}
