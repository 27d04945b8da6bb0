//! Writes packets and capture files byte by byte.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Numbers in either byte order.
#[derive(Clone, Copy)]
pub(super) struct Endian(pub(super) bool);

impl Endian {
    pub(super) fn u16(self, value: u16) -> [u8; 2] {
        if self.0 { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(super) fn u32(self, value: u32) -> [u8; 4] {
        if self.0 { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    pub(super) fn u64(self, value: u64) -> [u8; 8] {
        if self.0 { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 23, 77, 129);
pub(super) const POD: Ipv4Addr = Ipv4Addr::new(10, 23, 77, 138);

/// The seed's SYN, as TCP with the usual options.
pub(super) fn tcp(source: u16, destination: u16, sequence: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([0x80, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    // No operation twice, timestamp.
    bytes.extend([1, 1, 8, 10, 0, 0, 1, 44, 0, 0, 0, 0]);
    bytes
}

pub(super) fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut bytes = vec![0x45, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(payload);
    bytes
}

pub(super) fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(payload);
    bytes
}

pub(super) fn syn() -> Vec<u8> {
    ipv4(CLIENT, POD, 6, &tcp(36704, 80, 4_142_039_474, 0, 2))
}

pub(super) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x7e, 0x35, 0x4e, 1, 0x11, 5, 0x26, 0xed, 0x79, 0x5c, 0xea, 0xb5];
    bytes.extend(kind.to_be_bytes());
    bytes.extend(payload);
    bytes
}

pub(super) fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut bytes = [40_000_u16.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    bytes.extend(payload);
    bytes
}

/// A pcap file with its records: seconds, fraction, bytes, original length.
pub(super) fn pcap(endian: Endian, nanos: bool, link: u32, records: &[(u32, u32, &[u8], u32)]) -> Vec<u8> {
    let magic = if nanos { 0xa1b2_3c4d_u32 } else { 0xa1b2_c3d4 };
    let mut file = endian.u32(magic).to_vec();
    file.extend([endian.u16(2), endian.u16(4)].concat());
    file.extend([0, 0, 262_144, link].map(|word| endian.u32(word)).concat());
    for (seconds, fraction, bytes, original) in records {
        let captured = u32::try_from(bytes.len()).unwrap();
        file.extend([*seconds, *fraction, captured, *original].map(|word| endian.u32(word)).concat());
        file.extend(*bytes);
    }
    file
}

pub(super) fn block(endian: Endian, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = endian.u32(u32::try_from(padded + 12).unwrap());
    let mut block = [endian.u32(kind), length].concat();
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(length);
    block
}

pub(super) fn option(endian: Endian, code: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    let mut option = [endian.u16(code), endian.u16(length)].concat();
    option.extend(value);
    option.resize(4 + value.len().next_multiple_of(4), 0);
    option
}

pub(super) fn section(endian: Endian) -> Vec<u8> {
    let mut body = endian.u32(0x1a2b_3c4d).to_vec();
    body.extend([endian.u16(1), endian.u16(0)].concat());
    body.extend(endian.u64(u64::MAX));
    // A comment, as programs that merge files write it.
    body.extend(option(endian, 1, b"merged"));
    block(endian, 0x0a0d_0d0a, &body)
}

pub(super) fn interface(endian: Endian, link: u16, snap: u32, options: &[Vec<u8>]) -> Vec<u8> {
    let mut body = [endian.u16(link), endian.u16(0)].concat();
    body.extend(endian.u32(snap));
    body.extend(options.concat());
    block(endian, 1, &body)
}

pub(super) fn packet(endian: Endian, interface: u32, units: u64, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let high = u32::try_from(units >> 32).unwrap();
    let low = u32::try_from(units & 0xffff_ffff).unwrap();
    let mut body = [interface, high, low, length, length].map(|word| endian.u32(word)).concat();
    body.extend(bytes);
    block(endian, 6, &body)
}
