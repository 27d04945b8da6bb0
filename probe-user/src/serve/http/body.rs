//! Bodies of answers: bytes that are there, or a file or incidents that are read piece by piece.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::serve::recent::Recent;

/// Bytes of a file that are in memory at a time.
const PIECE: u64 = 64 << 10;

/// What an answer consists of.
pub(super) enum Content {
    /// All of it; taken when it is sent.
    Whole(Bytes),
    /// As many bytes of a file. Local files are read where they are wanted: this thread has nothing else to do, and
    /// needs no more threads after privileges are dropped.
    File(File, u64),
    /// Incidents.
    Incidents(Listing),
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
            Content::Incidents(listing) => listing.piece().map(|piece| piece.map(Frame::data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::File(_, left) => SizeHint::with_exact(*left),
            Content::Incidents(listing) if listing.ended => SizeHint::with_exact(0),
            Content::Incidents(_) => SizeHint::default(),
        }
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

/// The latest incidents as a JSON array, the newest first. Each is looked up when it is sent, so that a client that does not
/// read holds one of them, not all. What has gone by then is left out, and what came meanwhile as well.
pub(super) struct Listing {
    recent: Recent,
    /// Incidents that may still be sent.
    left: usize,
    /// Number of the last one that was sent.
    last: Option<u64>,
    ended: bool,
}

impl Listing {
    /// At most so many.
    pub(super) const fn new(recent: Recent, most: usize) -> Self {
        Self { recent, left: most, last: None, ended: false }
    }

    fn piece(&mut self) -> Option<io::Result<Bytes>> {
        if self.ended {
            return None;
        }
        let next = if self.left > 0 { self.recent.before(self.last) } else { None };
        let mut bytes = Vec::new();
        if self.last.is_none() {
            bytes.push(b'[');
        }
        let Some((number, incident)) = next else {
            self.ended = true;
            bytes.extend_from_slice(b"]\n");
            return Some(Ok(bytes.into()));
        };
        if self.last.replace(number).is_some() {
            bytes.push(b',');
        }
        self.left -= 1;
        let written = serde_json::to_writer(&mut bytes, &*incident);
        Some(written.map(|()| bytes.into()).map_err(io::Error::other))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnosis::incident::Incident;
    use crate::report::samples;
    use crate::serve::recent::MAX_RECENT;

    fn tell(recent: &Recent, ids: impl IntoIterator<Item = usize>) {
        for id in ids {
            recent.push(Arc::new(Incident { id: id.to_string(), ..samples::hijacked() }));
        }
    }

    /// A client may take as long over the list as it likes: nothing waits for it but the piece that it is reading.
    #[test]
    fn a_list_holds_no_incident_and_stays_json_whatever_goes_meanwhile() {
        let recent = Recent::default();
        tell(&recent, 0..3);
        let kept = recent.get("1").unwrap().incident;
        let mut listing = Listing::new(recent.clone(), MAX_RECENT);
        let mut text = listing.piece().unwrap().unwrap().to_vec();
        // This one, and that of `recent`.
        assert_eq!(Arc::strong_count(&kept), 2);
        tell(&recent, 3..MAX_RECENT + 2);
        assert_eq!(Arc::strong_count(&kept), 1);
        while let Some(piece) = listing.piece() {
            text.extend(piece.unwrap());
        }
        let listed: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let ids: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["2"]);
    }
}
