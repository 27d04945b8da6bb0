//! Parses a body while it comes in: pieces go to a thread that may block, and memory holds a few of them at a time.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::http::{Body, HttpError};
use super::task::blocking;

/// Pieces that may wait for the parser.
const WAITING: usize = 8;

/// What the parser made of the body. That the body broke off comes before anything that the parser says about it.
pub(super) async fn parse_body<T: Send + 'static>(
    body: Body,
    parse: impl FnOnce(&mut dyn Read) -> T + Send + 'static,
) -> Result<T, HttpError> {
    let (send, receive) = mpsc::channel(WAITING);
    let parser = blocking(move || parse(&mut ChunkReader { receive, current: Bytes::new(), ended: false }));
    let (fed, parsed) = tokio::join!(feed(body, send), parser);
    fed.map(|()| parsed)
}

/// The sending end is dropped at the end of this: a reader that has not seen [`Piece::End`] then fails.
async fn feed(mut body: Body, send: mpsc::Sender<Piece>) -> Result<(), HttpError> {
    while let Some(chunk) = body.chunk().await? {
        if send.send(Piece::Data(chunk)).await.is_err() {
            // The parser has seen enough.
            return Ok(());
        }
    }
    let _ = send.send(Piece::End).await;
    Ok(())
}

enum Piece {
    Data(Bytes),
    End,
}

/// Reads from the pieces; an error if they stop without an end.
struct ChunkReader {
    receive: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receive.blocking_recv() {
                Some(Piece::Data(chunk)) => self.current = chunk,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let length = into.len().min(self.current.len());
        let (target, _) = into.split_at_mut(length);
        self.current.copy_to_slice(target);
        Ok(length)
    }
}
