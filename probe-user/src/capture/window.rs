//! A window that moves over a stream: a record is looked at where it lies, and the window grows only for a large one.

use std::io::{self, ErrorKind, Read};

/// How much is read at a time.
const CHUNK: usize = 1 << 18;
/// The largest piece that may be asked for. Nothing that was captured comes near it.
pub(super) const MAX_PIECE: usize = 64 << 20;

/// Bytes of a stream, from the current place on.
pub(super) struct Window<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the stream before `start`.
    offset: u64,
    ended: bool,
}

impl<R: Read> Window<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: vec![0; CHUNK], start: 0, end: 0, offset: 0, ended: false }
    }

    /// Where the window begins, bytes from the beginning of the stream.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// At least `count` bytes, or all that are left.
    pub(super) fn want(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.end - self.start < count && !self.ended {
            self.fill(count.min(MAX_PIECE))?;
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    #[cold]
    fn fill(&mut self, count: usize) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < count {
            self.buffer.resize(count.next_multiple_of(CHUNK), 0);
        }
        while self.end < count {
            let Some(space) = self.buffer.get_mut(self.end..) else { break };
            match self.reader.read(space) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // What was read before is still good; only one who wants more meets the error again.
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Moves on by `count` bytes that [`Self::want`] showed.
    pub(super) fn advance(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.offset += count as u64;
    }

    /// Moves on by `count` bytes, whether they were looked at or not; returns how many there were.
    pub(super) fn skip(&mut self, count: u64) -> io::Result<u64> {
        let mut left = count;
        while left > 0 {
            let step = self.want(1)?.len();
            if step == 0 {
                break;
            }
            let step = usize::try_from(left).map_or(step, |left| step.min(left));
            self.advance(step);
            left -= step as u64;
        }
        Ok(count - left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let (Some((first, rest)), Some(space)) = (self.0.split_first(), into.first_mut()) else {
                return Ok(0);
            };
            *space = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    #[test]
    fn pieces_come_whole_however_the_stream_is_cut() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut window = Window::new(Slow(&bytes));
        assert_eq!(window.want(4).unwrap()[..4], [0, 1, 2, 3]);
        window.advance(2);
        assert_eq!((window.offset(), window.want(3).unwrap()[..3].to_vec()), (2, vec![2, 3, 4]));
        assert_eq!(window.skip(200).unwrap(), 200);
        assert_eq!(window.want(1).unwrap()[0], 202);
        assert_eq!(window.want(1000).unwrap().len(), 54);
        assert_eq!(window.skip(1000).unwrap(), 54);
        assert!(window.want(1).unwrap().is_empty());
        assert_eq!(window.offset(), 256);
    }
}
