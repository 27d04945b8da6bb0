//! The packets of flagged connections, as the kernel side hands them over.

use std::collections::BTreeMap;

use aya::maps::{Array, MapData, PerCpuHashMap, RingBuf};
use aya::{Ebpf, Pod};
use bytes::Buf;
use probe_ebpf::{DEVICE_NAME_LEN, Device, PACKET_SIZE, Packet};

use super::event::{DecodeError, array};
use super::loader::LoadError;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Key(Device);

// SAFETY: Device is repr(C) and holds only integers, all of 4 bytes or single bytes that fill whole words: no padding.
unsafe impl Pod for Key {}

/// Handles of the maps of packets.
pub struct PacketMaps {
    /// The ring buffer of packets.
    pub ring: RingBuf<MapData>,
    /// What did not fit into it.
    pub lost: PacketsLost,
    watched_until: Array<MapData, u64>,
}

/// Packets that found the ring full.
pub struct PacketsLost(PerCpuHashMap<MapData, Key, u64>);

impl PacketMaps {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let mut take = |name| ebpf.take_map(name).ok_or(LoadError::Missing(name));
        let (ring, lost, watched) = (take("PACKETS")?, take("PACKETS_LOST")?, take("WATCHED_UNTIL")?);
        Ok(Self {
            ring: RingBuf::try_from(ring).map_err(|source| LoadError::Map { name: "PACKETS", source })?,
            lost: PacketsLost(
                PerCpuHashMap::try_from(lost)
                    .map_err(|source| LoadError::Map { name: "PACKETS_LOST", source })?,
            ),
            watched_until: Array::try_from(watched)
                .map_err(|source| LoadError::Map { name: "WATCHED_UNTIL", source })?,
        })
    }

    /// No connection is watched any more, until the next is flagged. While services are known this would lose packets.
    pub fn rest(&mut self) -> Result<(), LoadError> {
        let written = self.watched_until.set(0, 0, 0);
        written.map_err(|source| LoadError::Map { name: "WATCHED_UNTIL", source })
    }
}

impl PacketsLost {
    /// Packets that found the ring full so far, by device.
    pub fn by_device(&self) -> Result<BTreeMap<Device, u64>, LoadError> {
        let error = |source| LoadError::Map { name: "PACKETS_LOST", source };
        let mut lost = BTreeMap::new();
        for entry in &self.0 {
            let (Key(device), counts) = entry.map_err(error)?;
            lost.insert(device, counts.iter().fold(0, |sum: u64, count| sum.wrapping_add(*count)));
        }
        Ok(lost)
    }
}

/// Decodes one record of the ring.
pub fn decode(record: &[u8]) -> Result<Packet, DecodeError> {
    if record.len() != PACKET_SIZE {
        return Err(DecodeError::Length(record.len(), PACKET_SIZE));
    }
    // Fields in the order of the struct; the length was checked, so none of the reads can run out.
    let mut bytes = record;
    let packet = Packet {
        at_ns: bytes.get_u64_ne(),
        isn: bytes.get_u32_ne(),
        device: Device {
            netns: bytes.get_u32_ne(),
            index: bytes.get_u32_ne(),
            kind: bytes.get_u32_ne(),
            name: array::<DEVICE_NAME_LEN>(&mut bytes),
        },
        direction: bytes.get_u32_ne(),
        original: bytes.get_u32_ne(),
        captured: bytes.get_u32_ne(),
        padding: bytes.get_u32_ne(),
        data: array(&mut bytes),
    };
    match packet.direction {
        1 | 2 => Ok(packet),
        other => Err(DecodeError::Direction(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_lengths_and_directions_are_refused() {
        assert_eq!(decode(&[0; 8]).err(), Some(DecodeError::Length(8, PACKET_SIZE)));
        assert_eq!(decode(&[0; PACKET_SIZE]).err(), Some(DecodeError::Direction(0)));
        let mut record = [0; PACKET_SIZE];
        record[8] = 9;
        record[24] = b'l';
        record[40] = 2;
        record[311] = 7;
        let packet = decode(&record).unwrap();
        assert_eq!((packet.isn, packet.device.name[0], packet.data[255]), (9, b'l', 7));
    }
}
