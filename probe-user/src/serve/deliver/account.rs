//! What one way says of itself: its counts, and its trouble, shared by its task and whoever asks.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::serve::snapshot::DeliveryView;

/// Counts of one way, and what waits.
#[derive(Debug, Default)]
struct State {
    view: DeliveryView,
    /// What was taken and has neither arrived nor been given up.
    waiting: u64,
}

/// The account of one way.
#[derive(Clone, Debug)]
pub(super) struct Account {
    name: &'static str,
    /// What it carries, in the plural.
    what: &'static str,
    state: Arc<Mutex<State>>,
}

impl Account {
    /// One of a way of this name, which carries `what`.
    pub(super) fn new(name: &'static str, what: &'static str) -> Self {
        Self { name, what, state: Arc::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // Whoever panicked left whole numbers behind.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn view(&self) -> DeliveryView {
        self.with(|state| state.view.clone())
    }

    /// Goes on with the counts of another.
    pub(super) fn inherit(&self, other: &Self) {
        let DeliveryView { sent, failed, dropped, trouble: _ } = other.view();
        self.with(|state| {
            state.view.sent += sent;
            state.view.failed += failed;
            state.view.dropped += dropped;
        });
    }

    /// One more waits.
    pub(super) fn taken(&self) {
        self.with(|state| state.waiting += 1);
    }

    /// One waits no more, and was not meant to arrive.
    pub(super) fn not_meant(&self) {
        self.with(|state| state.waiting = state.waiting.saturating_sub(1));
    }

    pub(super) fn arrived(&self, count: u64) {
        let trouble = self.with(|state| {
            state.waiting = state.waiting.saturating_sub(count);
            state.view.sent += count;
            state.view.trouble.take()
        });
        if trouble.is_some() {
            tracing::info!("{}: {} arrive again", self.name, self.what);
        }
    }

    /// An attempt failed.
    pub(super) fn failed(&self, reason: &str) {
        let known = self.with(|state| {
            state.view.failed += 1;
            let known = state.view.trouble.as_deref() == Some(reason);
            state.view.trouble = Some(reason.to_owned());
            known
        });
        if !known {
            tracing::warn!("{}: {reason}", self.name);
        }
    }

    pub(super) fn given_up(&self, count: u64) {
        self.with(|state| {
            state.waiting = state.waiting.saturating_sub(count);
            state.view.dropped += count;
        });
    }

    /// Waits for the end of the way's task; what has not arrived by then is given up.
    pub(super) async fn finish(&self, task: &mut JoinHandle<()>, deadline: Instant) {
        if timeout_at(deadline, &mut *task).await.is_err() {
            task.abort();
        }
        let left = self.with(|state| state.waiting);
        if left > 0 {
            self.given_up(left);
            tracing::warn!("{}: {left} {} did not arrive in time", self.name, self.what);
        }
    }
}
