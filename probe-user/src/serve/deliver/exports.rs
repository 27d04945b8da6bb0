//! Metrics on their way out: every so often the loop that traces is asked how things are, and the answer is sent. An export
//! that fails is not tried again, because the next one says all that it said; only the last one can be lost.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::account::Account;
use super::carrier::Failure;
use super::otlp_metrics::OtlpMetrics;
use super::target::{Target, TargetError};
use super::{Options, Patience, TargetOptions};
use crate::serve::snapshot::{DeliveryView, Requests, Snapshot};

/// Longest time for which a receiver that asks for patience is left alone.
const MAX_PATIENCE: Duration = Duration::from_mins(15);

type Last = Box<Snapshot>;

/// Exports as the options ask for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExportPlan {
    receiver: TargetOptions,
    node: Option<String>,
    every: Duration,
}

impl ExportPlan {
    /// `None` = they ask for none.
    pub(super) fn of(options: &Options) -> Option<Self> {
        let (receiver, every) = (options.otlp.clone()?, options.otlp_metrics_every?);
        Some(Self { receiver, node: options.node.clone(), every })
    }

    /// What exports them. Fails if an option is wrong.
    pub(super) fn metrics(&self, patience: Patience) -> Result<OtlpMetrics, TargetError> {
        let target = Target::new("--otlp", &self.receiver, patience.timeouts)?;
        Ok(OtlpMetrics::new(target, self.node.clone()))
    }
}

/// Exports at work. They end when this is dropped.
pub(super) struct Exports {
    plan: ExportPlan,
    account: Account,
    last: Option<oneshot::Sender<Last>>,
    task: JoinHandle<()>,
}

impl Exports {
    /// The first one at once, then one so often as `plan` says.
    pub(super) fn start(plan: ExportPlan, metrics: OtlpMetrics, requests: Requests) -> Self {
        Self::start_for(plan, metrics, requests, Account::new("otlp_metrics", "exports"))
    }

    fn start_for(plan: ExportPlan, metrics: OtlpMetrics, requests: Requests, account: Account) -> Self {
        let (last, is_last) = oneshot::channel();
        let worker = Worker { metrics, requests, every: plan.every, account: account.clone() };
        Self { plan, account, last: Some(last), task: tokio::spawn(worker.work(is_last)) }
    }

    /// Goes on by another plan, with the same counts, unless it is the same plan. An export that is under way is left: the
    /// next one says all that it says.
    pub(super) fn change(&mut self, plan: ExportPlan, metrics: OtlpMetrics, requests: Requests) {
        if self.plan != plan {
            *self = Self::start_for(plan, metrics, requests, self.account.heir());
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.account.name()
    }

    pub(super) fn view(&self) -> DeliveryView {
        self.account.view()
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
        if timeout_at(deadline, &mut self.task).await.is_err() {
            self.task.abort();
        }
        self.account.give_up_rest();
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
                self.arrived();
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
            Ok(()) => self.arrived(),
            Err(failure) => {
                self.note(failure);
                self.account.given_up(1);
            }
        }
    }

    fn arrived(&self) {
        self.account.arrived(1);
        self.account.recovered();
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
