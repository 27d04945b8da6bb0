//! Lines of the kubelet's log, and the connections they are about.
//!
//! A line never makes an incident and never prevents one. It is held until the connections that it may be about are
//! concluded, and joined then: only then is it known which of them ended when, and which completed its handshake.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::connection::Tracked;
use super::index::Id;
use crate::ipvs::table::canonical;
use crate::kubelet_log::{FailureClass, ProbeFailure};
use crate::observation::Nanos;

/// Lines held at one time; beyond it the oldest is given up.
const MAX_LINES: usize = 4096;
/// Lines looked at for one connection, and connections for one line.
const MAX_COMPARED: usize = 64;
const SECOND: Nanos = 1_000_000_000;
/// The kubelet's timer runs from before the connect, and closes the socket about when it logs.
const EARLY_NS: Nanos = SECOND / 2;
/// A busy node logs late.
const LATE_NS: Nanos = 2 * SECOND;
/// `timeoutSeconds` that are in use. Nobody sets more than a minute.
const TIMEOUTS_NS: (Nanos, Nanos) = (SECOND, 60 * SECOND);

/// A line that may be about a connection.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) at: Nanos,
    pub(super) source: Arc<str>,
    pub(super) failure: Arc<ProbeFailure>,
    targets: BTreeSet<SocketAddr>,
    due: Nanos,
    /// How well it fits the connections that were concluded without it: it is about none that fits less.
    past: Option<Fit>,
}

/// How well a line and a connection fit; the greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The line is as much later as some timeout may be.
    Window,
    /// The line is later by the probe's timeout.
    Timeout(Near),
    /// The line is of the moment in which the socket was closed.
    Ended(Near),
    /// The line names the local port.
    Source,
}

/// How near in time. Two lines, or two connections, of one class are equally near.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    Seconds,
    Tenths,
    Moment,
}

impl Near {
    const fn of(distance: Nanos) -> Self {
        let distance = distance.saturating_abs();
        if distance <= SECOND / 20 {
            Self::Moment
        } else if distance <= SECOND / 2 {
            Self::Tenths
        } else {
            Self::Seconds
        }
    }
}

/// What a line is to one of the connections that it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// About it: it fits no other as well.
    Own,
    /// It fits another equally well.
    Shared,
    /// It fits another better.
    Another,
}

/// All lines that are held, and the counts of those that were not joined.
#[derive(Debug, Default)]
pub(super) struct Lines {
    held: BTreeMap<Id, Line>,
    by_target: BTreeSet<(SocketAddr, Nanos, Id)>,
    due: BTreeSet<(Nanos, Id)>,
    /// Failed probes that are about no connection that was watched.
    pub(super) elsewhere: u64,
    /// Failed probes that fit several connections equally well.
    pub(super) ambiguous: u64,
}

impl Lines {
    /// Takes a line, and gives up the oldest of too many.
    pub(super) fn insert(
        &mut self,
        id: Id,
        line: (Nanos, Arc<str>),
        failure: &Arc<ProbeFailure>,
        targets: &[SocketAddr],
        due: Nanos,
    ) {
        let targets = targets.iter().copied().chain(failure.target).map(canonical);
        let targets: BTreeSet<_> = targets.take(MAX_COMPARED).collect();
        // A connection that was never answered cannot have failed like that.
        if targets.is_empty() || !failure.class.may_be_unanswered() {
            self.elsewhere = self.elsewhere.saturating_add(1);
            return;
        }
        let (at, source) = line;
        self.by_target.extend(targets.iter().map(|target| (*target, at, id)));
        self.due.insert((due, id));
        self.held.insert(id, Line { at, source, failure: Arc::clone(failure), targets, due, past: None });
        while self.held.len() > MAX_LINES {
            let Some((_, oldest)) = self.due.first().copied() else { return };
            self.remove(oldest);
            self.elsewhere = self.elsewhere.saturating_add(1);
        }
    }

