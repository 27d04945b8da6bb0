//! A quick look at the frames that most captures consist of: TCP over IP over Ethernet.

use super::link::{LinkType, word};
use super::packet::Flags;

/// What a quick look shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// SYN or RST is set.
    pub opens: bool,
    /// TCP source port.
    pub source_port: u16,
}

/// Looks at a TCP segment over IPv4 or IPv6 without tags, tunnels, extension headers and fragments; `None` for all else,
/// which [`super::decode`] then reads.
#[inline]
pub fn glance(link: LinkType, bytes: &[u8]) -> Option<Glance> {
    if link != LinkType::ETHERNET {
        return None;
    }
    let (kind, ip) = (word(bytes, 12)?, bytes.get(14..)?);
    let tcp = match kind {
        0x0800 => {
            let header: &[u8; 20] = ip.first_chunk()?;
            let [first, _, _, _, _, _, f0, f1, _, protocol, ..] = *header;
            if first >> 4 != 4 || protocol != 6 || (f0 & 0x1f) | f1 != 0 {
                return None;
            }
            ip.get(usize::from(first & 15) * 4..)?
        }
        0x86dd => {
            let header: &[u8; 40] = ip.first_chunk()?;
            if header.get(6) != Some(&6) {
                return None;
            }
            ip.get(40..)?
        }
        _ => return None,
    };
    let header: &[u8; 14] = tcp.first_chunk()?;
    let [s0, s1, .., flags] = *header;
    let opens = flags & (Flags::SYN | Flags::RST) != 0;
    Some(Glance { opens, source_port: u16::from_be_bytes([s0, s1]) })
}
