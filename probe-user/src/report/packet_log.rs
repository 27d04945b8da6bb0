//! A capture of live packets: files that are begun anew when they are full, and packets that wait until it is clear
//! whose they are.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::packet_comments::comments;
use super::pcapng::{InterfaceDescription, PacketRecord, Section, Statistics, Writer};
use crate::diagnosis::incident::Incident;
use crate::observation::Nanos;
use crate::sources::packets::{LivePacket, PacketDevice};

/// Packets that wait for their incident; beyond it those of the oldest connection are written as they are.
const MAX_WAITING: usize = 65_536;
/// Incidents that are remembered for packets that come after them.
const MAX_TOLD: usize = 4096;

/// Where a capture goes.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// The (first) file.
    pub path: PathBuf,
    /// A new file is begun before more is written to one of at least this many bytes.
    pub size: Option<u64>,
    /// Files that are kept; the oldest is removed when there are more.
    pub files: Option<usize>,
}

impl CaptureOptions {
    /// Name of the file with this number from 0: the path itself, then `name.1.pcapng`, `name.2.pcapng`, …
    fn name(&self, number: u64) -> PathBuf {
        match (number, self.path.extension().and_then(|extension| extension.to_str())) {
            (0, _) => self.path.clone(),
            (_, Some(extension)) => self.path.with_extension(format!("{number}.{extension}")),
            (_, None) => self.path.with_extension(number.to_string()),
        }
    }
}

/// Why a capture could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write packets to {path}: {source}")]
pub struct CaptureError {
    path: PathBuf,
    source: io::Error,
}

/// Who is asked whose a namespace is, in words.
pub type Whose = fn(u32) -> Option<String>;

/// One capture.
pub struct PacketLog {
    options: CaptureOptions,
    whose: Whose,
    start: Nanos,
    /// The file that is written, unless writing failed.
    writer: Option<Writer<File>>,
    number: u64,
    /// Interfaces of the current file.
    interfaces: BTreeMap<PacketDevice, u32>,
    descriptions: BTreeMap<u32, String>,
    /// Packets written or lost since the beginning, by device.
    accepted: BTreeMap<PacketDevice, u64>,
    /// Packets that could not be written.
    unwritten: u64,
    waiting: BTreeMap<u32, Vec<LivePacket>>,
    waiting_count: usize,
    told: Told,
}

/// What is to be done with packets of a connection that is known.
#[derive(Clone)]
enum Known {
    Wanted(Arc<Incident>),
    Unwanted,
}

#[derive(Default)]
struct Told {
    known: BTreeMap<u32, Known>,
    order: VecDeque<u32>,
}

