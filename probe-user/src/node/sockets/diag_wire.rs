//! The bytes of `inet_diag` (include/uapi/linux/inet_diag.h): the request for one family, and its rows.
//!
//! Read here rather than by a crate: nothing is allocated per row, and one odd row does not end the dump.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};

use super::TcpState;
use super::diag::Row;
use crate::ipvs::table::canonical;

/// Type of request and answer: SOCK_DIAG_BY_FAMILY (include/uapi/linux/sock_diag.h).
pub(super) const BY_FAMILY: u16 = 20;
/// Size of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// `idiag_timer` of a socket in TIME-WAIT.
const TIMER_TIME_WAIT: u8 = 3;

/// Address family of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    /// Also v4-mapped.
    V6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// `struct inet_diag_req_v2` without a filter but the states.
#[derive(Debug)]
struct Request {
    family: Family,
    states: u32,
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        REQUEST
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
        let head = [self.family.number(), 6, 0, 0].into_iter().chain(self.states.to_ne_bytes());
        buffer.iter_mut().zip(head).for_each(|(byte, value)| *byte = value);
    }
}

/// A whole request datagram. `states`: a bit per state.
pub(super) fn request(family: Family, states: u32, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let payload = NetlinkPayload::InnerMessage(Request { family, states });
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut out = vec![0; message.buffer_len()];
    message.serialize(&mut out);
    out
}

/// Reads `struct inet_diag_msg`; ports and addresses in it are in network byte order.
pub(super) fn row(bytes: &[u8]) -> Result<Row, String> {
    const SHORT: &str = "the row is shorter than struct inet_diag_msg";
    let number = |at: usize| u32_at(bytes, at).ok_or(SHORT);
    let [family, state, timer, _, sport @ .., d0, d1] = bytes.first_chunk::<8>().ok_or(SHORT)?;
    let ip = |at: usize| -> Result<IpAddr, String> {
        let raw: [u8; 16] = bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).ok_or(SHORT)?;
        match *family {
            2 => Ok(Ipv4Addr::new(raw[0], raw[1], raw[2], raw[3]).into()),
            10 => Ok(Ipv6Addr::from(raw).into()),
            other => Err(format!("address family {other} is neither IPv4 nor IPv6")),
        }
    };
    let local = SocketAddr::new(ip(8)?, u16::from_be_bytes(*sport));
    let remote = SocketAddr::new(ip(24)?, u16::from_be_bytes([*d0, *d1]));
    let expires_ms = number(52)?;
    Ok(Row {
        state: TcpState::from_kernel(*state).ok_or_else(|| format!("{state} is no TCP state"))?,
        local: canonical(local),
        remote: canonical(remote),
        inode: number(68)?,
        time_wait_left_ms: (*timer == TIMER_TIME_WAIT).then_some(expires_ms),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: u8, state: u8, timer: u8, local: &[u8], remote: &[u8]) -> Vec<u8> {
        let mut bytes = vec![family, state, timer, 0, 0x8f, 0x60, 0x1f, 0x90];
        for address in [local, remote] {
            bytes.extend(address);
            bytes.resize(bytes.len() + 16 - address.len(), 0);
        }
        bytes.resize(52, 0);
        bytes.extend(42_000_u32.to_ne_bytes());
        bytes.resize(68, 0);
        bytes.extend(7_u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn the_request_has_the_size_and_place_of_the_kernels() {
        let bytes = request(Family::V6, 1 << 6, 3);
        assert_eq!(bytes.len(), 16 + REQUEST);
        assert_eq!(bytes[4..8], [20, 0, 1, 3]);
        assert_eq!(bytes[16..24], [10, 6, 0, 0, 64, 0, 0, 0]);
        assert!(bytes[24..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn rows_of_both_families() {
        let read = row(&message(2, 6, 3, &[10, 0, 0, 1], &[10, 0, 0, 2])).unwrap();
        let expected = Row {
            state: TcpState::TimeWait,
            local: "10.0.0.1:36704".parse().unwrap(),
            remote: "10.0.0.2:8080".parse().unwrap(),
            inode: 7,
            time_wait_left_ms: Some(42_000),
        };
        assert_eq!(read, expected);
        let mapped: Ipv6Addr = "::ffff:10.0.0.1".parse().unwrap();
        let read = row(&message(10, 1, 2, &mapped.octets(), &mapped.octets())).unwrap();
        assert_eq!((read.local, read.time_wait_left_ms), (expected.local, None));
        let six: Ipv6Addr = "fd00::1".parse().unwrap();
        assert_eq!(row(&message(10, 3, 0, &six.octets(), &six.octets())).unwrap().local.ip(), six);
    }

    #[test]
    fn odd_rows_are_refused_with_a_reason() {
        let good = message(2, 6, 3, &[10, 0, 0, 1], &[10, 0, 0, 2]);
        assert!(row(&good[..71]).unwrap_err().contains("shorter"));
        assert!(row(&message(1, 6, 3, &[], &[])).unwrap_err().contains("family 1"));
        assert!(row(&message(2, 13, 3, &[], &[])).unwrap_err().contains("13"));
    }
}
