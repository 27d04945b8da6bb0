//! Live packets: those of flagged connections, with the headers that the kernel side recorded of them.

use std::collections::BTreeMap;

use aya::maps::{MapData, RingBuf};
use probe_ebpf::{DEVICE_ETHERNET, DEVICE_LOOPBACK, Device, Packet};
use tokio::io::unix::AsyncFd;

use super::clock::Clock;
use super::live::{LiveError, register};
use crate::capture::LinkType;
use crate::kernel::event::comm_text;
use crate::kernel::loader::LoadError;
use crate::kernel::packets::{PacketMaps, PacketsLost, decode};
use crate::observation::Nanos;
use crate::report::pcapng::Direction;

/// A device in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketDevice {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Its index there.
    pub index: u32,
    /// Its name there.
    pub name: String,
    /// How the first header of its packets is to be read.
    pub link: LinkType,
}

impl From<&Device> for PacketDevice {
    fn from(device: &Device) -> Self {
        let has_ethernet = matches!(device.kind, DEVICE_ETHERNET | DEVICE_LOOPBACK);
        Self {
            netns: device.netns,
            index: device.index,
            name: comm_text(&device.name).unwrap_or_else(|| format!("device {}", device.index)),
            link: if has_ethernet { LinkType::ETHERNET } else { LinkType::RAW },
        }
    }
}

/// A packet of a flagged connection, seen at one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePacket {
    /// When.
    pub at: Nanos,
    /// Initial sequence number of the connection.
    pub isn: u32,
    /// Where.
    pub device: PacketDevice,
    /// Which way it went there.
    pub direction: Direction,
    /// Its length.
    pub original: u32,
    /// Its headers.
    pub bytes: Vec<u8>,
}

impl LivePacket {
    fn new(packet: &Packet, clock: Clock) -> Self {
        let captured = usize::try_from(packet.captured).unwrap_or(usize::MAX);
        Self {
            at: clock.wall(packet.at_ns),
            isn: packet.isn,
            device: PacketDevice::from(&packet.device),
            direction: if packet.direction == 1 { Direction::Inbound } else { Direction::Outbound },
            original: packet.original,
            bytes: packet.data.get(..captured).unwrap_or(&packet.data).to_vec(),
        }
    }
}

/// More than the ring holds.
const MOST_AT_ONCE: usize = 65_536;

/// The ring buffer of packets.
pub(super) struct PacketSource {
    pub(super) ring: AsyncFd<RingBuf<MapData>>,
    lost: PacketsLost,
    waiting: Vec<LivePacket>,
    undecodable: u64,
}

impl PacketSource {
    /// Takes over the maps after the self-test, whose packets nobody asked for.
    pub(super) fn open(mut maps: PacketMaps) -> Result<Self, LiveError> {
        maps.rest()?;
        while maps.ring.next().is_some() {}
        Ok(Self { ring: register(maps.ring)?, lost: maps.lost, waiting: Vec::new(), undecodable: 0 })
    }

    /// Takes every record out of the ring, unless they come without end.
    pub(super) fn drain(&mut self, clock: Clock) {
        for _ in 0..MOST_AT_ONCE {
            let Some(record) = self.ring.get_mut().next() else { return };
            match decode(&record) {
                Ok(packet) => self.waiting.push(LivePacket::new(&packet, clock)),
                Err(_) => self.undecodable += 1,
            }
        }
    }

    /// What was drained, in the order of time.
    pub(super) fn take(&mut self) -> Vec<LivePacket> {
        self.waiting.sort_by_key(|packet| packet.at);
        std::mem::take(&mut self.waiting)
    }

    pub(super) const fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Packets that found the ring full, by device.
    pub(super) fn lost(&self) -> Result<BTreeMap<PacketDevice, u64>, LoadError> {
        let lost = self.lost.by_device()?;
        Ok(lost.iter().map(|(device, count)| (PacketDevice::from(device), *count)).collect())
    }
}

#[cfg(test)]
mod tests {
    use probe_ebpf::PACKET_BYTES;

    use super::*;

    #[test]
    fn what_was_captured_is_taken_and_no_more() {
        let mut name = [0; 16];
        name[..4].copy_from_slice(b"wg0\0");
        let device = Device { netns: 7, index: 3, kind: 65_534, name };
        let packet = Packet {
            at_ns: 5,
            isn: 9,
            device,
            direction: 2,
            original: 60,
            captured: 40,
            padding: 0,
            data: [1; PACKET_BYTES],
        };
        let clock = Clock::sample();
        let live = LivePacket::new(&packet, clock);
        assert_eq!((live.at, live.bytes.len(), live.direction), (clock.wall(5), 40, Direction::Outbound));
        assert_eq!((live.device.name.as_str(), live.device.link), ("wg0", LinkType::RAW));
        let broken = Packet { captured: u32::MAX, ..packet };
        assert_eq!(LivePacket::new(&broken, clock).bytes.len(), PACKET_BYTES);
    }
}
