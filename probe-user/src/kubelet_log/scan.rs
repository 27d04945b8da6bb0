//! A whole log, fast: only lines that can matter are unwrapped.

use std::io::Read;

use memchr::memmem::Finder;

use super::parser::LineParser;
use super::wrapping::hides_text;
use super::{ParserCounts, ProbeFailure};
use crate::observation::Nanos;

/// In the header of every record about a probe, and never changed by any wrapping's escapes.
const NEEDLE: &[u8] = b"prober.go:";
/// Longest line; what is longer is left out and counted.
const MAX_LINE: usize = 4 * 1024 * 1024;
const BLOCK: usize = 256 * 1024;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read the kubelet's log {file}: {source}")]
pub struct ScanError {
    /// Which.
    pub file: String,
    /// Why.
    pub source: std::io::Error,
}

/// Takes a log in blocks of any size, cut anywhere.
#[derive(Debug)]
pub struct Scanner {
    parser: LineParser,
    needle: Finder<'static>,
    /// The beginning of a line whose end is in the next block.
    rest: Vec<u8>,
    /// The line is too long already.
    skipping: bool,
    lines: u64,
    /// The log is followed from somewhere in the middle.
    numbered: bool,
    too_long: u64,
}

impl Scanner {
    /// Lines go to `parser`.
    pub fn new(parser: LineParser) -> Self {
        Self {
            parser,
            needle: Finder::new(NEEDLE),
            rest: Vec::new(),
            skipping: false,
            lines: 0,
            numbered: true,
            too_long: 0,
        }
    }

    /// For a log whose beginning is not read: failures have no line number.
    pub fn without_numbers(parser: LineParser) -> Self {
        Self { numbered: false, ..Self::new(parser) }
    }

    /// For a log that is followed: no line is younger than `now`.
    pub fn not_after(&mut self, now: Nanos) {
        self.parser.not_after(now);
    }

    /// Nothing came for a while: completes the record whose following lines were waited for.
    pub fn flush(&mut self, found: &mut Vec<ProbeFailure>) {
        self.parser.flush(found);
    }

    /// Another log begins: half a line of the old one is left out.
    pub fn restart(&mut self, found: &mut Vec<ProbeFailure>) {
        self.rest.clear();
        self.skipping = false;
        self.parser.flush(found);
    }

    /// The number of the line that was counted last.
    fn number(&self) -> Option<u64> {
        self.numbered.then_some(self.lines)
    }

    /// Takes the next block.
    pub fn feed(&mut self, block: &[u8], found: &mut Vec<ProbeFailure>) {
        let Some(first_end) = memchr::memchr(b'\n', block) else {
            self.keep(block);
            return;
        };
        let (first, after) = block.split_at(first_end);
        self.keep(first);
        let line = std::mem::take(&mut self.rest);
        self.lines += 1;
        if std::mem::take(&mut self.skipping) {
            self.too_long += 1;
        } else if self.parser.wants_next() || self.needle.find(&line).is_some() || hides_text(&line) {
            let number = self.number();
            self.parser.line(&line, number, found);
        }
        let after = after.get(1..).unwrap_or_default();
        let whole = memchr::memrchr(b'\n', after).map_or(0, |end| end + 1);
        let (whole, rest) = after.split_at(whole);
        self.whole_lines(whole, found);
        // The buffer is used again.
        self.rest = line;
        self.rest.clear();
        self.keep(rest);
    }

    /// The log ends here.
    pub fn finish(&mut self, found: &mut Vec<ProbeFailure>) {
        if !self.rest.is_empty() || self.skipping {
            self.feed(b"\n", found);
        }
        self.parser.flush(found);
    }

    /// Lines so far.
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// Lines that were left out because they are longer than 4 MiB.
    pub const fn too_long(&self) -> u64 {
        self.too_long
    }

    /// What could not be done as it should.
    pub const fn counts(&self) -> ParserCounts {
        self.parser.counts()
    }

    fn keep(&mut self, part: &[u8]) {
        if self.skipping || self.rest.len() + part.len() > MAX_LINE {
            self.skipping = true;
            self.rest.clear();
        } else {
            self.rest.extend_from_slice(part);
        }
    }

    fn whole_lines(&mut self, block: &[u8], found: &mut Vec<ProbeFailure>) {
        let mut hit = self.needle.find(block);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', block) {
            let line = block.get(start..end).unwrap_or_default();
            self.lines += 1;
            let is_hit = hit.is_some_and(|hit| hit < end);
            if is_hit || self.parser.wants_next() || hides_text(line) {
                let number = self.number();
                self.parser.line(line, number, found);
            }
            start = end + 1;
            if is_hit {
                hit = self.needle.find(block.get(start..).unwrap_or_default()).map(|at| start + at);
            }
        }
    }
}

/// Reads a whole log. `file` is for the error.
pub fn scan_reader(
    mut reader: impl Read,
    file: &str,
    parser: LineParser,
) -> Result<(Vec<ProbeFailure>, Scanner), ScanError> {
    let mut scanner = Scanner::new(parser);
    let mut found = Vec::new();
    let mut block = vec![0; BLOCK];
    loop {
        match reader.read(&mut block) {
            Ok(0) => break,
            Ok(read) => scanner.feed(block.get(..read).unwrap_or_default(), &mut found),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ScanError { file: file.to_owned(), source }),
        }
    }
    scanner.finish(&mut found);
    Ok((found, scanner))
}
