//! The flight recorder: the packets of each incident as a capture of its own, within limits.
//!
//! Packets of flagged connections wait, bounded in number, until diagnosis says what the connection was; then they are
//! written at once, with the incident itself, to a file that appears whole or not at all.

mod folder;
mod rate;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use folder::RecorderError;
use folder::{Folder, Limits};
use rate::Rate;

use super::snapshot::{CapturesFailed, PacketsDropped, RecorderView};
use crate::diagnosis::incident::Incident;
use crate::node::netns;
use crate::report::capture_file::{CaptureFile, Descriptions, Whose};
use crate::report::packet_comments::comments;
use crate::report::packet_waiting::{Taken, Waiting};
use crate::report::pcapng::Statistics;
use crate::sources::packets::{LivePacket, PacketDevice};

/// Packets that wait for their incident, of all connections: about 2 MiB.
const MAX_WAITING: usize = 4096;
/// Packets of one connection that are kept, the first ones: a handshake that died in every namespace and device that it
/// crossed, retransmits included. A connection that lives needs no more.
const MAX_OF_ONE: usize = 256;

/// While captures cannot be written, whether they can again is tried this often: the next incident may be days away.
const CHECK_EVERY: Duration = Duration::from_mins(1);

/// Where captures go, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory; made if it is missing.
    pub dir: PathBuf,
    /// Bytes of all captures together.
    pub max_bytes: u64,
    /// Captures.
    pub max_files: usize,
}

/// Writes one capture per incident.
pub struct Recorder {
    folder: Folder,
    whose: Whose,
    waiting: Waiting<()>,
    /// Packets beyond [`MAX_OF_ONE`] of connections that wait, by device.
    beyond: BTreeMap<u32, BTreeMap<PacketDevice, u64>>,
    dropped: PacketsDropped,
    rate: Rate,
    written: u64,
    failed: CapturesFailed,
    trouble: Option<Trouble>,
    news: Vec<String>,
}

/// Captures cannot be written.
struct Trouble {
    text: String,
    /// Size of what could not be written.
    bytes: usize,
    /// When it was last seen to last.
    seen: Instant,
}

impl Recorder {
    /// Makes the directory if it is missing, takes away what an earlier run left half written, and what exceeds the limits.
    pub fn open(options: Options) -> Result<Self, RecorderError> {
        let limits = Limits { bytes: options.max_bytes, files: options.max_files };
        Ok(Self {
            folder: Folder::open(options.dir, limits)?,
            whose: netns::whose,
            waiting: Waiting::new(MAX_WAITING),
            beyond: BTreeMap::new(),
            dropped: PacketsDropped::default(),
            rate: Rate::new(Instant::now()),
            written: 0,
            failed: CapturesFailed::default(),
            trouble: None,
            news: Vec::new(),
        })
    }

    /// Other limits from now on. Captures that exceed them go at once.
    pub fn set_limits(&mut self, max_bytes: u64, max_files: usize) {
        match self.folder.set_limits(Limits { bytes: max_bytes, files: max_files }) {
            Ok(()) => self.try_again(Instant::now()),
            Err(error) => self.in_trouble(&error, 0),
        }
    }

    /// Takes packets, in the order of time.
    pub fn take(&mut self, packets: Vec<LivePacket>) {
        for packet in packets {
            if self.waiting.of(packet.isn) >= MAX_OF_ONE {
                self.dropped.of_long_connections += 1;
                *self.beyond.entry(packet.isn).or_default().entry(packet.device).or_default() += 1;
                continue;
            }
            if let Taken::Known((), _) = self.waiting.take(packet) {
                self.dropped.late += 1;
            }
            if let Some(oldest) = self.waiting.too_many() {
                self.dropped.no_room += oldest.len() as u64;
                oldest.first().map(|packet| self.beyond.remove(&packet.isn));
            }
        }
    }