impl Told {
    fn insert(&mut self, isn: u32, known: Known) {
        if self.known.insert(isn, known).is_none() {
            self.order.push_back(isn);
        }
        if self.order.len() > MAX_TOLD
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl PacketLog {
    /// Creates the first file.
    pub fn create(options: CaptureOptions, start: Nanos, whose: Whose) -> Result<Self, CaptureError> {
        let mut log = Self {
            options,
            whose,
            start,
            writer: None,
            number: 0,
            interfaces: BTreeMap::new(),
            descriptions: BTreeMap::new(),
            accepted: BTreeMap::new(),
            unwritten: 0,
            waiting: BTreeMap::new(),
            waiting_count: 0,
            told: Told::default(),
        };
        log.begin_file()?;
        Ok(log)
    }

    /// Takes packets, in the order of time. Those of a connection that is known are written at once.
    pub fn take(&mut self, packets: Vec<LivePacket>) -> Result<(), CaptureError> {
        let mut packets = packets.into_iter();
        while let Some(packet) = packets.next() {
            if let Err(error) = self.take_one(packet) {
                self.unwritten += packets.len() as u64;
                return Err(error);
            }
        }
        Ok(())
    }

    fn take_one(&mut self, packet: LivePacket) -> Result<(), CaptureError> {
        match self.told.known.get(&packet.isn).cloned() {
            Some(Known::Wanted(incident)) => self.write(&[packet], Some(&incident))?,
            Some(Known::Unwanted) => {}
            None => {
                self.waiting_count += 1;
                self.waiting.entry(packet.isn).or_default().push(packet);
            }
        }
        if self.waiting_count > MAX_WAITING { self.write_oldest() } else { Ok(()) }
    }

    /// It is clear whose packets these are.
    pub fn clear(&mut self, incident: &Incident) -> Result<(), CaptureError> {
        let Some(isn) = incident.connection.isn else { return Ok(()) };
        self.told.insert(isn, Known::Wanted(Arc::new(incident.clone())));
        let packets = self.take_waiting(isn);
        self.write(&packets, Some(incident))
    }

    /// The same, and nothing more will be told: the incident itself goes into the capture as well.
    pub fn concluded(&mut self, incident: &Incident) -> Result<(), CaptureError> {
        self.clear(incident)?;
        let json = serde_json::to_vec(incident).unwrap_or_default();
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.custom_json(&json).or_else(|error| self.failed(error))
    }

    /// Packets of this connection are not asked for.
    pub fn unwanted(&mut self, isn: Option<u32>) {
        if let Some(isn) = isn {
            self.take_waiting(isn);
            self.told.insert(isn, Known::Unwanted);
        }
    }

    /// Writes what still waits, if it is wanted, and the statistics; `lost` are the packets that never came here.
    pub fn finish(
        &mut self,
        rest: bool,
        lost: &BTreeMap<PacketDevice, u64>,
        now: Nanos,
    ) -> Result<(), CaptureError> {
        while rest && !self.waiting.is_empty() {
            self.write_oldest()?;
        }
        for device in lost.keys() {
            self.interface(device)?;
        }
        self.statistics(lost, now)
    }

    /// Packets written so far, and the file that is written now.
    pub fn written(&self) -> (u64, PathBuf) {
        (self.accepted.values().sum(), self.options.name(self.number))
    }

    /// Packets that could not be written because the file could not.
    pub const fn unwritten(&self) -> u64 {
        self.unwritten
    }

    fn take_waiting(&mut self, isn: u32) -> Vec<LivePacket> {
        let packets = self.waiting.remove(&isn).unwrap_or_default();
        self.waiting_count -= packets.len();
        packets
    }

    fn write_oldest(&mut self) -> Result<(), CaptureError> {
        let first = |packets: &Vec<LivePacket>| packets.first().map(|packet| packet.at);
        let oldest = self.waiting.iter().min_by_key(|(_, packets)| first(packets)).map(|(isn, _)| *isn);
        let packets = oldest.map(|isn| self.take_waiting(isn)).unwrap_or_default();
        self.write(&packets, None)
    }

    /// Packets of one connection stay together in one file.
    fn write(&mut self, packets: &[LivePacket], incident: Option<&Incident>) -> Result<(), CaptureError> {
        if packets.is_empty() {
            return Ok(());
        }
        self.rotate()?;
        for (index, packet) in packets.iter().enumerate() {
            if let Err(error) = self.write_one(packet, incident) {
                self.unwritten += (packets.len() - index) as u64;
                return Err(error);
            }
        }
        Ok(())
    }

    fn write_one(&mut self, packet: &LivePacket, incident: Option<&Incident>) -> Result<(), CaptureError> {
        let Some(interface) = self.interface(&packet.device)? else {
            self.unwritten += 1;
            return Ok(());
        };
        let comments = match incident {
            Some(incident) => comments(incident, packet.device.link, &packet.bytes),
            None => vec!["packet of a connect from a service port that nothing more is known of".to_owned()],
        };
        let record = PacketRecord {
            interface,
            at: packet.at,
            bytes: &packet.bytes,
            original: packet.original,
            direction: Some(packet.direction),
            comments: &comments,
        };
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.packet(&record).or_else(|error| self.failed(error))?;
        *self.accepted.entry(packet.device.clone()).or_default() += 1;
        Ok(())
    }

    /// Number of a device in the current file; `None` if there is no file.
    fn interface(&mut self, device: &PacketDevice) -> Result<Option<u32>, CaptureError> {
        if let Some(number) = self.interfaces.get(device) {
            return Ok(Some(*number));
        }
        let whose = self.whose;
        let netns = device.netns;
        let description = self.descriptions.entry(netns).or_insert_with(|| match whose(netns) {
            Some(whose) => format!("network namespace {netns}: {whose}"),
            None => format!("network namespace {netns}"),
        });
        let name = format!("{}@{netns}", device.name);
        let interface = InterfaceDescription {
            name: &name,
            description,
            link: device.link,
            snap_len: probe_ebpf::PACKET_SNAP,
        };
        let Some(writer) = &mut self.writer else { return Ok(None) };
        match writer.interface(&interface) {
            Ok(number) => {
                self.interfaces.insert(device.clone(), number);
                Ok(Some(number))
            }
            Err(error) => self.failed(error).map(|()| None),
        }
    }

    fn statistics(&mut self, lost: &BTreeMap<PacketDevice, u64>, at: Nanos) -> Result<(), CaptureError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        for (device, number) in &self.interfaces {
            let dropped = lost.get(device).copied().unwrap_or(0);
            let accepted = self.accepted.get(device).copied().unwrap_or(0) + dropped;
            if let Err(error) =
                writer.statistics(*number, &Statistics { start: self.start, at, accepted, dropped })
            {
                return self.failed(error);
            }
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), CaptureError> {
        let full = |writer: &Writer<File>| self.options.size.is_some_and(|size| writer.bytes() >= size);
        if !self.writer.as_ref().is_some_and(full) {
            return Ok(());
        }
        self.number += 1;
        if let Some(kept) = self.options.files
            && let Some(oldest) = self.number.checked_sub(kept as u64)
        {
            // If it is gone already, somebody else took it.
            let _ = fs::remove_file(self.options.name(oldest));
        }
        self.begin_file()
    }

    fn begin_file(&mut self) -> Result<(), CaptureError> {
        let path = self.options.name(self.number);
        self.interfaces.clear();
        self.writer = None;
        let begun = create(&path).and_then(|file| Writer::new(file, &section(&os())));
        self.writer = Some(begun.map_err(|source| CaptureError { path, source })?);
        Ok(())
    }

    /// Writing failed: nothing more is written, and the file ends after its last whole block.
    fn failed(&mut self, source: io::Error) -> Result<(), CaptureError> {
        if let Some(mut writer) = self.writer.take() {
            let whole = writer.bytes();
            // What cannot be cut off is half a block, which readers report.
            let _ = writer.get_mut().set_len(whole);
        }
        Err(CaptureError { path: self.options.name(self.number), source })
    }
}

/// Readable by its owner only: addresses and names of a node are nobody else's business.
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn os() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

fn section(os: &str) -> Section<'_> {
    Section {
        hardware: std::env::consts::ARCH,
        os,
        application: concat!("portclash ", env!("CARGO_PKG_VERSION")),
        comments: &[],
    }
}

#[cfg(test)]
#[path = "packet_log_tests.rs"]
mod tests;
