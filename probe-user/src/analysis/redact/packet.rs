//! Makes a captured frame safe in place: addresses of all layers, also in tunnels and in what ICMP quotes, get theirs,
//! options that can hold addresses or data are blanked, and everything after the TCP header is cut off. Checksums are
//! adjusted by the difference (RFC 1624), so that one that was right stays right and one that was wrong stays wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::addresses::Addresses;
use crate::capture::LinkType;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const BRIDGED: u16 = 0x6558;
/// Tunnels in tunnels that are followed.
const MAX_DEPTH: u8 = 6;
/// TCP options that say nothing about anybody: end, no-op, MSS, window scale, SACK, timestamps.
const TCP_OPTIONS: [u8; 7] = [0, 1, 2, 3, 4, 5, 8];
const NO_OP: u8 = 1;

/// How many bytes are to be kept; `None` if the frame holds something that is not understood to its end.
pub(super) fn rewrite(bytes: &mut [u8], link: LinkType, addresses: &mut Addresses) -> Option<usize> {
    let mut frame = Frame { bytes, addresses };
    match link {
        LinkType::ETHERNET => frame.ethernet(0, 0),
        LinkType::SLL => {
            frame.mac(6)?;
            frame.fill(12, 14, 0)?;
            let kind = frame.word(14)?;
            frame.tagged(16, kind, 0)
        }
        LinkType::SLL2 => {
            frame.mac(12)?;
            frame.fill(18, 20, 0)?;
            let kind = frame.word(0)?;
            frame.tagged(20, kind, 0)
        }
        LinkType::NULL | LinkType::LOOP => frame.by_version(4),
        link if link.name().is_some() => frame.by_version(0),
        _ => None,
    }
}

struct Frame<'a> {
    bytes: &'a mut [u8],
    addresses: &'a mut Addresses,
}

/// Sums of the addresses that checksums of upper layers take in: before and after.
#[derive(Clone, Copy, Default)]
struct Pseudo {
    before: u32,
    after: u32,
}

/// Where a packet's payload is, and what it is.
struct Inside {
    protocol: u8,
    at: usize,
    end: usize,
    pseudo: Pseudo,
}

impl Frame<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn word(&self, at: usize) -> Option<u16> {
        self.bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    fn set_word(&mut self, at: usize, word: u16) -> Option<()> {
        *self.bytes.get_mut(at..)?.first_chunk_mut()? = word.to_be_bytes();
        Some(())
    }

    fn fill(&mut self, from: usize, to: usize, byte: u8) -> Option<()> {
        self.bytes.get_mut(from..to)?.fill(byte);
        Some(())
    }

    fn sum(&self, from: usize, to: usize) -> Option<u32> {
        Some(sum(self.bytes.get(from..to)?))
    }

    /// Brings a checksum from what it covered before to what it covers now.
    fn adjust(&mut self, at: usize, before: u32, after: u32) -> Option<()> {
        let old = u32::from(!self.word(at)?);
        let new = !fold(old + u32::from(!fold(before)) + u32::from(fold(after)));
        self.set_word(at, new)
    }

    fn mac(&mut self, at: usize) -> Option<()> {
        let mac: [u8; 6] = *self.bytes.get(at..)?.first_chunk()?;
        *self.bytes.get_mut(at..)?.first_chunk_mut()? = self.addresses.mac(mac);
        Some(())
    }

    fn ethernet(&mut self, at: usize, depth: u8) -> Option<usize> {
        self.mac(at)?;
        self.mac(at + 6)?;
        let kind = self.word(at + 12)?;
        self.tagged(at + 14, kind, depth)
    }

    fn by_version(&mut self, at: usize) -> Option<usize> {
        match self.byte(at)? >> 4 {
            4 => self.tagged(at, IPV4, 0),
            6 => self.tagged(at, IPV6, 0),
            _ => None,
        }
    }

