//! The server over real sockets on loopback. Nothing here waits for a time to pass: what is to be seen is waited for.

mod answers;
mod client;
mod limits;
mod secrets;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{Context, Limits, Options, Server, bind};
use crate::diagnosis::incident::Incident;
use crate::report::{samples, status_samples};
use crate::serve::recent::Recent;
use crate::serve::snapshot::{Request, Snapshot};

/// Longer than anything that works.
const LONG: Duration = Duration::from_mins(1);

/// A server and what it tells.
struct Played {
    server: Server,
    recent: Recent,
    folder: TempDir,
}

impl Played {
    /// A server of a sidecar that says `now` whenever it is asked.
    fn saying(now: Snapshot, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        options.limits = patient();
        change(&mut options);
        let recent = Recent::default();
        let (requests, asked) = mpsc::channel(1);
        let context = Context { requests, recent: recent.clone() };
        let server = bind(&options).unwrap().start(context).unwrap();
        tokio::spawn(answer(asked, now));
        Self { server, recent, folder: tempfile::tempdir().unwrap() }
    }

    fn busy() -> Self {
        Self::saying(status_samples::busy(), |_| {})
    }

    const fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// An incident with this id, and its capture if it has one.
    fn tell(&self, id: &str, capture: Option<&[u8]>) {
        self.recent.push(Arc::new(Incident { id: id.to_owned(), ..samples::hijacked() }));
        if let Some(bytes) = capture {
            let path = self.folder.path().join("x.pcapng");
            std::fs::write(&path, bytes).unwrap();
            self.recent.captured(id, path);
        }
    }
}

async fn answer(mut asked: mpsc::Receiver<Request>, now: Snapshot) {
    while let Some(request) = asked.recv().await {
        let _ = request.send(Box::new(now.clone()));
    }
}

/// Limits that no test runs into by being slow.
fn patient() -> Limits {
    Limits {
        head_timeout: LONG,
        request_timeout: LONG,
        idle_timeout: LONG,
        answer_timeout: LONG,
        reuse: Duration::ZERO,
        ..Limits::default()
    }
}
