//! The messages of the generic netlink family "IPVS" (include/uapi/linux/ip_vs.h): requests out, services and
//! backends in. Pure: no socket here.
//!
//! Numbers are in host byte order, ports in network byte order; addresses are 16 bytes of which IPv4 uses the
//! first four.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{DecodeError, Emitable, NlasIterator, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use super::table::{Backend, Forward, Protocol, Service, ServiceId, canonical};

pub(super) const GET_SERVICE: u8 = 4;
pub(super) const GET_DEST: u8 = 8;
const ATTR_SERVICE: u16 = 1;
const ATTR_DEST: u16 = 2;
const NESTED: u16 = netlink_packet_core::NLA_F_NESTED;

const SVC_AF: u16 = 1;
const SVC_PROTOCOL: u16 = 2;
const SVC_ADDR: u16 = 3;
const SVC_PORT: u16 = 4;
const SVC_FWMARK: u16 = 5;
const SVC_SCHED: u16 = 6;
const SVC_FLAGS: u16 = 7;
const SVC_TIMEOUT: u16 = 8;

const DEST_ADDR: u16 = 1;
const DEST_PORT: u16 = 2;
const DEST_FORWARD: u16 = 3;
const DEST_WEIGHT: u16 = 4;
const DEST_FAMILY: u16 = 11;

const FLAG_PERSISTENT: u32 = 1;
const FLAG_ONE_PACKET: u32 = 4;
/// The part of the forwarding method that names the method (`IP_VS_CONN_F_FWD_MASK`).
const FORWARD_MASK: u32 = 7;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A generic netlink message whose attributes stay bytes, so that one strange service never fails a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Command of the family.
    pub command: u8,
    /// Version of the family.
    pub version: u8,
    /// The attributes.
    pub attributes: Vec<u8>,
}

impl GenlFamily for Raw {
    fn family_name() -> &'static str {
        "IPVS"
    }
    fn command(&self) -> u8 {
        self.command
    }
    fn version(&self) -> u8 {
        self.version
    }
}

impl Emitable for Raw {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }
    fn emit(&self, buffer: &mut [u8]) {
        for (to, from) in buffer.iter_mut().zip(&self.attributes) {
            *to = *from;
        }
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Raw {
    fn parse_with_param(buffer: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self { command: header.cmd, version: header.version, attributes: buffer.to_vec() })
    }
}

/// Appends one attribute, padded to four bytes.
pub(super) fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The attributes of a GET_DEST request: which service's backends to dump.
pub(super) fn backends_of(id: ServiceId) -> Vec<u8> {
    let mut service = Vec::new();
    match id {
        ServiceId::Mark { mark, ipv6 } => {
            put(&mut service, SVC_AF, &if ipv6 { AF_INET6 } else { AF_INET }.to_ne_bytes());
            put(&mut service, SVC_FWMARK, &mark.to_ne_bytes());
        }
        ServiceId::Address(protocol, address) => {
            let (family, ip) = match address.ip() {
                IpAddr::V4(ip) => (AF_INET, u128::from(ip.to_bits()) << 96),
                IpAddr::V6(ip) => (AF_INET6, ip.to_bits()),
            };
            put(&mut service, SVC_AF, &family.to_ne_bytes());
            put(&mut service, SVC_PROTOCOL, &protocol_number(protocol).to_ne_bytes());
            put(&mut service, SVC_ADDR, &ip.to_be_bytes());
            put(&mut service, SVC_PORT, &address.port().to_be_bytes());
        }
    }
    let mut out = Vec::new();
    put(&mut out, ATTR_SERVICE | NESTED, &service);
    out
}

