//! TCP handshakes in captures and listings of packets: which of them are worth a look, and what they say. Pure.
//!
//! A handshake is known by a number that no address translation changes: ISN + 1 of the connect. The SYN-ACK
//! acknowledges it, and a RST that answers the SYN-ACK carries it, in every namespace and on every device
//! (RFC 9293, section 3.5). One [`Tracker`] reads one input; [`join()`] puts together what several inputs say.

mod connect;
mod coverage;
mod facts;
mod flow;
mod join;
mod ports;
mod relative;
mod tracker;

use std::net::{IpAddr, SocketAddr};

pub use connect::Connect;
pub use coverage::{Coverage, Covered};
pub use facts::{Context, Explained, explain};
pub use join::{ClockOffset, Joined, join};
pub use tracker::{Counts, MAX_KEPT_PACKETS, Tracker};

use crate::capture::{Decoded, Segment};
use crate::observation::Nanos;

/// A packet of a handshake, as one input shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When, nanoseconds since the Unix epoch by the clock of its input.
    pub at: Nanos,
    /// Which input.
    pub input: u32,
    /// Where in that input: its interface.
    pub place: u32,
    /// Number of the packet in its input, or line of the listing, from 1.
    pub number: u64,
    /// What it is.
    pub kind: PacketKind,
    /// Sender; for [`PacketKind::Unreachable`] that of the packet it is about.
    pub source: SocketAddr,
    /// Receiver; for [`PacketKind::Unreachable`] that of the packet it is about.
    pub destination: SocketAddr,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number; means something only for packets that have one.
    pub acknowledgement: u32,
    /// TSval of the timestamp option (RFC 7323), if it was captured: a packet that is sent again has another one.
    pub timestamp: Option<u32>,
    /// Its listing counts sequence numbers from the beginning of the connection; see [`Connect::as_listed`].
    pub relative: bool,
}

/// The packets that make or break a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketKind {
    /// SYN.
    Syn,
    /// SYN-ACK.
    SynAck,
    /// RST without ACK: a stack that knows no such connection answers a SYN-ACK so (RFC 9293, section 3.10.7.1).
    Reset,
    /// RST with ACK: a closed port answers a SYN so, and a program that aborts its connection sends it.
    ResetAck,
    /// The ACK, alone or with data, that completes the handshake.
    Ack,
    /// ICMP destination unreachable.
    Unreachable {
        /// Who sends it.
        from: IpAddr,
        /// Port unreachable, and nothing else.
        port: bool,
    },
}

/// Where and when a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Nanoseconds since the Unix epoch.
    pub at: Nanos,
    /// Interface of the input.
    pub place: u32,
    /// Number of the packet, or line, from 1.
    pub number: u64,
}

/// Two copies of one packet on several devices of one machine are no further apart than this. A SYN is sent again after
/// 200 ms at the earliest (TCP_RTO_MIN).
const COPY_NS: Nanos = 50_000_000;
/// TCP_RTO_MIN: no packet is sent again sooner.
const RTO_MIN_NS: Nanos = 200_000_000;

/// The most data that a SYN carries (TCP Fast Open, RFC 7413): one segment.
const MAX_SYN_DATA: u32 = 1460;

impl Seen {
    /// A packet that can be part of a handshake.
    fn new(input: u32, sight: Sight, packet: &Decoded) -> Option<Self> {
        let Sight { at, place, number } = sight;
        Some(match packet {
            Decoded::Tcp(segment) => Self {
                at,
                input,
                place,
                number,
                kind: kind_of(segment)?,
                source: segment.source,
                destination: segment.destination,
                sequence: segment.sequence,
                acknowledgement: segment.acknowledgement,
                timestamp: segment.timestamp,
                relative: false,
            },
            Decoded::Unreachable(icmp) => Self {
                at,
                input,
                place,
                number,
                kind: PacketKind::Unreachable { from: icmp.from, port: icmp.is_port() },
                source: icmp.source,
                destination: icmp.destination,
                sequence: icmp.sequence,
                acknowledgement: 0,
                timestamp: None,
                relative: false,
            },
            Decoded::Other => return None,
        })
    }

    /// This SYN was sent after that one, and is not the same on its way. TSvals tell; without them, the time does.
    fn is_after(&self, first: &Self) -> bool {
        let distinct = match (self.timestamp, first.timestamp) {
            (Some(one), Some(other)) => one != other,
            _ => true,
        };
        distinct && self.at.saturating_sub(first.at) >= RTO_MIN_NS
    }

    /// The same packet, seen again on another device or twice on one.
    fn is_copy_of(&self, other: &Self) -> bool {
        self.kind == other.kind
            && (self.source, self.destination) == (other.source, other.destination)
            && (self.sequence, self.acknowledgement) == (other.sequence, other.acknowledgement)
            && self.at.abs_diff(other.at) <= COPY_NS.unsigned_abs()
    }
}

fn kind_of(segment: &Segment) -> Option<PacketKind> {
    let flags = segment.flags;
    Some(match (flags.is_rst(), flags.has_ack()) {
        (true, true) => PacketKind::ResetAck,
        (true, false) => PacketKind::Reset,
        _ if flags.is_syn_ack() => PacketKind::SynAck,
        _ if flags.is_syn() => PacketKind::Syn,
        (false, true) => PacketKind::Ack,
        (false, false) => return None,
    })
}
