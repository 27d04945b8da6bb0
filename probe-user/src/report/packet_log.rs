//! A capture of live packets: files that are begun anew when they are full, and packets that wait until it is clear
//! whose they are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use super::capture_file::Whose;
use super::capture_file::{CaptureFile, Descriptions};
use super::packet_comments::comments;
use super::packet_waiting::{Taken, Waiting};
use super::pcapng::Statistics;
use crate::diagnosis::incident::Incident;
use crate::observation::Nanos;
use crate::sources::packets::{LivePacket, PacketDevice};

/// Packets that wait for their incident; beyond it those of the oldest connection are written as they are.
const MAX_WAITING: usize = 65_536;

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

/// One capture.
pub struct PacketLog {
    options: CaptureOptions,
    start: Nanos,
    /// The file that is written, unless writing failed.
    file: Option<CaptureFile<File>>,
    number: u64,
    names: Descriptions,
    /// Packets written or lost since the beginning, by device.
    accepted: BTreeMap<PacketDevice, u64>,
    /// Packets that could not be written.
    unwritten: u64,
    waiting: Waiting<Known>,
}

/// What is to be done with packets of a connection that is known.
#[derive(Clone)]
enum Known {
    Wanted(Arc<Incident>),
    Unwanted,
}

impl PacketLog {
    /// Creates the first file.
    pub fn create(options: CaptureOptions, start: Nanos, whose: Whose) -> Result<Self, CaptureError> {
        let mut log = Self {
            options,
            start,
            file: None,
            number: 0,
            names: Descriptions::new(whose),
            accepted: BTreeMap::new(),
            unwritten: 0,
            waiting: Waiting::new(MAX_WAITING),
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
        if let Taken::Known(Known::Wanted(incident), packet) = self.waiting.take(packet) {
            self.write(&[packet], Some(&incident))?;
        }
        let early = self.waiting.too_many().unwrap_or_default();
        self.write(&early, None)
    }

    /// It is clear whose packets these are.
    pub fn clear(&mut self, incident: &Incident) -> Result<(), CaptureError> {
        let Some(isn) = incident.connection.isn else { return Ok(()) };
        let packets = self.waiting.tell(isn, Known::Wanted(Arc::new(incident.clone())));
        self.write(&packets, Some(incident))
    }

    /// The same, and nothing more will be told: the incident itself goes into the capture as well.
    pub fn concluded(&mut self, incident: &Incident) -> Result<(), CaptureError> {
        self.clear(incident)?;
        let json = serde_json::to_vec(incident).unwrap_or_default();
        let Some(file) = &mut self.file else { return Ok(()) };
        file.custom_json(&json).or_else(|error| self.failed(error))
    }

    /// Packets of this connection are not asked for.
    pub fn unwanted(&mut self, isn: Option<u32>) {
        if let Some(isn) = isn {
            self.waiting.tell(isn, Known::Unwanted);
        }
    }

    /// Writes what still waits, if it is wanted, and the statistics; `lost` are the packets that never came here.
    pub fn finish(
        &mut self,
        rest: bool,
        lost: &BTreeMap<PacketDevice, u64>,
        now: Nanos,
    ) -> Result<(), CaptureError> {
        while rest && let Some(packets) = self.waiting.oldest() {
            self.write(&packets, None)?;
        }
        let Self { file: Some(file), names, .. } = self else { return Ok(()) };
        let described = lost.keys().try_for_each(|device| file.interface(device, names).map(drop));
        described.or_else(|error| self.failed(error))?;
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
        let comments = match incident {
            Some(incident) => comments(incident, packet.device.link, &packet.bytes),
            None => vec!["packet of a connect from a service port that nothing more is known of".to_owned()],
        };
        let Some(file) = &mut self.file else {
            self.unwritten += 1;
            return Ok(());
        };
        file.packet(packet, &comments, &mut self.names).or_else(|error| self.failed(error))?;
        *self.accepted.entry(packet.device.clone()).or_default() += 1;
        Ok(())
    }

    fn statistics(&mut self, lost: &BTreeMap<PacketDevice, u64>, at: Nanos) -> Result<(), CaptureError> {
        let Self { file: Some(file), accepted, start, .. } = self else { return Ok(()) };
        let written = file.statistics(|device| {
            let dropped = lost.get(device).copied().unwrap_or(0);
            let accepted = accepted.get(device).copied().unwrap_or(0) + dropped;
            Statistics { start: *start, at, accepted, dropped }
        });
        written.or_else(|error| self.failed(error))
    }

    fn rotate(&mut self) -> Result<(), CaptureError> {
        let full = |file: &CaptureFile<File>| self.options.size.is_some_and(|size| file.bytes() >= size);
        if !self.file.as_ref().is_some_and(full) {
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
        self.file = None;
        let begun = create(&path).and_then(CaptureFile::new);
        self.file = Some(begun.map_err(|source| CaptureError { path, source })?);
        Ok(())
    }

    /// Writing failed: nothing more is written, and the file ends after its last whole block.
    fn failed(&mut self, source: io::Error) -> Result<(), CaptureError> {
        if let Some(mut file) = self.file.take() {
            let whole = file.bytes();
            // What cannot be cut off is half a block, which readers report.
            let _ = file.get_mut().set_len(whole);
        }
        Err(CaptureError { path: self.options.name(self.number), source })
    }
}

/// Readable by its owner only: addresses and names of a node are nobody else's business.
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
#[path = "packet_log_tests.rs"]
mod tests;
