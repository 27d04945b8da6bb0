//! The flight recorder: the packets of each incident as a capture of its own, within limits.
//!
//! Packets of flagged connections wait, bounded in number, until diagnosis says what the connection was; then they are
//! written, with the incident itself, to a file that appears whole or not at all. A thread of its own writes, because a disk
//! may be slow: tracing never waits for it.

mod content;
mod folder;
mod queue;
mod rate;
mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;

use content::Capture;
pub use folder::RecorderError;
use folder::{Folder, Limits};
use queue::Queue;
use rate::{LeftOut, Rate};
use writer::Writer;

use super::recent::Recent;
use super::snapshot::{CapturesFailed, PacketsDropped, RecorderView};
use crate::diagnosis::incident::Incident;
use crate::node::netns;
use crate::report::packet_waiting::{Taken, Waiting};
use crate::sources::packets::{LivePacket, PacketDevice};

/// Packets that wait for their incident, of all connections: about 2 MiB.
const MAX_WAITING: usize = 4096;
/// Packets of one connection that are kept, the first ones: a handshake that died in every namespace and device that it
/// crossed, retransmits included. A connection that lives needs no more.
const MAX_OF_ONE: usize = 256;

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

/// A recorder that does not record yet: its thread may begin only after privileges were dropped.
pub struct Opened(Folder);

impl Opened {
    /// Begins, within a tokio runtime. `recent` is told where the capture of each incident is.
    pub fn start(self, recent: Recent) -> Recorder {
        let writer = Writer::new(self.0, netns::whose);
        let mut recorder = Recorder::new(Queue::new(writer.view()));
        let queue = Arc::clone(&recorder.queue);
        recorder.writing = Some(tokio::task::spawn_blocking(move || queue.serve(writer, &recent)));
        recorder
    }
}

/// Writes one capture per incident.
pub struct Recorder {
    waiting: Waiting<()>,
    /// Packets beyond [`MAX_OF_ONE`] of connections that wait, by device.
    beyond: BTreeMap<u32, BTreeMap<PacketDevice, u64>>,
    dropped: PacketsDropped,
    rate: Rate,
    beyond_rate: LeftOut,
    beyond_queue: LeftOut,
    failed: CapturesFailed,
    queue: Arc<Queue>,
    writing: Option<JoinHandle<()>>,
    news: Vec<String>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Recorder {
    /// Makes the directory if it is missing, takes away what an earlier run left half written, and what exceeds the limits.
    pub fn open(options: Options) -> Result<Opened, RecorderError> {
        let limits = Limits { bytes: options.max_bytes, files: options.max_files };
        Folder::open(options.dir, limits).map(Opened)
    }

    fn new(queue: Queue) -> Self {
        Self {
            waiting: Waiting::new(MAX_WAITING),
            beyond: BTreeMap::new(),
            dropped: PacketsDropped::default(),
            rate: Rate::new(Instant::now()),
            beyond_rate: LeftOut::default(),
            beyond_queue: LeftOut::default(),
            failed: CapturesFailed::default(),
            queue: Arc::new(queue),
            writing: None,
            news: Vec::new(),
        }
    }

    /// Other limits from now on. Captures that exceed them go soon.
    pub fn set_limits(&self, max_bytes: u64, max_files: usize) {
        self.queue.set_limits(Limits { bytes: max_bytes, files: max_files });
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

    /// Nothing more will be told of this incident: its capture is written soon, if it has packets. What is not written is
    /// counted, and [`Self::take_news`] says why.
    pub fn concluded(&mut self, incident: &Arc<Incident>) {
        let Some(isn) = incident.connection.isn else { return };
        let packets = self.waiting.tell(isn, ());
        let beyond = self.beyond.remove(&isn).unwrap_or_default();
        if packets.is_empty() {
            return;
        }
        let now = Instant::now();
        if !self.rate.spend(now) {
            self.failed.rate += 1;
            let too_many =
                format!("more incidents than {} a second: not each gets a capture", rate::PER_SECOND);
            self.news.extend(self.beyond_rate.one_more(now, &too_many));
        } else if !self.queue.push(Capture { incident: Arc::clone(incident), packets, beyond }) {
            self.failed.queue += 1;
            let too_slow = "the disk is slower than incidents come: not each gets a capture";
            self.news.extend(self.beyond_queue.one_more(now, too_slow));
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
        let view = self.queue.view();
        let failed = CapturesFailed { write: view.failed.write, ..self.failed };
        RecorderView { failed, packets_dropped: self.dropped, ..view }
    }

    /// What changed since the last call, one sentence each: it cannot write, for another reason, or can again; incidents are
    /// too many for a capture each, or not any more. Call it now and then, whether anything happened or not.
    pub fn take_news(&mut self) -> Vec<String> {
        let now = Instant::now();
        let over = [&mut self.beyond_rate, &mut self.beyond_queue].map(|left_out| left_out.over(now));
        self.news.extend(over.into_iter().flatten());
        self.news.extend(self.queue.take_news());
        std::mem::take(&mut self.news)
    }

    /// Waits until what was concluded is written, at most for `limit`. Nothing is taken afterwards.
    pub async fn drain(&mut self, limit: Duration) {
        self.queue.close();
        let Some(mut writing) = self.writing.take() else { return };
        if timeout(limit, &mut writing).await.is_err() {
            // The thread ends with the capture that it is writing.
            let left = self.queue.give_up();
            self.news.push(format!("flight recorder: {left} captures were not written in time"));
        }
    }
}

#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod tests;
