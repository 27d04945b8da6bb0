//! Between the loop that traces and the thread that writes: captures that wait for the disk, bounded, and what is said of
//! those that were written.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::content::Capture;
use super::folder::Limits;
use super::writer::Writer;
use crate::serve::recent::Recent;
use crate::serve::snapshot::RecorderView;

/// Captures that wait, and their packets altogether: as many as there are before their incidents are concluded.
pub(super) const MAX_CAPTURES: usize = 256;
pub(super) const MAX_PACKETS: usize = super::MAX_WAITING;
/// While captures cannot be written, whether they can again is tried this often: the next incident may be days away.
const CHECK_EVERY: Duration = Duration::from_mins(1);

/// What both sides share.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    captures: VecDeque<Capture>,
    packets: usize,
    /// Limits that are to be set.
    limits: Option<Limits>,
    /// A trouble is to be looked at now.
    check: bool,
    closed: bool,
    /// Something was taken from here and is not done yet.
    busy: bool,
    view: RecorderView,
    news: Vec<String>,
}

/// What there is to do.
enum Work {
    Limits(Limits),
    Capture(Capture),
    Check,
}

impl State {
    fn work(&mut self) -> Option<Work> {
        if let Some(limits) = self.limits.take() {
            return Some(Work::Limits(limits));
        }
        if let Some(capture) = self.captures.pop_front() {
            self.packets -= capture.packets.len();
            return Some(Work::Capture(capture));
        }
        std::mem::take(&mut self.check).then_some(Work::Check)
    }
}

impl Queue {
    pub(super) fn new(view: RecorderView) -> Self {
        let state = State {
            captures: VecDeque::new(),
            packets: 0,
            limits: None,
            check: false,
            closed: false,
            busy: false,
            view,
            news: Vec::new(),
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left whole values behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    /// Takes a capture, unless too many wait.
    pub(super) fn push(&self, capture: Capture) -> bool {
        self.change(|state| {
            let packets = state.packets + capture.packets.len();
            let fits = state.captures.len() < MAX_CAPTURES && packets <= MAX_PACKETS;
            if fits {
                state.packets = packets;
                state.captures.push_back(capture);
            }
            fits
        })
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        self.change(|state| state.limits = Some(limits));
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// What waits is not to be written any more. Returns how many captures, with the one that is being written.
    pub(super) fn give_up(&self) -> usize {
        self.change(|state| {
            state.packets = 0;
            std::mem::take(&mut state.captures).len() + usize::from(state.busy)
        })
    }

    pub(super) fn view(&self) -> RecorderView {
        self.lock().view.clone()
    }

    pub(super) fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().news)
    }

    /// Writes what comes, until there will be no more. Blocks.
    pub(super) fn serve(&self, mut writer: Writer, recent: &Recent) {
        while let Some(work) = self.next(writer.is_in_trouble().then_some(CHECK_EVERY)) {
            match work {
                Work::Limits(limits) => writer.set_limits(limits),
                Work::Check => writer.try_again(),
                Work::Capture(capture) => {
                    if let Some(path) = writer.write(&capture) {
                        recent.captured(&capture.incident.id, path);
                    }
                }
            }
            self.change(|state| {
                state.view = writer.view();
                state.news.extend(writer.take_news());
            });
        }
    }

    /// The next thing to do; where nothing comes for so long, a look at the trouble. `None` = it is over.
    fn next(&self, check_after: Option<Duration>) -> Option<Work> {
        let mut state = self.lock();
        state.busy = false;
        self.changed.notify_all();
        loop {
            if let Some(work) = state.work() {
                state.busy = true;
                return Some(work);
            }
            if state.closed {
                return None;
            }
            state = match check_after {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(time) => {
                    let waited = self.changed.wait_timeout(state, time);
                    let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    state.check |= waited.timed_out();
                    state
                }
            };
        }
    }
}

#[cfg(test)]
impl Queue {
    /// Looks at a trouble now.
    pub(super) fn check(&self) {
        self.change(|state| state.check = true);
    }

    /// Waits until all is done.
    pub(super) fn settle(&self) {
        let undone = |state: &mut State| {
            state.busy || state.check || state.limits.is_some() || !state.captures.is_empty()
        };
        let settled = self.changed.wait_while(self.lock(), undone);
        drop(settled.unwrap_or_else(PoisonError::into_inner));
    }
}
