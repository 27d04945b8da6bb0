//! What a frame says about TCP: through VLAN tags, tunnels (IP in IP, GRE, VXLAN, Geneve) and cut ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::link::{IPV4, IPV6, LinkType, double, strip, untag, word};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Tunnels in tunnels that are followed.
const MAX_DEPTH: u8 = 6;

/// TCP flags (RFC 9293, section 3.1), as they stand in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;

    /// SYN without ACK or RST: the first packet of a connect.
    pub const fn is_syn(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST) == Self::SYN
    }

    /// SYN and ACK without RST: the answer to it.
    pub const fn is_syn_ack(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST) == Self::SYN | Self::ACK
    }

    /// ACK.
    pub const fn has_ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// RST.
    pub const fn is_rst(self) -> bool {
        self.0 & Self::RST != 0
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number; means something only with ACK set.
    pub acknowledgement: u32,
    /// Flags.
    pub flags: Flags,
    /// Window, if it was captured.
    pub window: Option<u16>,
    /// Bytes of payload on the wire; `None` where the packet does not tell (segmentation offload writes length 0).
    pub payload: Option<u32>,
    /// Identification field of the IPv4 header.
    pub ip_id: Option<u16>,
    /// TSval of the timestamp option (RFC 7323), if it was captured.
    pub timestamp: Option<u32>,
    /// How many tunnels it was in.
    pub depth: u8,
}

/// ICMP destination unreachable about a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Who says so.
    pub from: IpAddr,
    /// To whom: the sender of the segment.
    pub to: IpAddr,
    /// ICMP code (RFC 792), ICMPv6's (RFC 4443) for IPv6: port unreachable is 3 and 4.
    pub code: u8,
    /// Sender of the segment.
    pub source: SocketAddr,
    /// Receiver of the segment.
    pub destination: SocketAddr,
    /// Its sequence number.
    pub sequence: u32,
}

impl Unreachable {
    /// Whether it says port unreachable.
    pub const fn is_port(&self) -> bool {
        matches!((self.from, self.code), (IpAddr::V4(_), 3) | (IpAddr::V6(_), 4))
    }
}

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// TCP.
    Tcp(Segment),
    /// ICMP destination unreachable about TCP.
    Unreachable(Unreachable),
    /// Anything else.
    Other,
}

/// Why a frame could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Undecoded {
    /// The link type is none of those that can be read. Never the same as "nothing found".
    LinkType,
    /// The frame was cut before what matters: too small a snap length.
    Cut,
    /// A later fragment of an IP packet: it has no TCP header.
    Fragment,
    /// Headers contradict themselves.
    Malformed,
}

/// Reads a frame.
pub fn decode(link: LinkType, bytes: &[u8]) -> Result<Decoded, Undecoded> {
    if link.name().is_none() {
        return Err(Undecoded::LinkType);
    }
    let (kind, rest) = strip(link, bytes).ok_or(Undecoded::Cut)?;
    let mut layer = Layer::Ethernet(kind, rest);
    for depth in 0..=MAX_DEPTH {
        let packet = match layer {
            Layer::Ethernet(kind, rest) => {
                let (kind, rest) = untag(kind, rest).ok_or(Undecoded::Cut)?;
                match kind {
                    IPV4 => Packet::v4(rest)?,
                    IPV6 => Packet::v6(rest)?,
                    _ => return Ok(Decoded::Other),
                }
            }
            Layer::Frame(frame) => {
                let (kind, rest) = strip(LinkType::ETHERNET, frame).ok_or(Undecoded::Cut)?;
                layer = Layer::Ethernet(kind, rest);
                continue;
            }
        };
        match packet.protocol {
            TCP => return packet.tcp(depth).map(Decoded::Tcp),
            1 | 58 => return Ok(packet.unreachable().map_or(Decoded::Other, Decoded::Unreachable)),
            _ => {}
        }
        match packet.tunnel()? {
            Some(inner) => layer = inner,
            None => return Ok(Decoded::Other),
        }
    }
    Ok(Decoded::Other)
}

