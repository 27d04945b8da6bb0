//! Observations in any order in, incidents out. No clock, no I/O.
//!
//! [`Diagnosis::observe`] never lets time pass, so the order in which a source delivers its facts decides nothing;
//! [`Diagnosis::advance`] does, and only it (and [`Diagnosis::finish`]) concludes. A live source calls `advance` at
//! [`Diagnosis::next_deadline`]; a source that replays the past calls it with the times of what it read, late
//! enough that facts out of order are still joined.

pub mod advice;
mod advisor;
mod build;
mod connection;
pub mod evidence;
mod exhaustion;
mod facts;
pub mod incident;
mod index;
mod join;
mod judge;
mod lines;
pub mod listen;
pub(crate) mod size;
mod state;
mod tables;
pub mod time;

use std::collections::BTreeMap;

pub use advice::NodeFacts;
use incident::{Incident, Verdict};

use crate::observation::{Nanos, Observation, Tuple};

/// Bounds and patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections watched at one time; beyond it the oldest is concluded with what is known.
    pub max_connections: usize,
    /// Facts that wait for their connection; beyond it the oldest is given up.
    pub max_parked: usize,
    /// How long after the end of a connection evidence still counts for it. A server repeats its SYN-ACK for a
    /// minute, so a source that replays the past may be more patient than a live one.
    pub grace_ns: i64,
    /// How long a fact waits for its connection.
    pub park_ns: i64,
    /// How long evidence of the same moment is waited for before a clear verdict is told: the reset follows the hijack
    /// within microseconds, but each is read on its own.
    pub tell_ns: i64,
    /// How long the reset is waited for after the hijack before the verdict is told without it. A backend on this node
    /// answers at once; one on another node resets where nobody sees it.
    pub reset_ns: i64,
    /// A clear verdict of a socket that stays open is concluded after this; so is exhaustion that goes on.
    pub settle_ns: i64,
    /// Exhaustion that stopped is concluded after this.
    pub silence_ns: i64,
    /// How long a connection that is due is kept for the kubelet's log line about it: zero where no log is read.
    pub log_wait_ns: i64,
    /// Only conclusions are told: nobody asks for what is still open.
    pub conclusions_only: bool,
    /// A connection whose end was never seen is concluded after this (a SYN_SENT socket lives about 130 s).
    pub give_up_ns: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_parked: 16_384,
            grace_ns: 250_000_000,
            park_ns: 5_000_000_000,
            tell_ns: 5_000_000,
            reset_ns: 200_000_000,
            settle_ns: 10_000_000_000,
            silence_ns: 1_000_000_000,
            log_wait_ns: 0,
            conclusions_only: false,
            give_up_ns: 300_000_000_000,
        }
    }
}

/// What changed. The incidents of one connection have one `id`, unless a report with an earlier start came later.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A colliding connection began. Once per connection.
    Began(Box<Incident>),
    /// Verdict and outcome are clear although the socket is still open, or its log line may still come. At most once per
    /// connection.
    Clear(Box<Incident>),
    /// The whole incident. Exactly once per connection, also if it was a false alarm (verdict `none`).
    Concluded(Box<Incident>),
}

/// The state machine from [`Observation`] to [`Incident`].
#[derive(Debug, Default)]
pub struct Diagnosis {
    state: state::State,
}

impl Diagnosis {
    /// An empty state machine.
    pub fn new(settings: Settings) -> Self {
        Self { state: state::State::new(settings) }
    }

    /// Its bounds and patience.
    pub const fn settings(&self) -> Settings {
        self.state.settings()
    }

    /// What is known about the node's ports, for the advice of all later updates.
    pub fn set_node(&mut self, node: NodeFacts) {
        self.state.advisor.set_node(node);
    }

    /// Takes one fact. Concludes nothing, unless the bound on connections forces it.
    pub fn observe(&mut self, observation: Observation) -> Vec<Update> {
        self.state.observe(observation)
    }

    /// Time has passed: concludes what is due, gives up facts that found no connection.
    pub fn advance(&mut self, now: Nanos) -> Vec<Update> {
        self.state.advance(Some(now))
    }

    /// The trace ended: concludes everything. `now` is when it ended; what is open is pending.
    pub fn finish(&mut self, now: Nanos) -> Vec<Update> {
        let mut updates = self.state.advance(Some(now));
        updates.extend(self.state.advance(None));
        updates
    }

    /// Concluded connections per verdict, false alarms (`none`) included.
    pub fn counts(&self) -> &BTreeMap<Verdict, u64> {
        &self.state.counts
    }

    /// Connections watched so far, concluded or not.
    pub fn watched(&self) -> u64 {
        self.state.watched()
    }

    /// Evidence that matched no connection, by kind: `reset`, `hijacked`, `no_backend`, …; and log lines that came after
    /// the conclusion of their connection (`log_line`).
    pub fn unjoined(&self) -> &BTreeMap<&'static str, u64> {
        &self.state.unjoined
    }

    /// Connections and exhausted processes that were concluded early because there were too many.
    pub fn forgotten(&self) -> u64 {
        self.state.forgotten
    }

    /// Failed probes of the kubelet's log that are about no connection that was watched: they failed for another
    /// reason.
    pub fn probe_failures_elsewhere(&self) -> u64 {
        self.state.lines.elsewhere
    }

    /// Failed probes of the kubelet's log that fit several connections equally well, so that they were joined to none.
    pub fn probe_failures_ambiguous(&self) -> u64 {
        self.state.lines.ambiguous
    }

    /// Connections that are watched now.
    pub fn open(&self) -> u64 {
        self.state.open()
    }

    /// Connections without proof of a hijack yet, for a caller that can look their rows up in `ip_vs_conn`,
    /// with the network namespace where that is known.
    pub fn open_connections(&self) -> Vec<(Tuple, Option<u32>)> {
        self.state.open_connections()
    }

    /// When [`Self::advance`] will have something to do at the earliest; it may then turn out to be nothing.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.state.next_deadline()
    }
}

#[cfg(test)]
mod tests;
