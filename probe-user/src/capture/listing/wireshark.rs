//! Wireshark's text export: summary lines, each with or without the packet's details under it.
//!
//! Wireshark counts sequence numbers from the beginning of a connection unless it is told not to; the details may have
//! the numbers of the wire beside those ("raw").

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::moment::{self, Clock, Stamp};
use super::wireshark_row::{self as row, Info};
use super::{Listed, ListedPacket, Out, Refusal};
use crate::capture::packet::{Flags, Segment, Unreachable};

/// What the numbers of a listing count from, as its first SYN shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Numbering {
    #[default]
    Unknown,
    Wire,
    Connection,
}

/// Ends of a packet as its details tell them.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    tcp: Info,
    has_tcp: bool,
    raw_sequence: Option<u32>,
    raw_acknowledgement: Option<u32>,
}

/// A packet whose details may follow.
#[derive(Debug, Default)]
struct Pending {
    line: u64,
    text: String,
    number: Option<u64>,
    stamp: Option<Stamp>,
    ends: Ends,
    /// What an ICMP message is about.
    about: Option<Ends>,
    icmp_code: Option<u8>,
    ip_id: Option<u16>,
    interface: Option<Arc<str>>,
    refusal: Option<Refusal>,
}

/// Follows a listing.
#[derive(Default)]
pub(super) struct Parser {
    pending: Option<Pending>,
    numbering: Numbering,
    clock: Clock,
}

impl Parser {
    pub(super) fn line(&mut self, line: u64, text: &str, out: &mut Out<'_>) {
        let text = &*row::columns(text);
        let trimmed = text.trim();
        if let Some(number) = frame_number(trimmed) {
            if self.pending.as_ref().is_none_or(|pending| pending.number != Some(number)) {
                self.finish(out);
                self.pending = Some(Pending { line, number: Some(number), ..Pending::default() });
            }
        } else if row::is_header(trimmed) {
            self.finish(out);
        } else if let Some(row) = row::row(text).filter(is_packet) {
            self.finish(out);
            self.pending = Some(Pending::of_row(line, text, &row));
        } else if let Some(pending) = &mut self.pending {
            pending.detail(trimmed);
        }
    }

    pub(super) fn finish(&mut self, out: &mut Out<'_>) {
        let Some(pending) = self.pending.take() else { return };
        let time = self.clock.time(pending.stamp);
        if let Some(refusal) = pending.refusal {
            out.refuse(pending.line, &pending.text, refusal);
            return;
        }
        let Some((packet, absolute)) = self.packet(&pending) else {
            out.account.other += 1;
            return;
        };
        let Pending { interface, number, line, .. } = pending;
        out.packet(Listed { time, packet, absolute, interface, number, line });
    }

    fn packet(&mut self, pending: &Pending) -> Option<(ListedPacket, bool)> {
        if let Some(about) = pending.about {
            let (from, to) = (pending.ends.source?, pending.ends.destination?);
            let code = pending.icmp_code.unwrap_or(if from.is_ipv4() { 3 } else { 4 });
            let (source, destination) = about.sockets()?;
            let (sequence, _, absolute) = self.numbers(&about);
            let message = Unreachable { from, to, code, source, destination, sequence };
            return Some((ListedPacket::Unreachable(message), absolute));
        }
        let ends = &pending.ends;
        let (source, destination) = ends.sockets()?;
        let (sequence, acknowledgement, absolute) = self.numbers(ends);
        let Info { flags, window, payload, timestamp, .. } = ends.tcp;
        let flags = Flags(flags);
        let ip_id = pending.ip_id;
        let segment = Segment {
            source,
            destination,
            sequence,
            acknowledgement,
            flags,
            window,
            payload,
            ip_id,
            timestamp,
            depth: 0,
        };
        Some((ListedPacket::Tcp(segment), absolute))
    }

    /// Sequence and acknowledgement number, and whether they are those of the wire.
    fn numbers(&mut self, ends: &Ends) -> (u32, u32, bool) {
        let Info { flags, sequence, acknowledgement, .. } = ends.tcp;
        if let Some(raw) = ends.raw_sequence {
            let acknowledges = flags & Flags::ACK != 0;
            let known = ends.raw_acknowledgement.is_some() || !acknowledges;
            return (raw, ends.raw_acknowledgement.unwrap_or(0), known);
        }
        let sequence = sequence.unwrap_or(0);
        if self.numbering == Numbering::Unknown && flags & Flags::SYN != 0 {
            self.numbering = if sequence == 0 { Numbering::Connection } else { Numbering::Wire };
        }
        (sequence, acknowledgement.unwrap_or(0), self.numbering == Numbering::Wire)
    }
}

impl Ends {
    fn sockets(&self) -> Option<(SocketAddr, SocketAddr)> {
        if !self.has_tcp {
            return None;
        }
        let source = SocketAddr::new(self.source?, self.tcp.source);
        Some((source, SocketAddr::new(self.destination?, self.tcp.destination)))
    }
}

