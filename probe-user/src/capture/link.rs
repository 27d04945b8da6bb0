//! From the first header of a frame to the network layer, by link type.

use std::fmt;

/// Ethernet type of IPv4.
pub(super) const IPV4: u16 = 0x0800;
/// Ethernet type of IPv6.
pub(super) const IPV6: u16 = 0x86dd;

/// Link type of a capture, with libpcap's `LINKTYPE_` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkType(pub u32);

impl LinkType {
    /// BSD loopback, address family in the byte order of the capturing machine.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// IPv4 or IPv6 without a header before it.
    pub const RAW: Self = Self(101);
    /// OpenBSD loopback, address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux "cooked" capture: what `-i any` gave before libpcap 1.10.
    pub const SLL: Self = Self(113);
    /// IPv4 only.
    pub const IPV4: Self = Self(228);
    /// IPv6 only.
    pub const IPV6: Self = Self(229);
    /// Linux "cooked" capture, version 2: what `-i any` gives now.
    pub const SLL2: Self = Self(276);

    /// Its usual name, if it is one of those that can be read.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::NULL => "NULL",
            Self::ETHERNET => "Ethernet",
            Self::RAW | Self(12 | 14) => "RAW",
            Self::LOOP => "LOOP",
            Self::SLL => "SLL",
            Self::IPV4 => "IPV4",
            Self::IPV6 => "IPV6",
            Self::SLL2 => "SLL2",
            _ => return None,
        })
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "link type {}", self.0),
        }
    }
}

/// Ethernet type and what comes after the header. `None` if the frame is too short or the link type is unknown.
pub(super) fn strip(link: LinkType, bytes: &[u8]) -> Option<(u16, &[u8])> {
    match link {
        LinkType::ETHERNET => Some((word(bytes, 12)?, bytes.get(14..)?)),
        LinkType::SLL => Some((word(bytes, 14)?, bytes.get(16..)?)),
        LinkType::SLL2 => Some((word(bytes, 0)?, bytes.get(20..)?)),
        LinkType::NULL | LinkType::LOOP => {
            // The header's byte order does not matter: what follows says itself what it is.
            by_version(bytes.get(4..)?)
        }
        _ => by_version(bytes),
    }
}

fn by_version(bytes: &[u8]) -> Option<(u16, &[u8])> {
    match bytes.first()? >> 4 {
        4 => Some((IPV4, bytes)),
        6 => Some((IPV6, bytes)),
        _ => Some((0, bytes)),
    }
}

/// Takes off VLAN tags, however many: 802.1Q, 802.1ad and the older 0x9100.
pub(super) fn untag(mut kind: u16, mut bytes: &[u8]) -> Option<(u16, &[u8])> {
    while matches!(kind, 0x8100 | 0x88a8 | 0x9100) {
        kind = word(bytes, 2)?;
        bytes = bytes.get(4..)?;
    }
    Some((kind, bytes))
}

/// A number of two bytes in network byte order.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// A number of four bytes in network byte order.
pub(super) fn double(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}
