//! Reading and parsing side by side: one thread waits for the disk, the other works on what came.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::capture::{HEADROOM, Pieces, read_piece};

/// Pieces that are on their way.
const PIECES: usize = 4;

/// Reads `input` on this thread while `parse` takes the same bytes on another. Reading stops when `parse` returns.
pub(super) fn through<T: Send>(input: &mut dyn Read, parse: impl FnOnce(PipeEnd) -> T + Send) -> T {
    let (full, pieces) = sync_channel(PIECES);
    let (used, empty) = sync_channel(PIECES + 2);
    let end = PipeEnd { pieces, used };
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
        let piece = read_piece(input, empty.try_recv().unwrap_or_default());
        let last = piece.as_ref().map_or(true, |piece| piece.len() <= HEADROOM);
        if full.send(piece).is_err() || last {
            return;
        }
    }
}

/// The parser's end.
pub(super) struct PipeEnd {
    pieces: Receiver<Piece>,
    used: SyncSender<Vec<u8>>,
}

impl Pieces for PipeEnd {
    fn next(&mut self, spent: Vec<u8>) -> io::Result<Vec<u8>> {
        if spent.capacity() > 0 {
            // Used again; if the reader is ahead, it has enough.
            let _ = self.used.try_send(spent);
        }
        self.pieces.recv().unwrap_or_else(|_| Ok(Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All bytes of a pipe, or those before an error.
    fn all(mut end: PipeEnd) -> (Vec<u8>, Option<String>) {
        let mut out = Vec::new();
        loop {
            match end.next(Vec::new()) {
                Ok(piece) if piece.len() <= HEADROOM => return (out, None),
                Ok(piece) => out.extend_from_slice(&piece[HEADROOM..]),
                Err(error) => return (out, Some(error.to_string())),
            }
        }
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let bytes: Vec<u8> = (0..3_000_001_u32).flat_map(u32::to_le_bytes).collect();
        assert!(through(&mut bytes.as_slice(), all) == (bytes, None));
    }

    #[test]
    fn a_parser_that_stops_early_stops_the_reading() {
        let first = through(&mut io::repeat(7), |mut end| end.next(Vec::new()).map(|piece| piece[HEADROOM]));
        assert_eq!(first.unwrap(), 7);
    }

    #[test]
    fn an_error_comes_after_what_was_read() {
        let read = through(&mut (&b"abc"[..]).chain(Broken), all);
        assert_eq!(read, (b"abc".to_vec(), Some("broken".to_owned())));
    }
}
