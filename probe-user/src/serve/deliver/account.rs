//! What one way says of itself: its counts, and its trouble, shared by its task and whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::serve::snapshot::DeliveryView;

/// The account of one way.
#[derive(Clone, Debug)]
pub(super) struct Account {
    name: &'static str,
    /// What it carries, in the plural.
    what: &'static str,
    view: Arc<Mutex<DeliveryView>>,
    /// What was taken and has neither arrived nor been given up.
    waiting: Arc<AtomicU64>,
}

impl Account {
    /// One of a way of this name, which carries `what`.
    pub(super) fn new(name: &'static str, what: &'static str) -> Self {
        Self { name, what, view: Arc::default(), waiting: Arc::default() }
    }

    /// That of a way which follows on another: the counts go on, and each knows what waits for itself.
    pub(super) fn heir(&self) -> Self {
        Self { waiting: Arc::default(), ..self.clone() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut DeliveryView) -> T) -> T {
        // Whoever panicked left whole numbers behind.
        work(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn view(&self) -> DeliveryView {
        self.with(|view| view.clone())
    }

    /// One more waits.
    pub(super) fn taken(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// One waits no more, and was not meant to arrive.
    pub(super) fn not_meant(&self) {
        self.wait_less(1);
    }

    fn wait_less(&self, count: u64) {
        let less = |waiting: u64| Some(waiting.saturating_sub(count));
        // Never an error: there is always a new number.
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    pub(super) fn arrived(&self, count: u64) {
        self.wait_less(count);
        self.with(|view| view.sent += count);
    }

    /// Nothing that failed waits any more.
    pub(super) fn recovered(&self) {
        if self.forget_trouble() {
            tracing::info!("{}: {} arrive again", self.name, self.what);
        }
    }

    /// For a while nothing failed, because nothing was sent.
    pub(super) fn quiet(&self) {
        if self.forget_trouble() {
            tracing::info!("{}: no {} wait, and for a while none failed", self.name, self.what);
        }
    }

    /// Returns whether there was one.
    pub(super) fn forget_trouble(&self) -> bool {
        self.with(|view| view.trouble.take()).is_some()
    }

    /// An attempt failed.
    pub(super) fn failed(&self, reason: &str) {
        let known = self.with(|view| {
            view.failed += 1;
            let known = view.trouble.as_deref() == Some(reason);
            view.trouble = Some(reason.to_owned());
            known
        });
        if !known {
            tracing::warn!("{}: {reason}", self.name);
        }
    }

    pub(super) fn given_up(&self, count: u64) {
        self.wait_less(count);
        self.with(|view| view.dropped += count);
    }

    /// The time is over: what still waits is given up.
    pub(super) fn give_up_rest(&self) {
        let left = self.waiting.swap(0, Ordering::Relaxed);
        if left > 0 {
            self.given_up(left);
            tracing::warn!("{}: {left} {} did not arrive in time", self.name, self.what);
        }
    }
}