    /// A packet, perhaps after VLAN tags.
    fn tagged(&mut self, mut at: usize, mut kind: u16, depth: u8) -> Option<usize> {
        while matches!(kind, 0x8100 | 0x88a8 | 0x9100) {
            kind = self.word(at + 2)?;
            at += 4;
        }
        if depth > MAX_DEPTH {
            return None;
        }
        let inside = match kind {
            IPV4 => self.v4(at)?,
            IPV6 => self.v6(at)?,
            _ => return None,
        };
        self.payload(&inside, kind, depth)
    }

    fn payload(&mut self, inside: &Inside, kind: u16, depth: u8) -> Option<usize> {
        match (inside.protocol, kind) {
            (6, _) => self.tcp(inside, 14),
            (1, IPV4) | (58, IPV6) => self.unreachable(inside, kind),
            (17, _) => self.udp(inside, depth),
            (4, _) => self.tagged(inside.at, IPV4, depth + 1),
            (41, _) => self.tagged(inside.at, IPV6, depth + 1),
            (47, _) => self.gre(inside, depth),
            _ => None,
        }
    }

    fn v4(&mut self, at: usize) -> Option<Inside> {
        let first = self.byte(at)?;
        let length = usize::from(first & 15) * 4;
        // Later fragments have payload where the TCP header would be.
        if first >> 4 != 4 || length < 20 || self.word(at + 6)? & 0x1fff != 0 {
            return None;
        }
        let total = usize::from(self.word(at + 2)?);
        let before = self.sum(at, at + length)?;
        let addresses_before = self.sum(at + 12, at + 20)?;
        for place in [at + 12, at + 16] {
            let old: [u8; 4] = *self.bytes.get(place..)?.first_chunk()?;
            let IpAddr::V4(new) = self.addresses.ip(Ipv4Addr::from(old).into()) else { return None };
            *self.bytes.get_mut(place..)?.first_chunk_mut()? = new.octets();
        }
        // Record route and its like hold addresses.
        self.fill(at + 20, at + length, NO_OP)?;
        let pseudo = Pseudo { before: addresses_before, after: self.sum(at + 12, at + 20)? };
        let after = self.sum(at, at + length)?;
        self.adjust(at + 10, before, after)?;
        let end = self.end(at, total, length);
        Some(Inside { protocol: self.byte(at + 9)?, at: at + length, end, pseudo })
    }

    fn v6(&mut self, at: usize) -> Option<Inside> {
        if self.byte(at)? >> 4 != 6 {
            return None;
        }
        let total = usize::from(self.word(at + 4)?);
        let before = self.sum(at + 8, at + 40)?;
        for place in [at + 8, at + 24] {
            let old: [u8; 16] = *self.bytes.get(place..)?.first_chunk()?;
            let IpAddr::V6(new) = self.addresses.ip(Ipv6Addr::from(old).into()) else { return None };
            *self.bytes.get_mut(place..)?.first_chunk_mut()? = new.octets();
        }
        // The flow label may be made of the addresses.
        let first = self.byte(at + 1)? & 0xf0;
        self.fill(at + 1, at + 2, first)?;
        self.fill(at + 2, at + 4, 0)?;
        let pseudo = Pseudo { before, after: self.sum(at + 8, at + 40)? };
        let end = self.end(at, if total == 0 { 0 } else { total + 40 }, 40);
        match self.byte(at + 6)? {
            // The first fragment. Other extension headers can hold addresses.
            44 if self.word(at + 42)? & 0xfff8 == 0 => {
                Some(Inside { protocol: self.byte(at + 40)?, at: at + 48, end, pseudo })
            }
            protocol => Some(Inside { protocol, at: at + 40, end, pseudo }),
        }
    }

    /// Where a packet ends: as its header says, or where the frame does (length 0 is before segmentation offload).
    fn end(&self, at: usize, total: usize, header: usize) -> usize {
        if total >= header { (at + total).min(self.bytes.len()) } else { self.bytes.len() }
    }

