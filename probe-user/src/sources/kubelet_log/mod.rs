//! Follows the kubelet's log, wherever it is, and yields failed probes.

mod choice;
mod directory;
mod file;
mod journal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use choice::{KubeletLog, node_root};

use crate::kubelet_log::{LineParser, ProbeFailure, Scanner, Times, YearRule};
use crate::observation::{Fact, Nanos, Observation};

/// Failures that wait to be taken; beyond it they are dropped and counted.
const MAX_WAITING: usize = 1024;
/// How often a file is looked at. The kubelet's line is waited for longer than that.
const POLL: Duration = Duration::from_millis(200);
/// A record whose following lines did not come within this has none.
const IDLE: Duration = Duration::from_millis(500);

/// Why the kubelet's log cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum KubeletLogError {
    /// The path that was given.
    #[error("open the kubelet's log {}: {source}; name another file with --kubelet-log PATH, or none with --kubelet-log none", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A directory without any log of a kubelet.
    #[error("no log of a kubelet under {}: give its file with --kubelet-log PATH", .0.display())]
    NoneInDirectory(PathBuf),
    /// The program that reads the journal.
    #[error(
        "start journalctl: {0}; give the log's file with --kubelet-log PATH, or none with --kubelet-log none"
    )]
    Journalctl(#[source] std::io::Error),
}

/// What the task that follows the log has to say.
enum Message {
    Failed(Box<ProbeFailure>),
    /// The log cannot be read at the moment, or not any more.
    Trouble(String),
}

/// A kubelet's log that is being followed. The task and its child process end when this is dropped.
pub struct KubeletLogSource {
    receiver: mpsc::Receiver<Message>,
    task: JoinHandle<()>,
    name: String,
    place: KubeletLog,
    dropped: Arc<AtomicU64>,
    without_time: u64,
    trouble: Vec<String>,
}

impl KubeletLogSource {
    /// Begins to follow: only what is logged from now on counts. `root` is where the node's file system is: `/` on the
    /// node, `/proc/1/root` or a mount of it in a container. `None`: there is no log, or none is wanted.
    pub async fn start(wanted: &KubeletLog, root: &Path) -> Result<Option<Self>, KubeletLogError> {
        let place = match wanted {
            KubeletLog::None => return Ok(None),
            KubeletLog::Auto => match choice::find(root).await {
                Some(found) => found,
                None => return Ok(None),
            },
            given => given.clone(),
        };
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let out = Outlet { sender, dropped: Arc::clone(&dropped) };
        let zone = node_zone(root);
        let (name, task) = match &place {
            KubeletLog::Path(path) if path.is_dir() => {
                let follower = directory::Follower::open(path, zone)?;
                (follower.name(), tokio::spawn(follower.run(out)))
            }
            KubeletLog::Path(path) => {
                let follower = file::Follower::open(path, zone)?;
                (path.display().to_string(), tokio::spawn(follower.run(out)))
            }
            KubeletLog::Journal(unit) => {
                let journal = journal::Journal::start(unit.clone(), root, zone)?;
                (journal.name(), tokio::spawn(journal.run(out)))
            }
            KubeletLog::Auto | KubeletLog::None => return Ok(None),
        };
        Ok(Some(Self { receiver, task, name, place, dropped, without_time: 0, trouble: Vec::new() }))
    }

    /// The next failed probes, as soon as there are any; empty when there is news in [`Self::take_trouble`] instead.
    /// Never returns once the log has ended. May be dropped and called again.
    pub async fn next(&mut self) -> Vec<Observation> {
        let Some(first) = self.receiver.recv().await else { return std::future::pending().await };
        let mut observations = Vec::new();
        self.take(first, &mut observations);
        observations.extend(self.remaining());
        observations
    }

    /// What was found until now and not taken yet: for the end of a trace.
    pub fn remaining(&mut self) -> Vec<Observation> {
        let mut observations = Vec::new();
        while let Ok(message) = self.receiver.try_recv() {
            self.take(message, &mut observations);
        }
        observations
    }

    fn take(&mut self, message: Message, observations: &mut Vec<Observation>) {
        match message {
            Message::Failed(failure) => match failure.at {
                Some(at) => observations.push(Observation {
                    at,
                    source: Arc::clone(&failure.file),
                    fact: Fact::ProbeFailed { targets: Vec::new(), failure: Arc::from(failure) },
                }),
                None => self.without_time += 1,
            },
            Message::Trouble(text) => self.trouble.push(text),
        }
    }

    /// What is followed: a file, or the journal with its units.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is: never [`KubeletLog::Auto`] or [`KubeletLog::None`].
    pub const fn place(&self) -> &KubeletLog {
        &self.place
    }

    /// What went wrong since the last time, each once, with what to do.
    pub fn take_trouble(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trouble)
    }

    /// Failures that were dropped because nobody took them in time, and lines whose time could not be read.
    pub fn lost(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed).saturating_add(self.without_time)
    }
}

impl Drop for KubeletLogSource {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a follower puts what it finds.
struct Outlet {
    sender: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Outlet {
    /// Never waits: a log that is not read is a log that fills memory.
    fn put(&self, found: &mut Vec<ProbeFailure>) {
        for failure in found.drain(..) {
            if self.sender.try_send(Message::Failed(Box::new(failure))).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn trouble(&self, text: String) {
        // The receiver is gone only when this task is about to be ended.
        let _ = self.sender.send(Message::Trouble(text)).await;
    }
}

/// A scanner for a log that is followed on this node.
fn scanner(name: &str, zone: Option<TimeZone>) -> Scanner {
    let times = Times { zone, year: YearRule::NotAfter(now()) };
    Scanner::without_numbers(LineParser::new(Arc::from(name), times))
}

/// The zone that the kubelet writes in. UTC where none is set, as the C library has it; `None` if what is set cannot be read.
fn node_zone(root: &Path) -> Option<TimeZone> {
    let path = root.join("etc/localtime");
    match std::fs::read(&path) {
        Ok(bytes) => TimeZone::tzif("local", &bytes).ok(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(TimeZone::UTC),
        Err(_) => None,
    }
}

fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