/// What is to be read next.
enum Layer<'a> {
    /// Ethernet type and what it names.
    Ethernet(u16, &'a [u8]),
    /// A whole Ethernet frame.
    Frame(&'a [u8]),
}

/// An IP packet without its headers.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: Option<u16>,
    /// Length of the payload as the header says; `None` if it says 0.
    length: Option<u32>,
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    fn v4(bytes: &'a [u8]) -> Result<Self, Undecoded> {
        let header: &[u8; 20] = bytes.first_chunk().ok_or(Undecoded::Cut)?;
        let [first, _, l0, l1, i0, i1, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        let header_length = usize::from(first & 15) * 4;
        if first >> 4 != 4 || header_length < 20 {
            return Err(Undecoded::Malformed);
        }
        if u16::from_be_bytes([f0, f1]) & 0x1fff != 0 {
            return Err(Undecoded::Fragment);
        }
        let total = usize::from(u16::from_be_bytes([l0, l1]));
        // Padding after a short packet is none of it. Length 0 is a packet before segmentation offload.
        let whole = bytes.get(..total).filter(|_| total != 0).unwrap_or(bytes);
        let length =
            (total >= header_length).then(|| total - header_length).and_then(|n| u32::try_from(n).ok());
        Ok(Self {
            source: Ipv4Addr::new(s0, s1, s2, s3).into(),
            destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
            protocol,
            id: Some(u16::from_be_bytes([i0, i1])),
            length,
            payload: whole.get(header_length..).ok_or(Undecoded::Cut)?,
        })
    }

    fn v6(bytes: &'a [u8]) -> Result<Self, Undecoded> {
        let header: &[u8; 40] = bytes.first_chunk().ok_or(Undecoded::Cut)?;
        let [first, _, _, _, l0, l1, next, _, addresses @ ..] = header;
        if first >> 4 != 6 {
            return Err(Undecoded::Malformed);
        }
        let total = usize::from(u16::from_be_bytes([*l0, *l1]));
        let rest = bytes.get(40..).unwrap_or_default();
        let whole = rest.get(..total).filter(|_| total != 0).unwrap_or(rest);
        let (protocol, payload) = extensions(*next, whole)?;
        let skipped = whole.len() - payload.len();
        let length = (total != 0).then(|| total.saturating_sub(skipped)).and_then(|n| u32::try_from(n).ok());
        let address = |at: usize| -> Option<IpAddr> {
            let bytes: [u8; 16] = *addresses.get(at..)?.first_chunk()?;
            Some(Ipv6Addr::from(bytes).into())
        };
        Ok(Self {
            source: address(0).ok_or(Undecoded::Cut)?,
            destination: address(16).ok_or(Undecoded::Cut)?,
            protocol,
            id: None,
            length,
            payload,
        })
    }

    fn tcp(&self, depth: u8) -> Result<Segment, Undecoded> {
        let bytes = self.payload;
        // Up to and including the flags; what comes after may be cut.
        let header: &[u8; 14] = bytes.first_chunk().ok_or(Undecoded::Cut)?;
        let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, data_offset, flags] = *header;
        let header_length = u32::from(data_offset >> 4) * 4;
        if header_length < 20 {
            return Err(Undecoded::Malformed);
        }
        let options = bytes.get(20..).map(|rest| rest.get(..header_length as usize - 20).unwrap_or(rest));
        Ok(Segment {
            source: SocketAddr::new(self.source, u16::from_be_bytes([s0, s1])),
            destination: SocketAddr::new(self.destination, u16::from_be_bytes([d0, d1])),
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
            acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
            flags: Flags(flags),
            window: word(bytes, 14),
            payload: self.length.and_then(|length| length.checked_sub(header_length)),
            ip_id: self.id,
            timestamp: options.and_then(timestamp),
            depth,
        })
    }

    /// The segment in an ICMP destination unreachable: its header and at least eight bytes more.
    fn unreachable(&self) -> Option<Unreachable> {
        let (kind, code) = (*self.payload.first()?, *self.payload.get(1)?);
        let inner = self.payload.get(8..)?;
        let inner = match (self.protocol, kind) {
            (1, 3) => Packet::v4(inner).ok()?,
            (58, 1) => Packet::v6(inner).ok()?,
            _ => return None,
        };
        if inner.protocol != TCP {
            return None;
        }
        Some(Unreachable {
            from: self.source,
            to: self.destination,
            code,
            source: SocketAddr::new(inner.source, word(inner.payload, 0)?),
            destination: SocketAddr::new(inner.destination, word(inner.payload, 2)?),
            sequence: double(inner.payload, 4)?,
        })
    }

    /// What is inside, if this is a tunnel's packet.
    fn tunnel(&self) -> Result<Option<Layer<'a>>, Undecoded> {
        match self.protocol {
            4 => Ok(Some(Layer::Ethernet(IPV4, self.payload))),
            41 => Ok(Some(Layer::Ethernet(IPV6, self.payload))),
            47 => gre(self.payload).map(Some).ok_or(Undecoded::Cut),
            UDP => {
                let Some(port) = word(self.payload, 2) else { return Err(Undecoded::Cut) };
                let inside = self.payload.get(8..).unwrap_or_default();
                match port {
                    // IANA's port of VXLAN (RFC 7348), and the one that Linux and flannel used before.
                    4789 | 8472 => {
                        inside.get(8..).map(|frame| Some(Layer::Frame(frame))).ok_or(Undecoded::Cut)
                    }
                    6081 => geneve(inside).map(Some).ok_or(Undecoded::Cut),
                    _ => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }
}

/// Steps over extension headers (RFC 8200, section 4).
fn extensions(mut next: u8, mut bytes: &[u8]) -> Result<(u8, &[u8]), Undecoded> {
    // A packet without an end would be made on purpose; real ones have two or three.
    for _ in 0..16 {
        let length = match next {
            0 | 43 | 60 => (usize::from(*bytes.get(1).ok_or(Undecoded::Cut)?) + 1) * 8,
            51 => (usize::from(*bytes.get(1).ok_or(Undecoded::Cut)?) + 2) * 4,
            44 => {
                if word(bytes, 2).ok_or(Undecoded::Cut)? & 0xfff8 != 0 {
                    return Err(Undecoded::Fragment);
                }
                8
            }
            _ => return Ok((next, bytes)),
        };
        next = *bytes.first().ok_or(Undecoded::Cut)?;
        bytes = bytes.get(length..).ok_or(Undecoded::Cut)?;
    }
    Err(Undecoded::Malformed)
}

/// GRE (RFC 2784, with the key and sequence number of RFC 2890).
fn gre(bytes: &[u8]) -> Option<Layer<'_>> {
    let flags = word(bytes, 0)?;
    let optional = [0x8000, 0x2000, 0x1000].iter().filter(|bit| flags & *bit != 0).count();
    let inside = bytes.get(4 + optional * 4..)?;
    Some(match word(bytes, 2)? {
        0x6558 => Layer::Frame(inside),
        kind => Layer::Ethernet(kind, inside),
    })
}

/// Geneve (RFC 8926).
fn geneve(bytes: &[u8]) -> Option<Layer<'_>> {
    let options = usize::from(*bytes.first()? & 0x3f) * 4;
    let inside = bytes.get(8 + options..)?;
    Some(match word(bytes, 2)? {
        0x6558 => Layer::Frame(inside),
        kind => Layer::Ethernet(kind, inside),
    })
}

/// TSval of the timestamp option among the TCP options.
fn timestamp(mut options: &[u8]) -> Option<u32> {
    loop {
        match *options.first()? {
            0 => return None,
            1 => options = options.get(1..)?,
            8 => return double(options, 2),
            _ => options = options.get(usize::from(*options.get(1)?).max(2)..)?,
        }
    }
}
