//! One pcapng file of live packets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};

use super::pcapng::{InterfaceDescription, PacketRecord, Section, Statistics, Writer};
use crate::sources::packets::{LivePacket, PacketDevice};

/// Who is asked whose a namespace is, in words.
pub type Whose = fn(u32) -> Option<String>;

/// What network namespaces are called. Each is asked for once.
pub(crate) struct Descriptions {
    whose: Whose,
    known: BTreeMap<u32, String>,
}

impl Descriptions {
    pub(crate) const fn new(whose: Whose) -> Self {
        Self { whose, known: BTreeMap::new() }
    }

    fn of(&mut self, netns: u32) -> &str {
        let whose = self.whose;
        self.known.entry(netns).or_insert_with(|| match whose(netns) {
            Some(whose) => format!("network namespace {netns}: {whose}"),
            None => format!("network namespace {netns}"),
        })
    }
}

/// A file that describes each interface when its first packet comes.
pub(crate) struct CaptureFile<W> {
    writer: Writer<W>,
    interfaces: BTreeMap<PacketDevice, u32>,
}

impl<W: Write> CaptureFile<W> {
    /// Begins a file.
    pub(crate) fn new(out: W) -> io::Result<Self> {
        let section = Section {
            hardware: std::env::consts::ARCH,
            os: &os(),
            application: concat!("portclash ", env!("CARGO_PKG_VERSION")),
            comments: &[],
        };
        Ok(Self { writer: Writer::new(out, &section)?, interfaces: BTreeMap::new() })
    }

    /// Writes a packet.
    pub(crate) fn packet(
        &mut self,
        packet: &LivePacket,
        comments: &[String],
        names: &mut Descriptions,
    ) -> io::Result<()> {
        let interface = self.interface(&packet.device, names)?;
        self.writer.packet(&PacketRecord {
            interface,
            at: packet.at,
            bytes: &packet.bytes,
            original: packet.original,
            direction: Some(packet.direction),
            comments,
        })
    }

    /// Describes a device, unless that was done.
    pub(crate) fn interface(&mut self, device: &PacketDevice, names: &mut Descriptions) -> io::Result<u32> {
        if let Some(number) = self.interfaces.get(device) {
            return Ok(*number);
        }
        let number = self.writer.interface(&InterfaceDescription {
            name: &format!("{}@{}", device.name, device.netns),
            description: names.of(device.netns),
            link: device.link,
            snap_len: probe_ebpf::PACKET_SNAP,
        })?;
        self.interfaces.insert(device.clone(), number);
        Ok(number)
    }

    /// Writes JSON of ours.
    pub(crate) fn custom_json(&mut self, json: &[u8]) -> io::Result<()> {
        self.writer.custom_json(json)
    }

    /// Says of each interface what it saw and lost.
    pub(crate) fn statistics(&mut self, of: impl Fn(&PacketDevice) -> Statistics) -> io::Result<()> {
        let Self { writer, interfaces } = self;
        interfaces.iter().try_for_each(|(device, number)| writer.statistics(*number, &of(device)))
    }

    /// Bytes of whole blocks written so far.
    pub(crate) const fn bytes(&self) -> u64 {
        self.writer.bytes()
    }

    /// Where it is written to.
    pub(crate) fn get_mut(&mut self) -> &mut W {
        self.writer.get_mut()
    }
}

fn os() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}