impl Pending {
    fn of_row(line: u64, text: &str, row: &row::Row<'_>) -> Self {
        let mut ends = Ends {
            source: row.source.parse().ok(),
            destination: row.destination.parse().ok(),
            ..Ends::default()
        };
        let mut refusal = None;
        match row::info(row.info) {
            Some(Ok(info)) if ends.source.is_some() && ends.destination.is_some() => {
                (ends.tcp, ends.has_tcp) = (info, true);
            }
            Some(Ok(_)) => refusal = Some(Refusal::Name),
            Some(Err(found)) => refusal = Some(found),
            None => {}
        }
        let text = text.chars().take(200).collect();
        let (number, stamp) = (Some(row.number), row.stamp);
        Self { line, text, number, stamp, ends, refusal, ..Self::default() }
    }

    /// A line of the details.
    fn detail(&mut self, text: &str) {
        if let Some(rest) = text.strip_prefix("Internet Protocol Version ") {
            self.addresses(rest);
        } else if let Some(rest) = text.strip_prefix("Transmission Control Protocol, ") {
            self.tcp(rest);
        } else if text.starts_with("Internet Control Message Protocol") {
            self.about = Some(Ends::default());
        } else if let Some((name, value)) = text.split_once(": ") {
            self.value(name, value.trim());
        }
    }

    fn ends(&mut self) -> &mut Ends {
        self.about.as_mut().unwrap_or(&mut self.ends)
    }

    /// `4, Src: 10.0.0.1, Dst: 10.0.0.2`, older with the name before: `node (10.0.0.1)`.
    fn addresses(&mut self, rest: &str) {
        let address = |name: &str| {
            let (_, after) = rest.split_once(name)?;
            let text = after.split(", ").next()?.trim();
            let inside = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
            inside.unwrap_or(text).parse::<IpAddr>().ok()
        };
        let (source, destination) = (address("Src: "), address("Dst: "));
        let ends = self.ends();
        // Of a tunnel the inner addresses count: they come later.
        ends.source = source.or(ends.source);
        ends.destination = destination.or(ends.destination);
    }

    /// `Src Port: 36704, Dst Port: 80, Seq: 4142039474, Len: 0`
    fn tcp(&mut self, rest: &str) {
        let value = |name: &str| {
            let (_, after) = rest.split_once(name)?;
            let text = after.split([',', ' ']).next()?;
            text.parse::<u32>().ok().or_else(|| {
                let (_, inside) = after.split(", ").next()?.split_once('(')?;
                inside.strip_suffix(')')?.parse().ok()
            })
        };
        let port = |name| value(name).and_then(|port| u16::try_from(port).ok());
        let (Some(source), Some(destination)) = (port("Src Port: "), port("Dst Port: ")) else { return };
        let (sequence, acknowledgement, payload) = (value("Seq: "), value("Ack: "), value("Len: "));
        let is_inner = self.about.is_some();
        let ends = self.ends();
        if ends.has_tcp && !is_inner {
            return;
        }
        let flags = if acknowledgement.is_some() { Flags::ACK } else { 0 };
        ends.has_tcp = true;
        ends.tcp = Info { source, destination, flags, sequence, acknowledgement, payload, ..Info::default() };
    }

    fn value(&mut self, name: &str, value: &str) {
        let first = value.split([' ', ',']).next().unwrap_or_default();
        match name.trim_start_matches('[') {
            "Epoch Time" | "Epoch Arrival Time" => {
                self.stamp = moment::seconds(first).map(Stamp::Epoch).or(self.stamp);
            }
            "Interface name" => self.interface = Some(Arc::from(first)),
            "Identification" if self.about.is_none() => {
                let hex = first.strip_prefix("0x").and_then(|hex| u16::from_str_radix(hex, 16).ok());
                self.ip_id = hex.or(self.ip_id);
            }
            "Window" | "Window size value" if self.about.is_none() => {
                self.ends.tcp.window = first.parse().ok().or(self.ends.tcp.window);
            }
            "Code" if self.about.is_some() => self.icmp_code = first.parse().ok().or(self.icmp_code),
            "Sequence Number (raw)" | "Sequence number (raw)" => {
                self.ends().raw_sequence = first.parse().ok();
            }
            "Acknowledgment Number (raw)" | "Acknowledgment number (raw)" => {
                self.ends().raw_acknowledgement = first.parse().ok();
            }
            "Flags" if self.ends().has_tcp => {
                let hex = first.strip_prefix("0x").and_then(|hex| u16::from_str_radix(hex, 16).ok());
                if let Some(flags) = hex {
                    let [_, flags] = flags.to_be_bytes();
                    self.ends().tcp.flags = flags;
                }
            }
            _ => {}
        }
    }
}

/// Lines of a payload may begin with a number too.
fn is_packet(row: &row::Row<'_>) -> bool {
    let is_address = |word: &str| word.parse::<IpAddr>().is_ok();
    is_address(row.source) && is_address(row.destination)
        || row.protocol == "TCP" && row::info(row.info).is_some()
}

/// Whether a line, by itself, begins the details of a packet: for telling kinds of files apart.
pub(super) fn is_frame(line: &str) -> bool {
    frame_number(line.trim()).is_some()
}

/// `Frame 649: 66 bytes on wire …`
fn frame_number(text: &str) -> Option<u64> {
    let (number, rest) = text
        .strip_prefix("Frame ")?
        .split_once(':')
        .or_else(|| text.strip_prefix("Frame ")?.split_once(' ').filter(|(_, rest)| rest.starts_with('(')))?;
    rest.contains("bytes on wire").then(|| number.parse().ok())?
}
