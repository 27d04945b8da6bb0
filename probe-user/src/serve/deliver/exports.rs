//! Metrics on their way out: every so often the loop that traces is asked how things are, and the answer is sent. An export
//! that fails is not tried again, because the next one says all that it said; only the last one can be lost.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::account::Account;
use super::otlp_metrics::OtlpMetrics;
use super::way::Failure;
use crate::serve::snapshot::{DeliveryView, Requests, Snapshot};

/// Longest time for which a receiver that asks for patience is left alone.
const MAX_PATIENCE: Duration = Duration::from_mins(15);

type Last = Box<Snapshot>;

/// Exports at work. They end when this is dropped.
pub(super) struct Exports {
    account: Account,
    last: Option<oneshot::Sender<Last>>,
    task: JoinHandle<()>,
}

impl Exports {
    /// The first one at once, then one `every` so often.
    pub(super) fn start(
        name: &'static str,
        metrics: OtlpMetrics,
        requests: Requests,
        every: Duration,
    ) -> Self {
        let account = Account::new(name, "exports");
        let (last, is_last) = oneshot::channel();
        let worker = Worker { metrics, requests, every, account: account.clone() };
        Self { account, last: Some(last), task: tokio::spawn(worker.work(is_last)) }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.account.name()
    }

    pub(super) fn view(&self) -> DeliveryView {
        self.account.view()
    }

    /// Goes on with the counts of another.
    pub(super) fn inherit(&self, other: &Self) {
        self.account.inherit(&other.account);
    }

    /// Sends this one and no more. One that is under way is left: this one says all that it says.
    pub(super) fn close(&mut self, last: Last) {
        let Some(sender) = self.last.take() else { return };
        self.account.taken();
        if sender.send(last).is_err() {
            self.account.given_up(1);
        }
    }

    /// Waits for the last one; if it has not arrived by then it is given up.
    pub(super) async fn finish(&mut self, deadline: Instant) {
        self.account.finish(&mut self.task, deadline).await;
    }
}

impl Drop for Exports {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    metrics: OtlpMetrics,
    requests: Requests,
    every: Duration,
    account: Account,
}

impl Worker {
    async fn work(self, mut last: oneshot::Receiver<Last>) {
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                last = &mut last => {
                    if let Ok(last) = last {
                        self.export_last(last).await;
                    }
                    return;
                }
                next = self.export_at(due) => due = next,
            }
        }
    }

    /// One export. Returns when the next one is due.
    async fn export_at(&self, due: Instant) -> Instant {
        sleep_until(due).await;
        let next = Instant::now() + self.every;
        let Some(snapshot) = self.ask().await else {
            self.account.failed("the loop that traces does not say how things are");
            return next;
        };
        match self.metrics.export(snapshot).await {
            Ok(()) => {
                self.account.arrived(1);
                next
            }
            Err(failure) => next.max(Instant::now() + self.note(failure)),
        }
    }

    async fn ask(&self) -> Option<Box<Snapshot>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(reply).await.ok()?;
        answer.await.ok()
    }

    async fn export_last(&self, last: Last) {
        match self.metrics.export(last).await {
            Ok(()) => self.account.arrived(1),
            Err(failure) => {
                self.note(failure);
                self.account.given_up(1);
            }
        }
    }

    /// Notes a failure. Returns how long the receiver wants to be left alone.
    fn note(&self, failure: Failure) -> Duration {
        let (reason, after) = match failure {
            Failure::Later { reason, after } => (reason, after.unwrap_or_default()),
            Failure::Never(reason) => (reason, Duration::ZERO),
        };
        self.account.failed(&reason);
        after.min(MAX_PATIENCE)
    }
}

#[cfg(test)]
#[path = "exports_tests.rs"]
mod tests;
