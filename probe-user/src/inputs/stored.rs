//! Streams around a file: what was read of it as it is stored, how much may come out of it, and standard input kept so
//! that it can be read twice.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::rc::Rc;
use std::sync::Arc;

use ring::digest;

/// Bytes of standard input that are kept in memory.
const IN_MEMORY: u64 = 64 << 20;

/// How large a file is as stored, and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits; `None` where it was not asked for.
    pub sha256: Option<String>,
}

#[derive(Default)]
struct Counts {
    bytes: u64,
    hash: Option<digest::Context>,
    ended: bool,
}

/// Sees what is read through [`Metered`] readers.
#[derive(Clone, Default)]
pub(super) struct Meter(Rc<RefCell<Counts>>);

impl Meter {
    pub(super) fn new(hash: bool) -> Self {
        let hash = hash.then(|| digest::Context::new(&digest::SHA256));
        Self(Rc::new(RefCell::new(Counts { hash, ..Counts::default() })))
    }

    pub(super) fn watch<R>(&self, reader: R) -> Metered<R> {
        Metered { reader, meter: self.clone() }
    }

    /// Bytes read so far, as stored.
    fn bytes(&self) -> u64 {
        self.0.try_borrow().map_or(0, |counts| counts.bytes)
    }

    /// `None` while the file was not read to its end.
    pub(super) fn stored(&self) -> Option<Stored> {
        let counts = self.0.try_borrow().ok()?;
        counts.ended.then(|| Stored {
            bytes: counts.bytes,
            sha256: counts.hash.clone().map(|hash| hexadecimal(hash.finish().as_ref())),
        })
    }
}

/// How far a file was read, while it is.
#[derive(Clone)]
pub struct Position(pub(super) Meter);

impl Position {
    /// Bytes read so far, as stored.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |number: u8| char::from_digit(number.into(), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A reader that is watched.
pub(super) struct Metered<R> {
    reader: R,
    meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(into)?;
        if let Ok(mut counts) = self.meter.0.try_borrow_mut() {
            counts.bytes += count as u64;
            counts.ended |= count == 0 && !into.is_empty();
            if let Some(hash) = &mut counts.hash {
                hash.update(into.get(..count).unwrap_or_default());
            }
        }
        Ok(count)
    }
}

/// What may still be unpacked of one input, with all archives in it together.
#[derive(Clone)]
pub(super) struct Budget {
    left: Rc<Cell<u64>>,
    limit: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { left: Rc::new(Cell::new(limit)), limit }
    }

    pub(super) fn bound<R>(&self, reader: R) -> Bounded<R> {
        Bounded { reader, budget: self.clone() }
    }
}

/// Fails once the budget is used up: an archive that never ends is not read forever.
pub(super) struct Bounded<R> {
    reader: R,
    budget: Budget,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Budget { left, limit } = &self.budget;
        if left.get() == 0 && !into.is_empty() {
            // Exactly the limit is allowed.
            return match self.reader.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::other(format!("it unpacks to more than {limit} bytes"))),
            };
        }
        let most = usize::try_from(left.get()).unwrap_or(usize::MAX).min(into.len());
        let count = self.reader.read(into.get_mut(..most).unwrap_or_default())?;
        left.set(left.get().saturating_sub(count as u64));
        Ok(count)
    }
}

/// Ends after so many bytes, and says that it did.
pub(super) struct CutAfter<R> {
    pub(super) reader: R,
    pub(super) left: u64,
    pub(super) cut: bool,
}

impl<R: Read> Read for CutAfter<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.cut = self.cut || self.reader.read(&mut [0])? > 0;
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let count = self.reader.read(into.get_mut(..most).unwrap_or_default())?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The beginning of a stream that was looked at, and then the rest of it, or the error that it ended with.
pub(super) struct Peeked<R> {
    sample: Cursor<Vec<u8>>,
    error: Option<io::Error>,
    reader: R,
}

