//! Reading and parsing side by side: one thread waits for the disk, the other works on what came.

use std::io::{self, ErrorKind, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of one piece.
const PIECE: usize = 1 << 18;
/// Pieces that are on their way.
const PIECES: usize = 4;

/// Reads `input` on this thread while `parse` reads the same bytes on another. Reading stops when `parse` returns.
pub(super) fn through<T: Send>(input: &mut dyn Read, parse: impl FnOnce(PipeEnd) -> T + Send) -> T {
    let (full, pieces) = sync_channel(PIECES);
    let (used, empty) = sync_channel(PIECES + 2);
    let end = PipeEnd { pieces, used, piece: Vec::new(), at: 0 };
    std::thread::scope(|scope| {
        let parser = scope.spawn(move || parse(end));
        feed(input, &full, &empty);
        // The parser's stream ends here.
        drop(full);
        match parser.join() {
            Ok(parsed) => parsed,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

type Piece = io::Result<Vec<u8>>;

fn feed(input: &mut dyn Read, full: &SyncSender<Piece>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut piece = empty.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let piece = match input.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                piece.truncate(count);
                Ok(piece)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = piece.is_err();
        if full.send(piece).is_err() || failed {
            return;
        }
    }
}

/// The parser's end.
pub(super) struct PipeEnd {
    pieces: Receiver<Piece>,
    used: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for PipeEnd {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.piece.len() {
            let Ok(next) = self.pieces.recv() else { return Ok(0) };
            let used = std::mem::replace(&mut self.piece, next?);
            self.at = 0;
            // Used again; if the reader is ahead, it has enough.
            let _ = self.used.try_send(used);
        }
        let left = self.piece.get(self.at..).unwrap_or_default();
        let count = left.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..count), left.get(..count)) {
            into.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let bytes: Vec<u8> = (0..3_000_001_u32).flat_map(u32::to_le_bytes).collect();
        let out = through(&mut bytes.as_slice(), |mut end| {
            let mut out = Vec::new();
            end.read_to_end(&mut out).map(|_| out)
        });
        assert!(out.unwrap() == bytes);
    }

    #[test]
    fn a_parser_that_stops_early_stops_the_reading_and_an_error_comes_after_what_was_read() {
        let first = through(&mut io::repeat(7), |mut end| {
            let mut byte = [0];
            end.read(&mut byte).map(|_| byte)
        });
        assert_eq!(first.unwrap(), [7]);
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let (read, error) = through(&mut (&b"abc"[..]).chain(Broken), |mut end| {
            let mut out = Vec::new();
            let error = end.read_to_end(&mut out).err().map(|error| error.to_string());
            (out, error)
        });
        assert_eq!((read.as_slice(), error.as_deref()), (&b"abc"[..], Some("broken")));
    }
}