fn protocol_number(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// Reads the attributes of one answer to GET_SERVICE; the backends come separately.
pub fn parse_service(attributes: &[u8]) -> Result<Service, String> {
    let nest = nested(attributes, ATTR_SERVICE, "service")?;
    let (mut family, mut protocol, mut ip, mut port, mut mark) = (None, None, None, None, None);
    let (mut scheduler, mut flags, mut timeout) = (None, 0, 0);
    for attribute in NlasIterator::new(nest) {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.value();
        match attribute.kind() {
            SVC_AF => family = Some(u16::from_ne_bytes(bytes(value, "address family")?)),
            SVC_PROTOCOL => protocol = Some(u16::from_ne_bytes(bytes(value, "protocol")?)),
            SVC_ADDR => ip = Some(bytes::<16>(value, "address")?),
            SVC_PORT => port = Some(u16::from_be_bytes(bytes(value, "port")?)),
            SVC_FWMARK => mark = Some(u32::from_ne_bytes(bytes(value, "mark")?)),
            SVC_SCHED => scheduler = Some(text(value)),
            SVC_FLAGS => flags = u32::from_ne_bytes(bytes(value, "flags")?),
            SVC_TIMEOUT => timeout = u32::from_ne_bytes(bytes(value, "timeout")?),
            _ => {}
        }
    }
    let family = family.ok_or("no address family")?;
    let id = if let Some(mark) = mark {
        ServiceId::Mark { mark, ipv6: is_ipv6(family)? }
    } else {
        let protocol = match protocol.ok_or("no protocol and no mark")? {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            other => return Err(format!("unknown protocol {other}")),
        };
        let address = socket_address(family, ip.ok_or("no address")?, port.ok_or("no port")?)?;
        ServiceId::Address(protocol, address)
    };
    Ok(Service {
        id,
        scheduler: scheduler.filter(|name| name != "none").map(Into::into),
        persistent_s: (flags & FLAG_PERSISTENT != 0).then_some(timeout),
        one_packet: flags & FLAG_ONE_PACKET != 0,
        backends: Vec::new(),
    })
}

/// Reads the attributes of one answer to GET_DEST about `service`.
pub fn parse_backend(attributes: &[u8], service: ServiceId) -> Result<Backend, String> {
    let nest = nested(attributes, ATTR_DEST, "backend")?;
    // Kernels before 3.18 do not say the family: it is the service's.
    let mut family = match service {
        ServiceId::Address(_, address) if address.is_ipv4() => AF_INET,
        ServiceId::Mark { ipv6: false, .. } => AF_INET,
        _ => AF_INET6,
    };
    let (mut ip, mut port, mut forward, mut weight) = (None, None, None, None);
    for attribute in NlasIterator::new(nest) {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.value();
        match attribute.kind() {
            DEST_FAMILY => family = u16::from_ne_bytes(bytes(value, "address family")?),
            DEST_ADDR => ip = Some(bytes::<16>(value, "address")?),
            DEST_PORT => port = Some(u16::from_be_bytes(bytes(value, "port")?)),
            DEST_FORWARD => forward = Some(u32::from_ne_bytes(bytes(value, "forwarding method")?)),
            DEST_WEIGHT => weight = Some(u32::from_ne_bytes(bytes(value, "weight")?)),
            _ => {}
        }
    }
    let forward = match forward.ok_or("no forwarding method")? & FORWARD_MASK {
        0 => Forward::Masq,
        1 => Forward::Local,
        2 => Forward::Tunnel,
        3 => Forward::Route,
        4 => Forward::Bypass,
        other => return Err(format!("unknown forwarding method {other}")),
    };
    Ok(Backend {
        address: socket_address(family, ip.ok_or("no address")?, port.ok_or("no port")?)?,
        forward,
        weight: weight.ok_or("no weight")?,
    })
}

fn nested<'a>(attributes: &'a [u8], kind: u16, name: &str) -> Result<&'a [u8], String> {
    let mut found = None;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|error| error.to_string())?;
        if attribute.kind() == kind {
            let length = attribute.value_length();
            found = attribute.into_inner().get(4..4 + length);
        }
    }
    found.ok_or_else(|| format!("the message holds no {name}"))
}

fn is_ipv6(family: u16) -> Result<bool, String> {
    match family {
        AF_INET => Ok(false),
        AF_INET6 => Ok(true),
        other => Err(format!("unknown address family {other}")),
    }
}

fn socket_address(family: u16, ip: [u8; 16], port: u16) -> Result<SocketAddr, String> {
    let bits = u128::from_be_bytes(ip);
    let ip = if is_ipv6(family)? {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    } else {
        let [a, b, c, d, ..] = ip;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    Ok(canonical(SocketAddr::new(ip, port)))
}

/// The first `N` bytes of an attribute; later kernels may append to it.
fn bytes<const N: usize>(value: &[u8], what: &str) -> Result<[u8; N], String> {
    value.first_chunk().copied().ok_or_else(|| format!("{what} has {} bytes instead of {N}", value.len()))
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or(value)).into_owned()
}

#[cfg(test)]
#[path = "netlink_wire_tests.rs"]
mod tests;
