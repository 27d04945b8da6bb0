//! A directory of container logs (`/var/log/containers`, `/var/log/pods`): the newest that is a kubelet's.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::tz::TimeZone;

use super::file::{self, trouble};
use super::{IDLE, KubeletLogError, Outlet, POLL};
use crate::kubelet_log::ProbeFailure;

/// `/var/log/pods` has logs two levels down.
const MAX_DEPTH: usize = 3;
/// Entries looked at; a node has a few hundred pods.
const MAX_ENTRIES: usize = 20_000;
/// A kubelet that is restarted gets a new container, so a new file.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The directory, and the file in it that is followed now.
pub(super) struct Follower {
    directory: PathBuf,
    zone: Option<TimeZone>,
    current: file::Follower,
    looked_at: Instant,
}

impl Follower {
    pub(super) fn open(directory: &Path, zone: Option<TimeZone>) -> Result<Self, KubeletLogError> {
        let newest =
            newest(directory).ok_or_else(|| KubeletLogError::NoneInDirectory(directory.to_owned()))?;
        let current = file::Follower::open(&newest, zone.clone())?;
        Ok(Self { directory: directory.to_owned(), zone, current, looked_at: Instant::now() })
    }

    pub(super) fn name(&self) -> String {
        self.current.path().display().to_string()
    }

    /// Goes over to a newer file, if there is one.
    pub(super) fn look_again(&mut self, found: &mut Vec<ProbeFailure>) -> Result<(), KubeletLogError> {
        self.looked_at = Instant::now();
        let Some(newest) = newest(&self.directory).filter(|newest| newest != self.current.path()) else {
            return Ok(());
        };
        // The old one is finished first.
        let _ = self.current.poll(found);
        self.current.flush(found);
        self.current = file::Follower::from_start(&newest, self.zone.clone())?;
        Ok(())
    }

    pub(super) fn poll(&mut self, found: &mut Vec<ProbeFailure>) -> std::io::Result<bool> {
        self.current.poll(found)
    }

    /// Follows until the task is ended.
    pub(super) async fn run(mut self, out: Outlet) {
        let mut found = Vec::new();
        let mut said = false;
        let mut quiet_since = Instant::now();
        loop {
            tokio::time::sleep(POLL).await;
            let mut error = None;
            match self.poll(&mut found) {
                Ok(true) => quiet_since = Instant::now(),
                Ok(false) if quiet_since.elapsed() >= IDLE => self.current.flush(&mut found),
                Ok(false) => {}
                Err(source) => error = Some(trouble(self.current.path(), &source)),
            }
            if self.looked_at.elapsed() >= LOOK_AGAIN {
                error = error.or(self.look_again(&mut found).err().map(|error| error.to_string()));
            }
            out.put(&mut found);
            if let Some(error) = error.filter(|_| !said) {
                said = true;
                out.trouble(error).await;
            }
        }
    }
}

/// The log of a kubelet that was written last.
pub(super) fn newest(directory: &Path) -> Option<PathBuf> {
    let mut best: Option<(SystemTime, PathBuf)> = None;
    let mut left = MAX_ENTRIES;
    let mut folders = vec![(directory.to_owned(), 0, false)];
    while let Some((folder, depth, named)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            left = left.saturating_sub(1);
            if left == 0 {
                return best.map(|(_, path)| path);
            }
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let named = named || is_kubelets(&name);
            // Follows the links that /var/log/containers consists of.
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            if metadata.is_dir()
                && depth + 1 < MAX_DEPTH
                && !entry.file_type().is_ok_and(|kind| kind.is_symlink())
            {
                folders.push((path, depth + 1, named));
            } else if metadata.is_file()
                && named
                && path.extension().is_some_and(|extension| extension == "log")
            {
                let candidate = (metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), path);
                if best.as_ref().is_none_or(|best| *best < candidate) {
                    best = Some(candidate);
                }
            }
        }
    }
    best.map(|(_, path)| path)
}

fn is_kubelets(name: &str) -> bool {
    ["kubelet", "hyperkube", "k3s"].iter().any(|part| name.contains(part))
}
