//! What was read from files, and is read again when they change: Kubernetes replaces tokens and certificates while
//! their users run.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use super::HttpError;

/// Something made of files.
pub(super) struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Load<T>,
    held: Mutex<Held<T>>,
}

type Load<T> = Box<dyn Fn() -> Result<T, HttpError> + Send + Sync>;

struct Held<T> {
    stamps: Vec<Option<Stamp>>,
    value: Arc<T>,
}

/// What changes when a file is written or replaced: device, inode, size, and the times of content and inode.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, u64, (i64, i64), (i64, i64));

fn stamp(path: &Path) -> Option<Stamp> {
    let file = std::fs::metadata(path).ok()?;
    let (content, inode) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    Some(Stamp(file.dev(), file.ino(), file.size(), content, inode))
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

impl<T> Watched<T> {
    /// Reads it for the first time; `load` reads `paths`.
    pub(super) fn open(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, HttpError> + Send + Sync + 'static,
    ) -> Result<Self, HttpError> {
        // Before the reading: a change in between is then seen as one.
        let stamps = stamps(&paths);
        let held = Held { stamps, value: Arc::new(load()?) };
        Ok(Self { paths, load: Box::new(load), held: Mutex::new(held) })
    }

    /// What the files say now. While they cannot be read, what they said before stays in force: certificate and key are
    /// replaced one after the other.
    pub(super) fn current(&self) -> Arc<T> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.paths);
        if now != held.stamps {
            held.stamps = now;
            match (self.load)() {
                Ok(value) => {
                    info!("read again: {}", self.names());
                    held.value = Arc::new(value);
                }
                Err(error) => warn!("what was read before stays in force: {error}"),
            }
        }
        Arc::clone(&held.value)
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        names.join(", ")
    }
}
