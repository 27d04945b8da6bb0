//! The task of one way: which incident is tried when, and what is said of it.

use std::collections::BTreeSet;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Patience;
use super::account::Account;
use super::carrier::{Carried, Carrier, Failure, Settled};
use super::lanes::{HURRY, Lane, Lanes, Waiting};

/// What the task has to do next.
enum Next {
    Take(Waiting),
    TakeNoMore,
    Change(Box<Carrier>),
    Attempt,
    Settle,
    Quiet,
}

/// The task.
pub(super) struct Worker {
    carrier: Carrier,
    incidents: mpsc::UnboundedReceiver<Waiting>,
    changes: mpsc::UnboundedReceiver<Carrier>,
    account: Account,
    patience: Patience,
    lanes: Lanes,
    /// Lanes in which something failed and waits to be tried again.
    failing: BTreeSet<String>,
    /// When an attempt failed, if that is still a trouble.
    failed_at: Option<Instant>,
    /// No more incidents come, and what waits is hurried.
    is_ending: bool,
    /// At the end: when what is held may be sent.
    settle_at: Instant,
}

impl Worker {
    /// `incidents`: they end when the way is to end. `changes`: other carriers, from then on.
    pub(super) fn new(
        carrier: Carrier,
        incidents: mpsc::UnboundedReceiver<Waiting>,
        changes: mpsc::UnboundedReceiver<Carrier>,
        account: Account,
        patience: Patience,
    ) -> Self {
        Self {
            carrier,
            incidents,
            changes,
            account,
            patience,
            lanes: Lanes::new(patience.backoff),
            failing: BTreeSet::new(),
            failed_at: None,
            is_ending: false,
            settle_at: Instant::now(),
        }
    }

    /// Works until everything has arrived after the last incident came, at most until `end`. What has not is given up.
    pub(super) async fn work(mut self, end: watch::Receiver<Option<Instant>>) {
        tokio::select! {
            biased;
            () = self.work_on() => {}
            () = reached(end) => {}
        }
        self.account.give_up_rest();
    }

    async fn work_on(&mut self) {
        while let Some(next) = self.next().await {
            match next {
                Next::Take(waiting) => {
                    let lane = self.carrier.lane(&waiting.incident).to_owned();
                    self.lanes.push(lane, waiting);
                }
                Next::TakeNoMore => self.is_ending = true,
                Next::Change(carrier) => self.change(*carrier),
                Next::Attempt => self.attempt().await,
                Next::Settle => self.settle().await,
                Next::Quiet => self.be_quiet(),
            }
        }
    }

    /// `None` = nothing is left, and nothing more comes.
    async fn next(&mut self) -> Option<Next> {
        let attempt_at = self.lanes.due(self.is_ending);
        let (settle_at, quiet_at) = (self.settle_due(attempt_at), self.quiet_at());
        if self.is_ending && attempt_at.is_none() && settle_at.is_none() {
            return None;
        }
        Some(tokio::select! {
            biased;
            Some(carrier) = self.changes.recv() => Next::Change(Box::new(carrier)),
            next = self.incidents.recv(), if !self.is_ending => next.map_or(Next::TakeNoMore, Next::Take),
            () = until(settle_at) => Next::Settle,
            () = until(attempt_at) => Next::Attempt,
            () = until(quiet_at) => Next::Quiet,
        })
    }

    /// When what is held is to be sent. At the end that is all of it, but only after what may add to it.
    fn settle_due(&self, attempt_at: Option<Instant>) -> Option<Instant> {
        let due = self.carrier.due()?;
        if !self.is_ending {
            return Some(due);
        }
        let is_first = attempt_at.is_none_or(|at| at > Instant::now());
        is_first.then_some(self.settle_at)
    }

    fn change(&mut self, carrier: Carrier) {
        let old = std::mem::replace(&mut self.carrier, carrier);
        self.carrier.take_over(old);
        self.lanes.retry_now();
        self.settle_at = Instant::now();
        self.failing.clear();
        self.failed_at = None;
        self.account.forget_trouble();
    }

    async fn attempt(&mut self) {
        let Some(mut lane) = self.lanes.take_first(self.is_ending) else { return };
        let Some(first) = lane.waiting.front() else { return };
        let since = first.since;
        match self.carrier.carry(&first.incident).await {
            Ok(carried) => {
                lane.done();
                match carried {
                    Carried::Arrived => self.arrived(&lane.name, 1),
                    Carried::NotMeant => self.account.not_meant(),
                    Carried::Held => {}
                }
            }
            Err(failure) => self.failed_attempt(&mut lane, since, &failure),
        }
        self.lanes.put_back(lane);
    }

    fn failed_attempt(&mut self, lane: &mut Lane, since: Instant, failure: &Failure) {
        self.failed(failure.reason());
        if let Failure::Later { after, .. } = *failure {
            // A server may ask for patience, but not for more than an incident is kept.
            let give_up = self.patience.give_up;
            let wait = after.map_or_else(|| lane.backoff.wait(), |after| after.min(give_up));
            if since.elapsed() + wait <= give_up {
                self.failing.insert(lane.name.clone());
                return lane.later(wait);
            }
        }
        self.account.given_up(1);
        lane.done();
        if lane.waiting.is_empty() {
            self.failing.remove(&lane.name);
        }
    }

    /// The carrier decides when to try again what it still holds; at the end it is tried until the deadline.
    async fn settle(&mut self) {
        let Settled { lane, arrived, lost, failure } = self.carrier.settle(self.is_ending).await;
        if arrived > 0 {
            self.arrived(&lane, arrived);
        }
        if lost > 0 {
            self.account.given_up(lost);
            self.failing.remove(&lane);
        }
        match failure {
            Some(failure) => {
                self.failed(failure.reason());
                if let Failure::Later { .. } = failure {
                    let mut backoff = self.patience.backoff;
                    self.settle_at = Instant::now() + backoff.wait().min(HURRY);
                    self.failing.insert(lane);
                }
            }
            None => self.settle_at = Instant::now(),
        }
    }

    /// Something arrived. As long as something else waits because it failed, that is still a trouble.
    fn arrived(&mut self, lane: &str, count: u64) {
        self.account.arrived(count);
        self.failing.remove(lane);
        if self.failing.is_empty() {
            self.failed_at = None;
            self.account.recovered();
        }
    }

    fn failed(&mut self, reason: &str) {
        self.failed_at = Some(Instant::now());
        self.account.failed(reason);
    }

    /// When a trouble is over although nothing arrived, because there is nothing to tell.
    fn quiet_at(&self) -> Option<Instant> {
        let nothing_waits = self.lanes.is_empty() && self.carrier.due().is_none();
        Some(self.failed_at.filter(|_| nothing_waits)? + self.patience.quiet)
    }

    fn be_quiet(&mut self) {
        self.failing.clear();
        self.failed_at = None;
        self.account.quiet();
    }
}

async fn until(at: Option<Instant>) {
    match at {
        // A timer may be a millisecond late.
        Some(at) if at <= Instant::now() => {}
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits for a time that may not be known yet, and may change.
async fn reached(mut end: watch::Receiver<Option<Instant>>) {
    loop {
        let at = *end.borrow_and_update();
        tokio::select! {
            () = until(at) => return,
            Ok(()) = end.changed() => {}
        }
    }
}
