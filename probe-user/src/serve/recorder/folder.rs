//! The directory of the captures: names, limits, and files that appear whole or not at all.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::diagnosis::incident::Incident;

const PREFIX: &str = "portclash-";
const SUFFIX: &str = ".pcapng";
const UNFINISHED: &str = ".pcapng.tmp";
/// What is written to find out whether anything can be.
const CHECK: &str = "portclash-check.pcapng.tmp";
/// Longest part of a name that comes from an incident.
const MAX_ID: usize = 160;

/// Why captures cannot be kept. It names the directory, not the file, so that the same trouble is told in the same words.
#[derive(Debug, thiserror::Error)]
#[error("flight recorder: {what} {path}: {source}; {hint}")]
pub struct RecorderError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
    hint: &'static str,
}

impl RecorderError {
    fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on its disk",
            io::ErrorKind::FileTooLarge => "raise the limit on the size of all captures",
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                "give it a directory that it may write to"
            }
            io::ErrorKind::NotADirectory => "name a directory itself, no file and no symbolic link",
            _ => "see that it is a directory that can be written to",
        };
        Self { what, path: path.to_owned(), source, hint }
    }

    /// A capture could not be put together.
    pub(super) fn content(source: io::Error) -> Self {
        Self::new("put a capture together for", Path::new("a file"), source)
    }
}

/// What may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) files: usize,
}

/// A capture that is kept. The order is that of writing.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    /// See [`number`].
    number: u64,
    name: String,
    bytes: u64,
}

/// The directory. Files with other names than captures get are nobody's business here.
pub(super) struct Folder {
    path: PathBuf,
    limits: Limits,
    captures: u64,
    bytes: u64,
    removed: u64,
}

impl Folder {
    pub(super) fn open(path: PathBuf, limits: Limits) -> Result<Self, RecorderError> {
        let mut folder = Self { path, limits, captures: 0, bytes: 0, removed: 0 };
        folder.make()?;
        folder.take_away_leftovers()?;
        folder.make_room(0)?;
        Ok(folder)
    }

    pub(super) fn set_limits(&mut self, limits: Limits) -> Result<(), RecorderError> {
        self.limits = limits;
        self.make_room(0).map(drop)
    }

    /// Captures and their bytes, as of the last look.
    pub(super) const fn held(&self) -> (u64, u64) {
        (self.captures, self.bytes)
    }

    pub(super) const fn removed(&self) -> u64 {
        self.removed
    }

    /// Writes a capture; the oldest make room for it.
    pub(super) fn write(&mut self, incident: &Incident, content: &[u8]) -> Result<PathBuf, RecorderError> {
        self.may_take(content)?;
        let number = self.make_room(content.len() as u64)?;
        let path = self.path.join(format!("{PREFIX}{}-{number}{SUFFIX}", safe(&incident.id)));
        let unfinished = path.with_extension("pcapng.tmp");
        let written = write_whole(&unfinished, content).and_then(|()| fs::rename(&unfinished, &path));
        if let Err(source) = written {
            // What was begun would only fill the disk further; if it cannot be removed it is a leftover of the next start.
            let _ = fs::remove_file(&unfinished);
            return Err(RecorderError::new("write a capture to", &self.path, source));
        }
        self.captures += 1;
        self.bytes += content.len() as u64;
        // The name survives a power cut only if the directory is on the disk as well; where that fails the file is there
        // all the same.
        let _ = File::open(&self.path).and_then(|folder| folder.sync_all());
        Ok(path)
    }

    /// Writes as much as a capture of so many bytes, and takes it away again: whether the next capture can be written.
    pub(super) fn try_out(&self, bytes: usize) -> Result<(), RecorderError> {
        let content = vec![0; bytes];
        self.may_take(&content)?;
        let path = self.path.join(CHECK);
        let written = write_whole(&path, &content);
        // As with what was begun of a capture.
        let _ = fs::remove_file(&path);
        written.map_err(|source| RecorderError::new("write a capture to", &self.path, source))
    }

    /// There is a directory, and it may hold so much.
    fn may_take(&self, content: &[u8]) -> Result<(), RecorderError> {
        // Somebody may have removed the directory, or put something else in its place.
        self.make()?;
        if content.len() as u64 > self.limits.bytes {
            let source = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(RecorderError::new("write a capture to", &self.path, source));
        }
        Ok(())
    }