    pub(super) fn get(&self, id: Id) -> Option<&Line> {
        self.held.get(&id)
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<Line> {
        let line = self.held.remove(&id)?;
        self.due.remove(&(line.due, id));
        for target in &line.targets {
            self.by_target.remove(&(*target, line.at, id));
        }
        Some(line)
    }

    /// Lines whose time is up, or all.
    pub(super) fn expired(&self, now: Option<Nanos>) -> Vec<Id> {
        let due = self.due.iter().take_while(|(due, _)| now.is_none_or(|now| *due <= now));
        due.map(|(_, id)| *id).collect()
    }

    pub(super) fn postpone(&mut self, id: Id, due: Nanos) {
        let Some(line) = self.held.get_mut(&id) else { return };
        self.due.remove(&(line.due, id));
        line.due = due;
        self.due.insert((due, id));
    }

    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Lines that may be about this connection.
    pub(super) fn near(&self, connection: &Tracked) -> Vec<Id> {
        let Some(remote) = connection.keys().remote else { return Vec::new() };
        let first = connection.start().saturating_sub(EARLY_NS);
        let range = (remote, first, 0)..=(remote, Nanos::MAX, Id::MAX);
        let fitting = self
            .by_target
            .range(range)
            .filter(|(_, _, id)| self.held.get(id).is_some_and(|line| line.fit(connection).is_some()));
        fitting.map(|(_, _, id)| *id).take(MAX_COMPARED).collect()
    }

    /// Which of the lines `ids` is nearest to the end of the connection. Of equally near ones the least in what an
    /// incident shows of them.
    pub(super) fn nearest(&self, ids: impl Iterator<Item = Id>, connection: &Tracked) -> Option<Id> {
        let order = |id: &Id| {
            self.held.get(id).map(|line| {
                let near = (Reverse(line.fit(connection)), line.distance(connection));
                let failure = &line.failure;
                (near, line.at, &failure.text, &line.source, &failure.file, failure.line)
            })
        };
        ids.min_by_key(order)
    }

    /// The connection was concluded without this line.
    pub(super) fn pass(&mut self, id: Id, connection: &Tracked) {
        if let Some(line) = self.held.get_mut(&id) {
            line.past = line.past.max(line.fit(connection));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.by_target.is_empty() && self.due.is_empty()
    }
}

impl Line {
    pub(super) fn targets(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.targets.iter().copied()
    }

    /// What it is to `connection`, beside the `others` that are open; `None` if it does not fit at all. A function of the
    /// line and the connections, never of other lines: which of two lines is looked at first decides nothing.
    pub(super) fn standing<'a>(
        &self,
        connection: &Tracked,
        others: impl Iterator<Item = &'a Tracked>,
    ) -> Option<Standing> {
        let own = self.fit(connection)?;
        let fitting = self.past.into_iter().chain(others.filter_map(|other| self.fit(other)));
        let mut standing = Standing::Own;
        for (compared, other) in fitting.enumerate() {
            if compared >= MAX_COMPARED {
                return Some(Standing::Shared);
            }
            standing = standing.max(match other.cmp(&own) {
                Ordering::Less => Standing::Own,
                Ordering::Equal => Standing::Shared,
                Ordering::Greater => Standing::Another,
            });
        }
        Some(standing)
    }

    /// Whether it may be about this connection at all.
    pub(super) fn fits(&self, connection: &Tracked) -> bool {
        self.fit(connection).is_some()
    }

    fn fit(&self, connection: &Tracked) -> Option<Fit> {
        let tuple = connection.tuple()?;
        let since = self.at.saturating_sub(connection.start());
        if connection.established || !may_be_kubelet(connection) || since < -EARLY_NS {
            return None;
        }
        if let Some(source) = self.failure.source {
            let possible = since <= TIMEOUTS_NS.1.saturating_add(LATE_NS);
            return (canonical(source) == tuple.local && possible).then_some(Fit::Source);
        }
        let within = |late: Nanos| (-EARLY_NS..=LATE_NS).contains(&late);
        if let Some(ended) = connection.ended {
            let late = self.at.saturating_sub(ended);
            return within(late).then_some(Fit::Ended(Near::of(late)));
        }
        if let Some(timeout) = self.failure.timeout_ns {
            let late = since.saturating_sub(timeout);
            return within(late).then_some(Fit::Timeout(Near::of(late)));
        }
        let at_once = matches!(self.failure.class, FailureClass::Refused | FailureClass::Reset);
        let earliest = if at_once { 0 } else { TIMEOUTS_NS.0 - EARLY_NS };
        (earliest..=TIMEOUTS_NS.1 + LATE_NS).contains(&since).then_some(Fit::Window)
    }

    /// From where the line was expected.
    fn distance(&self, connection: &Tracked) -> Nanos {
        let timeout = self.failure.timeout_ns.unwrap_or_default();
        let expected = connection.ended.unwrap_or_else(|| connection.start().saturating_add(timeout));
        self.at.saturating_sub(expected).saturating_abs()
    }
}

/// Not what runs in a pod. (In kind, the kubelet's own cgroup may lie within one.)
fn may_be_kubelet(connection: &Tracked) -> bool {
    let owner = connection.owner();
    let cgroup = owner.as_ref().and_then(|owner| owner.cgroup.as_deref()).unwrap_or_default();
    match cgroup.rsplit_once("kubepods") {
        Some((_, below)) => below.contains("kubelet"),
        None => true,
    }
}
