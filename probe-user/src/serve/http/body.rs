//! Bodies of answers: bytes that are there, or a file that is read piece by piece.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::Instant;

/// Bytes of a file that are in memory at a time.
const PIECE: u64 = 64 << 10;

/// What an answer consists of.
pub(super) enum Content {
    /// All of it; taken when it is sent.
    Whole(Bytes),
    /// As many bytes of a file. Local files are read where they are wanted: this thread has nothing else to do, and
    /// needs no more threads after privileges are dropped.
    File(File, u64),
}

/// A body that sets the connection's deadline when it ends, one way or the other.
pub(super) struct Answer {
    content: Content,
    then: Option<(watch::Sender<Instant>, Duration)>,
}

impl From<Content> for Answer {
    fn from(content: Content) -> Self {
        Self { content, then: None }
    }
}

impl Answer {
    /// When it ended, the connection has so long until the next request.
    pub(super) fn then(mut self, deadline: watch::Sender<Instant>, idle: Duration) -> Self {
        self.then = Some((deadline, idle));
        self
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some((deadline, idle)) = &self.then {
            deadline.send_replace(Instant::now() + *idle);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Content::File(_, 0) => None,
            Content::File(file, left) => Some(piece(file, left).map(Frame::data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.content {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::File(_, left) => *left,
        })
    }
}

fn piece(file: &mut File, left: &mut u64) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    file.take(PIECE.min(*left)).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    *left = left.saturating_sub(bytes.len() as u64);
    Ok(bytes.into())
}
