//! One way out: what waits for it, and its task.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Patience;
use super::account::Account;
use super::carrier::{Carrier, Plan};
use super::lanes::Waiting;
use super::worker::Worker;
use crate::diagnosis::incident::Incident;
use crate::serve::snapshot::DeliveryView;

/// Incidents that wait for one way. More are counted as dropped.
pub(super) const MAX_WAITING: usize = 256;

/// One way at work. It ends when this is dropped.
pub(super) struct Way {
    plan: Plan,
    queue: Option<mpsc::UnboundedSender<Waiting>>,
    /// Bounds the queue: whatever waits has a place, also what the task has taken from the queue.
    places: Arc<Semaphore>,
    /// At most one per change of the options and attempt.
    changes: mpsc::UnboundedSender<Carrier>,
    account: Account,
    end: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

impl Way {
    /// `carrier`: as `plan` says.
    pub(super) fn start(plan: Plan, carrier: Carrier, account: Account, patience: Patience) -> Self {
        let (queue, incidents) = mpsc::unbounded_channel();
        let (changes, others) = mpsc::unbounded_channel();
        let (end, is_end) = watch::channel(None);
        let worker = Worker::new(carrier, incidents, others, account.clone(), patience);
        let task = tokio::spawn(worker.work(is_end));
        let places = Arc::new(Semaphore::new(MAX_WAITING));
        Self { plan, queue: Some(queue), places, changes, account, end, task }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.account.name()
    }

    pub(super) const fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn view(&self) -> DeliveryView {
        self.account.view()
    }

    pub(super) fn send(&self, incident: &Arc<Incident>) {
        let Some(queue) = &self.queue else { return };
        self.account.taken();
        let since = Instant::now();
        let sent = Arc::clone(&self.places).try_acquire_owned().is_ok_and(|place| {
            queue.send(Waiting { since, incident: Arc::clone(incident), _place: place }).is_ok()
        });
        if !sent {
            self.account.given_up(1);
        }
    }

    /// Goes on by another plan, unless it is the same: an attempt that is under way ends; what waits, is held or comes then
    /// goes the new way.
    pub(super) fn change(&mut self, plan: Plan, carrier: Carrier) {
        if self.plan != plan {
            self.plan = plan;
            // A task that has ended gave up what it had.
            let _ = self.changes.send(carrier);
        }
    }

    /// Takes no more incidents, and hurries.
    pub(super) fn close(&mut self) {
        self.queue = None;
    }

    /// Lets it end at that time, or at an earlier one that it was told before. What has not arrived by then is given up.
    pub(super) fn end_by(&self, deadline: Instant) {
        self.end.send_modify(|end| *end = Some(end.map_or(deadline, |before| before.min(deadline))));
    }

    /// Whether a closed way has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for the end of a closed way.
    pub(super) async fn finish(&mut self) {
        if (&mut self.task).await.is_err() {
            self.account.give_up_rest();
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}
