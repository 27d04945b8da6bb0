//! Incidents that wait for one way, in lanes: those of one lane are likely to fail together, so a lane that fails waits, and
//! holds up no other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::diagnosis::incident::Incident;
use crate::pods::clients::Backoff;

/// Longest time between attempts when the time is nearly over.
pub(super) const HURRY: Duration = Duration::from_millis(250);

/// An incident that waits.
pub(super) struct Waiting {
    /// When it was handed over.
    pub(super) since: Instant,
    pub(super) incident: Arc<Incident>,
    /// Its place among those that may wait; free again when this is dropped.
    pub(super) _place: OwnedSemaphorePermit,
}

/// Incidents that go one after the other.
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) waiting: VecDeque<Waiting>,
    /// When the first of them may be tried.
    due: Instant,
    /// When the last attempt failed.
    failed_at: Option<Instant>,
    /// Waits between attempts with the first of them.
    pub(super) backoff: Backoff,
}

impl Lane {
    /// The first of them is done with, and the next one may be tried.
    pub(super) fn done(&mut self) {
        self.waiting.pop_front();
        self.backoff.reset();
        (self.due, self.failed_at) = (Instant::now(), None);
    }

    /// The first of them failed and is to be tried again.
    pub(super) fn later(&mut self, wait: Duration) {
        let now = Instant::now();
        (self.due, self.failed_at) = (now + wait, Some(now));
    }

    fn due(&self, hurry: bool) -> Instant {
        self.failed_at.filter(|_| hurry).map_or(self.due, |at| self.due.min(at + HURRY))
    }
}

/// All lanes of one way. Each has something in it.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    backoff: Backoff,
}

impl Lanes {
    /// `backoff`: waits between attempts with one incident.
    pub(super) const fn new(backoff: Backoff) -> Self {
        Self { lanes: Vec::new(), backoff }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn push(&mut self, name: String, waiting: Waiting) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.name == name) {
            return lane.waiting.push_back(waiting);
        }
        let (due, backoff) = (Instant::now(), self.backoff);
        self.lanes.push(Lane { name, waiting: [waiting].into(), due, failed_at: None, backoff });
    }

    /// When the next attempt is due.
    pub(super) fn due(&self, hurry: bool) -> Option<Instant> {
        self.lanes.iter().map(|lane| lane.due(hurry)).min()
    }

    /// Takes out the lane that is due first.
    pub(super) fn take_first(&mut self, hurry: bool) -> Option<Lane> {
        let lanes = self.lanes.iter().enumerate();
        let (index, _) = lanes.min_by_key(|(_, lane)| lane.due(hurry))?;
        Some(self.lanes.remove(index))
    }

    /// Puts it back, unless nothing waits in it.
    pub(super) fn put_back(&mut self, lane: Lane) {
        if !lane.waiting.is_empty() {
            self.lanes.push(lane);
        }
    }

    /// What failed may be tried again at once.
    pub(super) fn retry_now(&mut self) {
        for lane in &mut self.lanes {
            lane.backoff.reset();
            (lane.due, lane.failed_at) = (Instant::now(), None);
        }
    }
}