    /// Nothing more will be told of this incident: writes its capture. `None` = it has no packets, or they could not be
    /// written, which [`Self::take_news`] says.
    pub fn concluded(&mut self, incident: &Incident) -> Option<PathBuf> {
        let isn = incident.connection.isn?;
        let packets = self.waiting.tell(isn, ());
        let beyond = self.beyond.remove(&isn).unwrap_or_default();
        if packets.is_empty() {
            return None;
        }
        if let Err(first) = self.rate.spend(Instant::now()) {
            self.failed.rate += 1;
            self.news.extend(first);
            return None;
        }
        let content = self.content(incident, &packets, &beyond).map_err(RecorderError::content);
        let bytes = content.as_ref().map_or(0, Vec::len);
        match content.and_then(|content| self.folder.write(incident, &content)) {
            Ok(path) => {
                self.written += 1;
                self.out_of_trouble();
                Some(path)
            }
            Err(error) => {
                self.failed.write += 1;
                self.in_trouble(&error, bytes);
                None
            }
        }
    }

    /// Packets of this connection are not asked for.
    pub fn unwanted(&mut self, isn: Option<u32>) {
        if let Some(isn) = isn {
            self.waiting.tell(isn, ());
            self.beyond.remove(&isn);
        }
    }

    /// How it is.
    pub fn view(&self) -> RecorderView {
        let (captures, bytes) = self.folder.held();
        RecorderView {
            captures,
            bytes,
            written: self.written,
            removed: self.folder.removed(),
            failed: self.failed,
            packets_dropped: self.dropped,
            trouble: self.trouble.as_ref().map(|trouble| trouble.text.clone()),
        }
    }

    /// What changed since the last call, one sentence each: it cannot write, for another reason, or can again; incidents are
    /// too many for a capture each, or not any more. Call it now and then, whether anything happened or not.
    pub fn take_news(&mut self) -> Vec<String> {
        self.look_after(Instant::now());
        std::mem::take(&mut self.news)
    }

    fn look_after(&mut self, now: Instant) {
        self.news.extend(self.rate.over(now));
        let due = |trouble: &Trouble| now.saturating_duration_since(trouble.seen) >= CHECK_EVERY;
        if self.trouble.as_ref().is_some_and(due) {
            self.try_again(now);
        }
    }

    /// Finds out whether a trouble is over.
    fn try_again(&mut self, now: Instant) {
        let Some(trouble) = &mut self.trouble else { return };
        trouble.seen = now;
        let bytes = trouble.bytes;
        match self.folder.try_out(bytes) {
            Ok(()) => self.out_of_trouble(),
            Err(error) => self.in_trouble(&error, bytes),
        }
    }

    fn in_trouble(&mut self, error: &RecorderError, bytes: usize) {
        let text = error.to_string();
        if self.trouble.as_ref().is_none_or(|trouble| trouble.text != text) {
            self.news.push(text.clone());
        }
        self.trouble = Some(Trouble { text, bytes, seen: Instant::now() });
    }

    fn out_of_trouble(&mut self) {
        if let Some(Trouble { text, .. }) = self.trouble.take() {
            self.news.push(format!("captures can be written again, after: {text}"));
        }
    }

    /// The whole file: packets with what is said about them, the incident, and what each interface saw.
    fn content(
        &self,
        incident: &Incident,
        packets: &[LivePacket],
        beyond: &BTreeMap<PacketDevice, u64>,
    ) -> std::io::Result<Vec<u8>> {
        let mut names = Descriptions::new(self.whose);
        let mut file = CaptureFile::new(Vec::new())?;
        let mut seen = beyond.clone();
        for packet in packets {
            let comments = comments(incident, packet.device.link, &packet.bytes);
            file.packet(packet, &comments, &mut names)?;
            *seen.entry(packet.device.clone()).or_default() += 1;
        }
        let times = || packets.iter().map(|packet| packet.at);
        let (start, at) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        file.custom_json(&serde_json::to_vec(incident).map_err(std::io::Error::other)?)?;
        file.statistics(|device| Statistics {
            start,
            at,
            accepted: seen.get(device).copied().unwrap_or(0),
            dropped: beyond.get(device).copied().unwrap_or(0),
        })?;
        Ok(std::mem::take(file.get_mut()))
    }
}

#[cfg(test)]
mod tests;