    fn make(&self) -> Result<(), RecorderError> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => {
                let source = io::Error::from(io::ErrorKind::NotADirectory);
                Err(RecorderError::new("use", &self.path, source))
            }
            Err(_) => {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
                made.map_err(|source| RecorderError::new("make", &self.path, source))
            }
        }
    }

    /// Removes the captures that were written first until one of `more` bytes fits; 0 = none is to come. Returns the number
    /// of the next one.
    fn make_room(&mut self, more: u64) -> Result<u64, RecorderError> {
        let mut held = self.list()?;
        held.sort_unstable();
        let next = held.last().map_or(1, |last| last.number.saturating_add(1));
        let coming = usize::from(more > 0);
        let mut count = held.len();
        let mut bytes: u64 = held.iter().map(|held| held.bytes).sum();
        let mut outcome = Ok(());
        for oldest in held {
            if count + coming <= self.limits.files && bytes.saturating_add(more) <= self.limits.bytes {
                break;
            }
            let path = self.path.join(&oldest.name);
            match fs::remove_file(&path) {
                Ok(()) => self.removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    outcome = Err(RecorderError::new("remove an old capture from", &self.path, source));
                    continue;
                }
            }
            count -= 1;
            bytes -= oldest.bytes;
        }
        (self.captures, self.bytes) = (count as u64, bytes);
        let fits = count + coming <= self.limits.files && bytes.saturating_add(more) <= self.limits.bytes;
        if fits { Ok(next) } else { outcome.map(|()| next) }
    }

    fn list(&self) -> Result<Vec<Held>, RecorderError> {
        let named = self.files(|name| number(name, SUFFIX))?;
        let held =
            |(number, name, metadata): (u64, String, Metadata)| Held { number, bytes: metadata.len(), name };
        Ok(named.into_iter().map(held).collect())
    }

    /// What an earlier run did not finish. One that is being written, by whomever, is locked.
    fn take_away_leftovers(&self) -> Result<(), RecorderError> {
        let leftover = |name: &str| number(name, UNFINISHED).or_else(|| (name == CHECK).then_some(0));
        for (_, name, _) in self.files(leftover)? {
            let path = self.path.join(name);
            let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
            if opened.is_ok_and(|file| file.try_lock().is_ok()) {
                // If it cannot be removed it stays: it hinders nobody.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// Plain files, no symbolic links, whose name is one of ours, with their numbers.
    fn files(
        &self,
        number: impl Fn(&str) -> Option<u64>,
    ) -> Result<Vec<(u64, String, Metadata)>, RecorderError> {
        let entries =
            fs::read_dir(&self.path).map_err(|source| RecorderError::new("list", &self.path, source))?;
        let files = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = number(&name)?;
            let metadata = fs::symlink_metadata(entry.path()).ok().filter(Metadata::is_file)?;
            Some((number, name, metadata))
        });
        Ok(files.collect())
    }
}

/// Readable by its owner only: addresses and names of a node are nobody else's business.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .or_else(|error| {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            // Only this capture, or a check, has this name: an earlier attempt left it.
            fs::remove_file(path)?;
            File::options().write(true).create_new(true).mode(0o600).open(path)
        })?;
    // Where files cannot be locked, whoever starts meanwhile may take it for a leftover, and the incident has no capture.
    let _ = file.try_lock();
    file.write_all(content)?;
    file.sync_all()
}

/// The number that a capture's name ends with: each new one has the next number of the directory, so that the order of
/// writing outlives a clock that is set back, and a restart. `None` = no capture of ours. A file that somebody saved or
/// copied here is none, even if its name begins like one: only what this wrote may be removed.
fn number(name: &str, suffix: &str) -> Option<u64> {
    let mut parts = name.strip_prefix(PREFIX)?.strip_suffix(suffix)?.split('-');
    let [time, _local, _remote, number] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (date, time) = time.strip_suffix('Z')?.split_once('T')?;
    let (seconds, fraction) = time.split_once('.')?;
    let is_time = (date.len(), seconds.len()) == (8, 6) && [date, seconds, fraction].into_iter().all(digits);
    let is_ours = is_time && digits(number) && parts.next().is_none();
    is_ours.then(|| number.parse().ok())?
}

/// An id as part of a file's name: it begins with the time, and has no character that means something elsewhere.
fn safe(id: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    id.chars().take(MAX_ID).map(safe).collect()
}