impl<R: Read> Peeked<R> {
    pub(super) fn new(mut reader: R, most: usize) -> Self {
        let mut sample = Vec::new();
        let error = reader.by_ref().take(most as u64).read_to_end(&mut sample).err();
        Self { sample: Cursor::new(sample), error, reader }
    }

    /// Takes off a byte order mark: not every reader expects one.
    pub(super) fn without_mark(mut self) -> Self {
        let sample = self.sample.get_mut();
        if sample.starts_with(b"\xef\xbb\xbf") {
            sample.drain(..3);
        }
        self
    }

    pub(super) fn sample(&self) -> &[u8] {
        self.sample.get_ref()
    }

    /// Why no more than the sample can be read.
    pub(super) fn ends_with(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Why nothing could be read.
    pub(super) fn failed(&self) -> Option<&io::Error> {
        self.error.as_ref().filter(|_| self.sample().is_empty())
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.sample.read(into)? {
            0 => match self.error.take() {
                Some(error) => Err(error),
                None => self.reader.read(into),
            },
            count => Ok(count),
        }
    }
}

/// A stream that can be read only once, kept: in memory, else in a file without a name, which disappears with the
/// process.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Memory(Arc<[u8]>),
    File(Arc<File>),
}

impl Kept {
    pub(super) fn new(mut input: impl Read) -> io::Result<Self> {
        let mut first = Vec::new();
        input.by_ref().take(IN_MEMORY + 1).read_to_end(&mut first)?;
        if first.len() as u64 <= IN_MEMORY {
            return Ok(Self::Memory(first.into()));
        }
        let mut file = unnamed_file()?;
        file.write_all(&first)?;
        drop(first);
        io::copy(&mut input, &mut file)?;
        Ok(Self::File(Arc::new(file)))
    }

    /// From its beginning.
    pub(super) fn open(&self) -> Box<dyn Read> {
        match self {
            Self::Memory(bytes) => Box::new(Cursor::new(bytes.clone())),
            Self::File(file) => Box::new(FromStart { file: file.clone(), offset: 0 }),
        }
    }
}

fn unnamed_file() -> io::Result<File> {
    let folder = std::env::temp_dir();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
    options.open(&folder).map_err(|error| {
        let text = format!(
            "it has more than {} MiB, and no temporary file can be made in {}: {error}; save it in a file and give that",
            IN_MEMORY >> 20,
            folder.display()
        );
        io::Error::new(error.kind(), text)
    })
}

struct FromStart {
    file: Arc<File>,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut reader: impl Read) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_is_kept_reads_the_same_twice_from_memory_and_from_a_file() {
        for size in [10, IN_MEMORY + 10] {
            let kept = Kept::new(io::repeat(b'x').take(size).chain(&b"end"[..])).unwrap();
            assert_eq!(matches!(kept, Kept::Memory(_)), size == 10);
            for _ in 0..2 {
                let bytes = all(kept.open()).unwrap();
                assert_eq!(bytes.len() as u64, size + 3);
                assert!(bytes.ends_with(b"xend"));
            }
        }
    }

    #[test]
    fn limits_are_exact() {
        let bounded = |limit| all(Budget::new(limit).bound(&b"12345"[..]));
        assert_eq!(bounded(5).unwrap(), b"12345");
        assert!(bounded(4).unwrap_err().to_string().contains("more than 4 bytes"));
        for (limit, cut) in [(5, false), (4, true)] {
            let mut reader = CutAfter { reader: &b"12345"[..], left: limit, cut: false };
            assert_eq!(all(&mut reader).unwrap().len() as u64, limit);
            assert_eq!(reader.cut, cut);
        }
    }

    #[test]
    fn the_hash_is_that_of_the_stored_bytes() {
        let meter = Meter::new(true);
        let mut reader = meter.watch(&b"abc"[..]);
        reader.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(meter.stored(), None, "not yet at its end");
        assert_eq!(all(&mut reader).unwrap(), b"");
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        assert_eq!(meter.stored(), Some(Stored { bytes: 3, sha256: Some(sha256) }));
    }
}
