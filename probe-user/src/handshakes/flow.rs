//! One handshake in one input, while it goes on.

use super::{PacketKind, Seen};
use crate::observation::{Nanos, Tuple};

/// Packets kept of one handshake. A SYN is sent at most a dozen times; each time it is seen on a few devices.
const MAX_SEEN: usize = 96;

/// A handshake, and what was seen of it.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// ISN + 1 of the connect.
    pub(super) number: u32,
    /// The first packets, as seen, copies included.
    pub(super) seen: Vec<Seen>,
    /// Packets beyond those.
    pub(super) more: u64,
    pub(super) last: Nanos,
    /// The ACK that completed it was seen.
    pub(super) established: bool,
    /// A SYN was sent again.
    pub(super) again: bool,
    /// Ports of its client, as its packets show them.
    pub(super) ports: Vec<u16>,
    /// What its SYN-ACK acknowledges where the SYN carried data: more than ISN + 1 (TCP Fast Open, RFC 7413).
    pub(super) beyond: Option<u32>,
}

impl Flow {
    pub(super) fn new(number: u32, first: Seen) -> Self {
        Self {
            number,
            last: first.at,
            seen: vec![first],
            more: 0,
            established: false,
            again: false,
            ports: Vec::new(),
            beyond: None,
        }
    }

    pub(super) fn push(&mut self, seen: Seen) {
        self.last = self.last.max(seen.at);
        if seen.kind == PacketKind::Syn
            && self.seen.iter().any(|known| known.kind == PacketKind::Syn && !seen.is_copy_of(known))
        {
            self.again = true;
        }
        if self.seen.len() < MAX_SEEN {
            self.seen.push(seen);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn first(&self) -> Nanos {
        self.seen.first().map_or(self.last, |seen| seen.at)
    }

    /// Addresses of the connect: of its first SYN; of its first SYN-ACK where no SYN was seen.
    pub(super) fn tuple(&self) -> Option<Tuple> {
        let first = self.seen.first()?;
        Some(match first.kind {
            PacketKind::SynAck => Tuple { local: first.destination, remote: first.source },
            _ => Tuple { local: first.source, remote: first.destination },
        })
    }

    pub(super) fn has(&self, kind: PacketKind) -> bool {
        self.seen.iter().any(|seen| seen.kind == kind)
    }

    /// Whether this SYN can be of the same connect: the same packet on its way through translations, or sent again.
    pub(super) fn can_hold(&self, syn: &Seen) -> bool {
        let same = |seen: &Seen| seen.source == syn.source && seen.destination == syn.destination;
        let near = |seen: &Seen| {
            let shares = seen.source.port() == syn.source.port()
                || seen.source.ip() == syn.source.ip()
                || seen.destination == syn.destination;
            shares && seen.at.abs_diff(syn.at) < super::COPY_NS.unsigned_abs()
        };
        self.seen.iter().any(|seen| seen.kind != PacketKind::Syn || same(seen) || near(seen))
    }

    /// Whether a plain ACK with this number completes the handshake: it acknowledges a SYN-ACK. Where only the client's
    /// direction was captured, it comes from where the SYN came from: without a reply it would not have been sent.
    pub(super) fn completes(&self, ack: &Seen) -> bool {
        let same = |seen: &Seen| (seen.source, seen.destination) == (ack.source, ack.destination);
        self.seen.iter().any(|seen| match seen.kind {
            PacketKind::SynAck => seen.sequence.wrapping_add(1) == ack.acknowledgement,
            PacketKind::Syn => same(seen) && !self.has(PacketKind::SynAck),
            _ => false,
        })
    }
}
