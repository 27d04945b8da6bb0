//! A file that grows, through rotation by rename and by truncation.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::tz::TimeZone;

use super::{IDLE, KubeletLogError, Outlet, POLL, now, scanner};
use crate::kubelet_log::{ProbeFailure, Scanner};

const BLOCK: usize = 64 * 1024;

/// The file, and how far it was read.
pub(super) struct Follower {
    path: PathBuf,
    open: Option<Open>,
    scanner: Scanner,
    block: Vec<u8>,
}

struct Open {
    file: File,
    /// Device and inode: what the name meant when it was opened.
    identity: (u64, u64),
    position: u64,
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let identity = identity(&file.metadata()?);
        Ok(Self { file, identity, position: 0 })
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Follower {
    /// From its end on.
    pub(super) fn open(path: &Path, zone: Option<TimeZone>) -> Result<Self, KubeletLogError> {
        let mut follower = Self::from_start(path, zone)?;
        if let Some(open) = &mut follower.open {
            let end = open.file.seek(SeekFrom::End(0));
            open.position = end.map_err(|source| KubeletLogError::Open { path: path.to_owned(), source })?;
        }
        Ok(follower)
    }

    /// With all that is in it already.
    pub(super) fn from_start(path: &Path, zone: Option<TimeZone>) -> Result<Self, KubeletLogError> {
        let open =
            Open::new(path).map_err(|source| KubeletLogError::Open { path: path.to_owned(), source })?;
        let scanner = scanner(&path.display().to_string(), zone);
        Ok(Self { path: path.to_owned(), open: Some(open), scanner, block: vec![0; BLOCK] })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what is new. Returns whether there was anything.
    pub(super) fn poll(&mut self, found: &mut Vec<ProbeFailure>) -> io::Result<bool> {
        self.scanner.not_after(now());
        let mut any = self.read(found)?;
        let current = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            // Renamed, and the new one is not there yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(any),
            Err(error) => return Err(error),
        };
        let same = self.open.as_ref().is_some_and(|open| open.identity == identity(&current));
        if !same {
            // What was written between the last read and the rename.
            any |= self.read(found)?;
            self.scanner.restart(found);
            self.open = Some(Open::new(&self.path)?);
            any |= self.read(found)?;
        } else if let Some(open) = self.open.as_mut().filter(|open| current.len() < open.position) {
            open.position = open.file.seek(SeekFrom::Start(0))?;
            self.scanner.restart(found);
            any |= self.read(found)?;
        }
        Ok(any)
    }

    /// The record whose following lines were waited for has none.
    pub(super) fn flush(&mut self, found: &mut Vec<ProbeFailure>) {
        self.scanner.flush(found);
    }

    fn read(&mut self, found: &mut Vec<ProbeFailure>) -> io::Result<bool> {
        let Some(open) = &mut self.open else { return Ok(false) };
        let mut any = false;
        loop {
            match open.file.read(&mut self.block) {
                Ok(0) => return Ok(any),
                Ok(length) => {
                    any = true;
                    open.position += length as u64;
                    self.scanner.feed(self.block.get(..length).unwrap_or_default(), found);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Follows until the task is ended.
    pub(super) async fn run(mut self, out: Outlet) {
        let mut found = Vec::new();
        let mut said = false;
        let mut quiet_since = Instant::now();
        loop {
            tokio::time::sleep(POLL).await;
            match self.poll(&mut found) {
                Ok(true) => quiet_since = Instant::now(),
                Ok(false) if quiet_since.elapsed() >= IDLE => self.flush(&mut found),
                Err(error) if !said => {
                    said = true;
                    out.trouble(trouble(&self.path, &error)).await;
                }
                Ok(false) | Err(_) => {}
            }
            out.put(&mut found);
        }
    }
}

pub(super) fn trouble(path: &Path, error: &io::Error) -> String {
    format!(
        "read the kubelet's log {}: {error}; it is tried again, its lines are missing meanwhile",
        path.display()
    )
}
