//! Every file of what is given: files, directories, archives in them and standard input, one after the other, each as a
//! stream of its decompressed content. Nothing is unpacked to disk.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::archive;
use super::recognise::{Kind, SAMPLE, looks_like, recognise};
use super::sources::special;
use super::stored::{Budget, CutAfter, Meter, Peeked, Position, Stored};
use super::utf16::{Order, Utf8};
use crate::capture::plain;
use crate::observation::Nanos;

/// Most remarks about what was left out; one more says how many followed.
const MAX_SKIPPED: usize = 1000;
/// What a compressed file may always unpack to, whatever the limit: so many times its size.
const USUAL_RATIO: u64 = 20;

/// How much is read. The defaults are what an analysis of a node's support archive never reaches.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files, all together.
    pub files: u64,
    /// Bytes that one compressed file or archive unpacks to, with all archives in it.
    pub unpacked: u64,
    /// Bytes of a text file whose reader keeps it in memory.
    pub text: u64,
    /// Archives in archives.
    pub archives: u8,
    /// Directories in directories.
    pub folders: u8,
    /// Compute SHA-256 of what is read.
    pub hash: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 100_000, unpacked: 64 << 30, text: 256 << 20, archives: 3, folders: 64, hash: false }
    }
}

/// A file, as the visitor sees it.
pub struct Found<'a> {
    /// Its name as given, with the path within a directory, and within an archive after `!`.
    pub name: &'a str,
    /// What it is; `None` if it is nothing that can be read.
    pub kind: Option<Kind>,
    /// What it looks like if it is not recognised.
    pub looks_like: &'static str,
    /// Its size in bytes as stored; `None` for standard input.
    pub size: Option<u64>,
    /// When it was last written, nanoseconds since the Unix epoch.
    pub modified: Option<Nanos>,
    /// Its decompressed content. What is not read is skipped.
    pub content: &'a mut dyn Read,
    meter: Meter,
}

impl Found<'_> {
    /// How far it was read; can be asked while it is.
    pub fn position(&self) -> Position {
        Position(self.meter.clone())
    }

    /// Size and hash as stored, once the content was read to its end.
    pub fn stored(&self) -> Option<Stored> {
        self.meter.stored()
    }
}

/// Something that was not read, or not wholly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Name, as in [`Found::name`].
    pub name: String,
    /// Why.
    pub why: String,
    /// Something of what was given is missing for it: damaged, unreadable, or beyond a limit.
    pub lost: bool,
}

/// What a walk came by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Files that the visitor saw.
    pub files: u64,
    /// What it did not see, and what it saw only in part.
    pub skipped: Vec<Skipped>,
    /// Remarks beyond those kept.
    pub more_skipped: u64,
    /// Those of them that something is missing for.
    pub more_lost: u64,
}

/// What is known of a file besides its content.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) size: Option<u64>,
    pub(super) modified: Option<Nanos>,
}

/// Links in a directory that were not followed.
#[derive(Default)]
struct Links {
    outside: u64,
    broken: u64,
    first: Option<PathBuf>,
}

/// One walk.
pub(super) struct Walk<'a> {
    pub(super) limits: Limits,
    visitor: &'a mut dyn FnMut(Found<'_>),
    pub(super) walked: Walked,
    /// Device and inode of files that were seen: a file is read once, however often it is given.
    seen: HashSet<(u64, u64)>,
    links: Links,
}

