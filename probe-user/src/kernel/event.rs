//! Records of the ring buffer, decoded.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::Buf;
use probe_ebpf::{EVENT_SIZE, Event, Kind};

/// A record that is not an event of this version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Wrong length.
    #[error("ring buffer record of {0} bytes, expected {1}")]
    Length(usize, usize),
    /// Unknown kind.
    #[error("ring buffer record of unknown kind {0}")]
    Kind(u32),
    /// A packet that neither came nor went.
    #[error("ring buffer record of a packet with unknown direction {0}")]
    Direction(u32),
}

/// Decodes one record.
pub fn decode(record: &[u8]) -> Result<(Kind, Event), DecodeError> {
    if record.len() != EVENT_SIZE {
        return Err(DecodeError::Length(record.len(), EVENT_SIZE));
    }
    // Fields in the order of the struct; the length was checked, so none of the reads can run out.
    let mut bytes = record;
    let event = Event {
        at_ns: bytes.get_u64_ne(),
        sock: bytes.get_u64_ne(),
        cgroup_id: bytes.get_u64_ne(),
        start_ns: bytes.get_u64_ne(),
        kind: bytes.get_u32_ne(),
        netns: bytes.get_u32_ne(),
        pid: bytes.get_u32_ne(),
        seq: bytes.get_u32_ne(),
        code: bytes.get_i32_ne(),
        aux: bytes.get_i32_ne(),
        local: array(&mut bytes),
        remote: array(&mut bytes),
        backend: array(&mut bytes),
        local_port: bytes.get_u16_ne(),
        remote_port: bytes.get_u16_ne(),
        backend_port: bytes.get_u16_ne(),
        cmdline_len: bytes.get_u16_ne(),
        comm: array(&mut bytes),
        cmdline: array(&mut bytes),
    };
    let kind = Kind::from_wire(event.kind).ok_or(DecodeError::Kind(event.kind))?;
    Ok((kind, event))
}

pub(super) fn array<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let mut array = [0; N];
    bytes.copy_to_slice(&mut array);
    array
}

/// Address and port from the wire form (v4-mapped means IPv4).
pub fn socket_address(address: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address)).to_canonical(), port)
}

/// Text of a NUL-padded task name; `None` if empty.
pub fn comm_text(comm: &[u8]) -> Option<String> {
    let text: Vec<u8> = comm.iter().copied().take_while(|&byte| byte != 0).collect();
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_lengths_and_kinds_are_refused() {
        assert_eq!(decode(&[0; 10]).err(), Some(DecodeError::Length(10, EVENT_SIZE)));
        assert_eq!(decode(&[0; EVENT_SIZE]).err(), Some(DecodeError::Kind(0)));
        let mut record = [0; EVENT_SIZE];
        record[32] = 3;
        record[383] = 7;
        let (kind, event) = decode(&record).ok().unwrap();
        assert_eq!((kind, event.cmdline[255]), (Kind::Reset, 7));
    }

    #[test]
    fn v4_mapped_is_ipv4() {
        assert_eq!(socket_address(probe_ebpf::v4_mapped([10, 0, 0, 1]), 80).to_string(), "10.0.0.1:80");
        let mut v6 = [0; 16];
        v6[15] = 1;
        assert_eq!(socket_address(v6, 80).to_string(), "[::1]:80");
    }
}
