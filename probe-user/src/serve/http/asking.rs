//! Asks the loop that traces, one question at a time, however many clients want to know.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout};

use crate::serve::snapshot::{Requests, Snapshot};

/// The loop and its last answer.
pub(super) struct Asking {
    requests: Requests,
    patience: Duration,
    reuse: Duration,
    last: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

/// The loop that traces did not answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the tracing loop has not answered within {} s", .0.as_secs_f64())]
pub(super) struct Silent(Duration);

impl Asking {
    pub(super) fn new(requests: Requests, patience: Duration, reuse: Duration) -> Self {
        Self { requests, patience, reuse, last: Mutex::default() }
    }

    /// What the loop says now, or said a moment ago.
    pub(super) async fn snapshot(&self) -> Result<Arc<Snapshot>, Silent> {
        timeout(self.patience, self.ask()).await.ok().flatten().ok_or(Silent(self.patience))
    }

    async fn ask(&self) -> Option<Arc<Snapshot>> {
        let mut last = self.last.lock().await;
        if let Some((at, snapshot)) = &*last
            && at.elapsed() < self.reuse
        {
            return Some(Arc::clone(snapshot));
        }
        let (reply, answer) = oneshot::channel();
        self.requests.send(reply).await.ok()?;
        let snapshot: Arc<Snapshot> = answer.await.ok()?.into();
        *last = Some((Instant::now(), Arc::clone(&snapshot)));
        Some(snapshot)
    }
}
