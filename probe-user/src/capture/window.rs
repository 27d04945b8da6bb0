//! A window that moves over a stream: a record is looked at where it lies, and the window grows only for a large one.

use std::io::{self, ErrorKind, Read};

/// How much is read at a time.
const PIECE: usize = 1 << 17;
/// Free space before the bytes of a piece, for what is left of the piece before.
pub const HEADROOM: usize = 1 << 14;
/// The largest piece that may be asked for. Nothing that was captured comes near it.
pub(super) const MAX_PIECE: usize = 64 << 20;

/// A stream that comes in pieces, so that nobody has to copy them. A piece begins with [`HEADROOM`] bytes of no meaning.
pub trait Pieces {
    /// The next piece; at the end of the stream one without any bytes after its headroom. `spent` may be used again.
    fn next(&mut self, spent: Vec<u8>) -> io::Result<Vec<u8>>;
}

/// Reads a piece into `piece`, whatever it was.
pub fn read_piece(reader: &mut dyn Read, mut piece: Vec<u8>) -> io::Result<Vec<u8>> {
    piece.resize(HEADROOM + PIECE, 0);
    loop {
        match reader.read(piece.get_mut(HEADROOM..).unwrap_or_default()) {
            Ok(count) => {
                piece.truncate(HEADROOM + count);
                return Ok(piece);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Any reader, in pieces.
pub(super) struct Plain<R>(pub(super) R);

impl<R: Read> Pieces for Plain<R> {
    fn next(&mut self, spent: Vec<u8>) -> io::Result<Vec<u8>> {
        read_piece(&mut self.0, spent)
    }
}

/// Bytes of a stream, from the current place on.
pub(super) struct Window<S> {
    source: S,
    piece: Vec<u8>,
    /// A piece that is used up.
    spare: Vec<u8>,
    start: usize,
    /// Bytes of the stream before `start`.
    offset: u64,
    ended: bool,
}

impl<S: Pieces> Window<S> {
    pub(super) const fn new(source: S) -> Self {
        Self { source, piece: Vec::new(), spare: Vec::new(), start: 0, offset: 0, ended: false }
    }

    /// Where the window begins, bytes from the beginning of the stream.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// What is there without asking for more.
    pub(super) fn at_hand(&self) -> &[u8] {
        self.piece.get(self.start..).unwrap_or_default()
    }

    /// At least `count` bytes, or all that are left.
    #[inline]
    pub(super) fn want(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.piece.len() - self.start < count && !self.ended {
            self.fill(count.min(MAX_PIECE))?;
        }
        Ok(self.piece.get(self.start..).unwrap_or_default())
    }

    /// Takes pieces until there are `count` bytes. Memory grows with what came, not with what was asked for.
    #[cold]
    fn fill(&mut self, count: usize) -> io::Result<()> {
        while self.piece.len() - self.start < count {
            let next = match self.source.next(std::mem::take(&mut self.spare)) {
                Ok(next) => next,
                Err(error) => {
                    // What was read before is still good; only one who wants more meets the error again.
                    self.ended = true;
                    return Err(error);
                }
            };
            if next.len() <= HEADROOM {
                self.ended = true;
                break;
            }
            self.spare = self.append(next);
        }
        Ok(())
    }

    /// Puts a piece behind what is left; returns the vector that is free now.
    fn append(&mut self, mut next: Vec<u8>) -> Vec<u8> {
        let left = self.piece.get(self.start..).unwrap_or_default();
        let Some(begin) = HEADROOM.checked_sub(left.len()) else {
            self.piece.drain(..self.start);
            self.start = 0;
            self.piece.extend_from_slice(next.get(HEADROOM..).unwrap_or_default());
            return next;
        };
        if let Some(room) = next.get_mut(begin..HEADROOM) {
            room.copy_from_slice(left);
        }
        self.start = begin;
        std::mem::replace(&mut self.piece, next)
    }

    /// Moves on by `count` bytes that [`Self::want`] showed.
    pub(super) fn advance(&mut self, count: usize) {
        let count = count.min(self.piece.len() - self.start);
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
    fn what_is_longer_than_a_piece_comes_whole_and_takes_no_more_memory_than_it_has() {
        let bytes: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut window = Window::new(Plain(bytes.as_slice()));
        window.want(10).unwrap();
        window.advance(7);
        assert_eq!(window.want(1_500_000).unwrap()[..1_500_000], bytes[7..1_500_007]);
        assert_eq!(window.want(MAX_PIECE).unwrap(), &bytes[7..]);
        assert!(window.piece.capacity() < 5_000_000, "{}", window.piece.capacity());
    }

    #[test]
    fn pieces_come_whole_however_the_stream_is_cut() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut window = Window::new(Plain(Slow(&bytes)));
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