    /// `least`: bytes of the header that must be there.
    fn tcp(&mut self, inside: &Inside, least: usize) -> Option<usize> {
        let Inside { protocol: _, at, end, pseudo } = *inside;
        if end < at + least {
            return None;
        }
        let length = if end > at + 12 { usize::from(self.byte(at + 12)? >> 4) * 4 } else { 20 };
        if length < 20 {
            return None;
        }
        let stop = (at + length).min(end);
        let before = self.sum(at, stop)?;
        self.blank_options(at + 20, stop)?;
        let after = self.sum(at, stop)?;
        if stop >= at + 18 {
            self.adjust(at + 16, before + pseudo.before, after + pseudo.after)?;
        }
        Some(stop)
    }

    fn blank_options(&mut self, mut at: usize, stop: usize) -> Option<()> {
        while at < stop {
            let kind = self.byte(at)?;
            let length = match kind {
                0 => {
                    self.fill(at, stop, 0)?;
                    return Some(());
                }
                1 => 1,
                _ => usize::from(self.byte(at + 1).filter(|_| at + 1 < stop).unwrap_or(0)),
            };
            // An option that contradicts itself, or is cut.
            let next = if kind != 1 && (length < 2 || at + length > stop) { stop } else { at + length };
            if !TCP_OPTIONS.contains(&kind) || (next == stop && at + length != stop) {
                self.fill(at, next, NO_OP)?;
            }
            at = next;
        }
        Some(())
    }

    /// ICMP destination unreachable about a TCP segment.
    fn unreachable(&mut self, outer: &Inside, kind: u16) -> Option<usize> {
        let at = outer.at;
        if !matches!((kind, self.byte(at)?), (IPV4, 3) | (IPV6, 1)) {
            return None;
        }
        let before = self.sum(at, outer.end)?;
        let inside = if kind == IPV4 { self.v4(at + 8)? } else { self.v6(at + 8)? };
        if inside.protocol != 6 {
            return None;
        }
        let inside = Inside { end: inside.end.min(outer.end), ..inside };
        // Ports and sequence number are all that must be quoted.
        let stop = self.tcp(&inside, 8)?;
        let after = self.sum(at, outer.end)?;
        let pseudo = if kind == IPV6 { outer.pseudo } else { Pseudo::default() };
        self.adjust(at + 2, before + pseudo.before, after + pseudo.after)?;
        Some(stop)
    }

    fn udp(&mut self, inside: &Inside, depth: u8) -> Option<usize> {
        let at = inside.at;
        let port = self.word(at + 2)?;
        // None, as tunnels may have it (RFC 6935).
        self.set_word(at + 6, 0)?;
        match port {
            4789 | 8472 => self.ethernet(at + 16, depth + 1),
            6081 => {
                let options = usize::from(self.byte(at + 8)? & 0x3f) * 4;
                let kind = self.word(at + 10)?;
                self.fill(at + 16, at + 16 + options, 0)?;
                self.inner(at + 16 + options, kind, depth)
            }
            _ => None,
        }
    }

    fn gre(&mut self, inside: &Inside, depth: u8) -> Option<usize> {
        let (at, end) = (inside.at, inside.end);
        let (flags, kind) = (self.word(at)?, self.word(at + 2)?);
        let optional = [0x8000, 0x2000, 0x1000].iter().filter(|bit| flags & *bit != 0).count();
        let before = self.sum(at, end)?;
        let stop = self.inner(at + 4 + optional * 4, kind, depth)?;
        let after = self.sum(at, end)?;
        if flags & 0x8000 != 0 {
            self.adjust(at + 4, before, after)?;
        }
        Some(stop)
    }

    fn inner(&mut self, at: usize, kind: u16, depth: u8) -> Option<usize> {
        if kind == BRIDGED { self.ethernet(at, depth + 1) } else { self.tagged(at, kind, depth + 1) }
    }
}

/// Sum of 16-bit words in network byte order; a last odd byte counts as if a zero followed.
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    };
    // At most 64 KiB of words: no overflow.
    bytes.chunks(2).map(word).fold(0, |all, word| u32::from(fold(all + word)))
}

/// One's complement: carries come back in.
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
