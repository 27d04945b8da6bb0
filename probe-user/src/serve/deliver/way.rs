//! One way out: its queue, its attempts, its counts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Patience;
use super::account::Account;
use crate::diagnosis::incident::Incident;
use crate::serve::snapshot::DeliveryView;

/// Incidents that wait for one way. More are counted as dropped.
pub(super) const MAX_WAITING: usize = 256;

/// What became of an incident.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "kube"),
    expect(dead_code, reason = "only Events are held, and not for every incident")
)]
pub(super) enum Carried {
    /// It arrived.
    Arrived,
    /// It is not for this way.
    NotMeant,
    /// [`Carrier::settle`] will send it, with others.
    Held,
}

/// Why it did not arrive. Never contains a token or what a server sent.
#[derive(Debug)]
pub(super) enum Failure {
    /// Try again, not before that time.
    Later { reason: String, after: Option<Duration> },
    /// It will not get better.
    Never(String),
}

impl Failure {
    /// Try again.
    pub(super) const fn later(reason: String) -> Self {
        Self::Later { reason, after: None }
    }
}

/// How incidents are carried on one way.
pub(super) trait Carrier: Send + 'static {
    /// Carries one.
    fn carry(&mut self, incident: &Incident) -> impl Future<Output = Result<Carried, Failure>> + Send;

    /// When [`Self::settle`] has something to do.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Sends some of what was held and is due, or some of all that is held.
    fn settle(&mut self, all: bool) -> impl Future<Output = Settled> + Send {
        let _ = all;
        std::future::ready(Settled::default())
    }
}

/// What became of incidents that were held.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Incidents that arrived.
    pub(super) arrived: u64,
    /// Incidents that were given up.
    pub(super) lost: u64,
    /// Why something did not arrive.
    pub(super) failure: Option<Failure>,
}

/// Incidents on their way, each with the time it was handed over.
type Queue = mpsc::Sender<(Instant, Arc<Incident>)>;

/// One way at work. It ends when this is dropped.
pub(super) struct Way {
    queue: Option<Queue>,
    account: Account,
    ending: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Way {
    pub(super) fn start(name: &'static str, carrier: impl Carrier, patience: Patience) -> Self {
        let (queue, incidents) = mpsc::channel(MAX_WAITING);
        let (ending, is_ending) = watch::channel(false);
        let account = Account::new(name, "incidents");
        let worker = Worker { carrier, incidents, is_ending, account: account.clone(), patience };
        Self { queue: Some(queue), account, ending, task: tokio::spawn(worker.work()) }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.account.name()
    }

    pub(super) fn view(&self) -> DeliveryView {
        self.account.view()
    }

    pub(super) fn send(&self, incident: &Arc<Incident>) {
        let Some(queue) = &self.queue else { return };
        self.account.taken();
        if queue.try_send((Instant::now(), Arc::clone(incident))).is_err() {
            self.account.given_up(1);
        }
    }

    /// Goes on with the counts of another.
    pub(super) fn inherit(&self, other: &Self) {
        self.account.inherit(&other.account);
    }

    /// Takes no more incidents, and hurries.
    pub(super) fn close(&mut self) {
        self.queue = None;
        self.ending.send_replace(true);
    }

    /// Waits for the end of a closed way; what has not arrived by then is given up.
    pub(super) async fn finish(&mut self, deadline: Instant) {
        self.account.finish(&mut self.task, deadline).await;
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker<C> {
    carrier: C,
    incidents: mpsc::Receiver<(Instant, Arc<Incident>)>,
    is_ending: watch::Receiver<bool>,
    account: Account,
    patience: Patience,
}

impl<C: Carrier> Worker<C> {
    async fn work(mut self) {
        loop {
            let due = self.carrier.due();
            tokio::select! {
                next = self.incidents.recv() => match next {
                    Some((since, incident)) => self.carry(since, &incident).await,
                    None => break,
                },
                () = until(due) => self.settle(false).await,
            }
        }
        self.settle(true).await;
    }

    async fn carry(&mut self, since: Instant, incident: &Incident) {
        let mut backoff = self.patience.backoff;
        loop {
            let failure = match self.carrier.carry(incident).await {
                Ok(Carried::Arrived) => return self.account.arrived(1),
                Ok(Carried::Held) => return,
                Ok(Carried::NotMeant) => return self.account.not_meant(),
                Err(failure) => failure,
            };
            let Some(wait) = self.note(failure, &mut backoff) else { return self.account.given_up(1) };
            if since.elapsed() + wait > self.patience.give_up {
                return self.account.given_up(1);
            }
            self.pause(wait).await;
        }
    }

    /// The carrier decides when to try again what it still holds; at the end it is tried until the deadline.
    async fn settle(&mut self, all: bool) {
        let mut backoff = self.patience.backoff;
        loop {
            let Settled { arrived, lost, failure } = self.carrier.settle(all).await;
            if arrived > 0 {
                self.account.arrived(arrived);
            }
            self.account.given_up(lost);
            let wait = failure.and_then(|failure| self.note(failure, &mut backoff));
            if !all || (arrived == 0 && lost == 0 && wait.is_none()) {
                return;
            }
            if let Some(wait) = wait {
                self.pause(wait).await;
            }
        }
    }

    /// Notes a failure. Returns how long to wait before the next attempt, if there is to be one.
    fn note(&self, failure: Failure, backoff: &mut crate::pods::clients::Backoff) -> Option<Duration> {
        match failure {
            Failure::Later { reason, after } => {
                self.account.failed(&reason);
                // A server may ask for patience, but not for more than an incident is kept.
                Some(after.map_or_else(|| backoff.wait(), |after| after.min(self.patience.give_up)))
            }
            Failure::Never(reason) => {
                self.account.failed(&reason);
                None
            }
        }
    }

    /// Waits; at the end only briefly.
    async fn pause(&mut self, wait: Duration) {
        /// Between attempts when the time is nearly over.
        const HURRY: Duration = Duration::from_millis(250);
        let end = Instant::now() + wait;
        tokio::select! {
            () = tokio::time::sleep_until(end) => return,
            _ = self.is_ending.wait_for(|ending| *ending) => {}
        }
        sleep(end.saturating_duration_since(Instant::now()).min(HURRY)).await;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