impl<'a> Walk<'a> {
    pub(super) fn new(limits: Limits, visitor: &'a mut dyn FnMut(Found<'_>)) -> Self {
        Self { limits, visitor, walked: Walked::default(), seen: HashSet::new(), links: Links::default() }
    }

    /// Something that is no loss: a device, a link, a file that was read before.
    pub(super) fn skip(&mut self, name: &str, why: impl Into<String>) {
        self.remark(Skipped { name: name.to_owned(), why: why.into(), lost: false });
    }

    /// Something that may have been evidence.
    pub(super) fn lose(&mut self, name: &str, why: impl Into<String>) {
        self.remark(Skipped { name: name.to_owned(), why: why.into(), lost: true });
    }

    fn remark(&mut self, skipped: Skipped) {
        if self.walked.skipped.len() < MAX_SKIPPED {
            self.walked.skipped.push(skipped);
        } else {
            self.walked.more_skipped += 1;
            self.walked.more_lost += u64::from(skipped.lost);
        }
    }

    /// True once too many files were seen; says so once.
    pub(super) fn is_full(&mut self, name: &str) -> bool {
        let limit = self.limits.files;
        if self.walked.files < limit {
            return false;
        }
        if self.walked.files == limit {
            self.walked.files += 1;
            self.lose(name, format!("it and all that follows was left out: more than {limit} files"));
        }
        true
    }

    pub(super) fn path(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let root = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                self.folder(path, &root, 0);
                self.say_links(path);
            }
            Ok(metadata) => self.file(path, &metadata),
            Err(error) => self.lose(&path.display().to_string(), format!("it cannot be read: {error}")),
        }
    }

    fn folder(&mut self, path: &Path, root: &Path, depth: u8) {
        let name = path.display().to_string();
        if depth > self.limits.folders {
            return self.lose(&name, format!("it lies more than {} directories deep", self.limits.folders));
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.lose(&name, format!("the directory cannot be read: {error}")),
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort_unstable();
        for path in paths {
            let name = path.display().to_string();
            if self.is_full(&name) {
                return;
            }
            match fs::symlink_metadata(&path) {
                Err(error) => self.lose(&name, format!("it cannot be read: {error}")),
                Ok(metadata) if metadata.is_symlink() => self.link(path, root),
                Ok(metadata) if metadata.is_dir() => self.folder(&path, root, depth + 1),
                Ok(metadata) if metadata.is_file() => self.file(&path, &metadata),
                Ok(metadata) => self.skip(&name, format!("it is {}", special(&metadata))),
            }
        }
    }

    /// What a link leads to is walked under its own name, if it is part of what was given. In a copy of another
    /// machine's files, links that lead elsewhere mean that machine's files, not this one's.
    fn link(&mut self, path: PathBuf, root: &Path) {
        match path.canonicalize() {
            Ok(target) if target.starts_with(root) => return,
            Ok(_) => self.links.outside += 1,
            Err(_) => self.links.broken += 1,
        }
        self.links.first.get_or_insert(path);
    }

    fn say_links(&mut self, root: &Path) {
        let Links { outside, broken, first } = std::mem::take(&mut self.links);
        let Some(first) = first else { return };
        let why = format!(
            "{outside} links that lead out of it and {broken} that lead nowhere or in a circle were not followed, such \
             as {}; give what they lead to",
            first.display()
        );
        self.skip(&root.display().to_string(), why);
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) {
        let name = clean(&path.display().to_string());
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return self.skip(&name, "it is the same file as one that was read before");
        }
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) => return self.lose(&name, format!("it cannot be read: {error}")),
        };
        let modified =
            metadata.mtime().checked_mul(1_000_000_000).and_then(|at| at.checked_add(metadata.mtime_nsec()));
        self.stream(Named { name: &name, size: Some(metadata.len()), modified }, &mut file);
    }

    /// One input, with a budget of its own.
    pub(super) fn stream(&mut self, file: Named<'_>, raw: &mut dyn Read) {
        let most = file.size.unwrap_or(0).saturating_mul(USUAL_RATIO);
        let budget = Budget::new(self.limits.unpacked.max(most));
        self.content(file, raw, 0, &budget);
    }

    /// Decompresses, tells what it is, and either goes into it or shows it.
    pub(super) fn content(&mut self, file: Named<'_>, raw: &mut dyn Read, depth: u8, budget: &Budget) {
        let name = file.name;
        if self.is_full(name) {
            return;
        }
        let meter = Meter::new(self.limits.hash);
        let reader = match plain(meter.watch(raw)) {
            Ok(reader) => reader,
            Err(error) => return self.lose(name, format!("it cannot be read: {error}")),
        };
        let mut reader = Peeked::new(budget.bound(reader), SAMPLE);
        if let Some(error) = reader.failed() {
            let why = format!("it cannot be read: {error}");
            return self.lose(name, why);
        }
        if archive::is_tar(reader.sample()) {
            if depth >= self.limits.archives {
                let why = format!("an archive in more than {} archives was left out", self.limits.archives);
                return self.lose(name, why);
            }
            return archive::walk(self, name, &mut reader, depth + 1, budget);
        }
        self.walked.files += 1;
        match Order::of(reader.sample()) {
            Some(order) => {
                let reader = Peeked::new(Utf8::new(&mut reader, order), SAMPLE);
                self.show(file, &mut reader.without_mark(), meter);
            }
            None => self.show(file, &mut reader.without_mark(), meter),
        }
    }

    fn show<R: Read>(&mut self, file: Named<'_>, reader: &mut Peeked<R>, meter: Meter) {
        let kind = recognise(reader.sample());
        let looks_like = looks_like(reader.sample());
        let damaged = reader.ends_with().filter(|_| kind.is_none()).map(ToString::to_string);
        let most = if kind.is_none_or(Kind::is_streamed) { u64::MAX } else { self.limits.text };
        let mut content = CutAfter { reader, left: most, cut: false };
        let Named { name, size, modified } = file;
        (self.visitor)(Found { name, kind, looks_like, size, modified, content: &mut content, meter });
        if let Some(error) = damaged {
            self.lose(name, format!("it is damaged or cut off: {error}"));
        }
        if content.cut {
            self.lose(name, format!("only its first {most} bytes were read"));
        }
    }
}

/// A name from outside, without what could steer a terminal.
pub(super) fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
