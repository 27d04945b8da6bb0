//! A trace at work: live sources, diagnosis and names as one engine, which `portclash trace` and the sidecar drive.

use std::time::Duration;

use tokio::time::Instant;

use crate::diagnosis::incident::{Incident, Summary};
use crate::diagnosis::{Diagnosis, Settings, Update};
use crate::kernel::loader::LoadError;
use crate::observation::{Fact, Nanos, Observation};
use crate::pods::session::Session as Names;
use crate::sources::clock::Clock;
use crate::sources::kubelet_log::KubeletLogSource;
use crate::sources::live::{Live, LiveError};

/// How long a connection that ended is kept for the kubelet's line about it: the kubelet logs at once, and the line then
/// goes through the journal or is polled for in a file.
const LOG_WAIT_NS: i64 = 2_000_000_000;
/// Different troubles of one log that are told.
const MAX_TROUBLE: usize = 64;

/// At the end nobody waits for ever.
const LOOK_GIVEN_UP: &str = "the last look into the IPVS connection table was given up at the end: a hijack that only it \
                             proves is not proven";

/// A clock that is only steered never moves this far between two looks.
const SMALL_STEP_NS: u64 = 20_000_000;

/// Sources at work and what became of their observations until now.
pub struct Trace {
    live: Live,
    log: Option<KubeletLogSource>,
    names: Names,
    diagnosis: Diagnosis,
    /// What went wrong with the kubelet's log, or at the end.
    trouble: Vec<String>,
    /// How many of these were taken by [`Self::take_trouble`].
    told: usize,
    /// Connects that failed with EADDRNOTAVAIL.
    ports_used_up: u64,
}

impl Trace {
    /// Joins sources that run.
    pub fn new(live: Live, log: Option<KubeletLogSource>, names: Names) -> Self {
        let log_wait_ns = if log.is_some() { LOG_WAIT_NS } else { 0 };
        let mut diagnosis = Diagnosis::new(Settings { log_wait_ns, ..Settings::default() });
        diagnosis.set_node(live.node_facts());
        Self { live, log, names, diagnosis, trouble: Vec::new(), told: 0, ports_used_up: 0 }
    }

    /// Only conclusions are told from now on: whoever asks for nothing else need not pay for it.
    #[must_use]
    pub fn conclusions_only(mut self) -> Self {
        let settings = Settings { conclusions_only: true, ..self.diagnosis.settings() };
        self.diagnosis = Diagnosis::new(settings);
        self.diagnosis.set_node(self.live.node_facts());
        self
    }

    /// What changed, with names, as soon as anything did; may be empty, and is at the latest at `wake`. May be dropped
    /// and called again.
    pub async fn next(&mut self, wake: Option<Instant>) -> Result<Vec<Update>, LiveError> {
        let now = self.live.clock().now();
        // While proof is looked for, nothing is concluded; finding it ends the waiting.
        let idle = self.live.looks_since().is_none();
        let due = self.diagnosis.next_deadline().filter(|_| idle);
        let due = due.map(|at| Instant::now() + until(at, now));
        let wake = [wake, due].into_iter().flatten().min();
        let observations = tokio::select! {
            observations = self.live.next(wake) => observations?,
            update = self.names.next() => {
                self.names.take(update, now);
                return Ok(Vec::new());
            }
            observations = next_lines(self.log.as_mut()) => observations,
        };
        Ok(self.take(observations))
    }

    /// The trace is over: whatever ended it, what happened before counts. Proof that is being looked for is waited for,
    /// at most so long.
    pub async fn remaining(&mut self, patience: Duration) -> Vec<Update> {
        let mut remaining = self.live.remaining();
        remaining.extend(self.log.as_mut().map(KubeletLogSource::remaining).unwrap_or_default());
        let mut updates = self.take(remaining);
        match self.live.finish_look(patience).await {
            Ok(proof) => updates.extend(self.take(proof)),
            Err(_) => self.trouble.push(LOOK_GIVEN_UP.to_owned()),
        }
        updates
    }

    /// Concludes everything that is open.
    pub fn finish(&mut self) -> Vec<Update> {
        let updates = self.diagnosis.finish(self.now());
        if !self.diagnosis.unjoined().is_empty() {
            tracing::debug!("belongs to no watched connection: {:?}", self.diagnosis.unjoined());
        }
        self.named(updates)
    }

    fn take(&mut self, mut observations: Vec<Observation>) -> Vec<Update> {
        let mut updates = Vec::new();
        self.names.add_targets(&mut observations, self.now());
        let table_changed = observations.iter().any(|seen| matches!(seen.fact, Fact::Services { .. }));
        if table_changed {
            self.diagnosis.set_node(self.live.node_facts());
        }
        for observation in observations {
            self.ports_used_up += u64::from(matches!(observation.fact, Fact::ConnectFailed { .. }));
            updates.extend(self.diagnosis.observe(observation));
        }
        self.live.look_for_proof(|| self.diagnosis.open_connections());
        // What was open when looking began is not concluded before it is known what was found.
        let now = self.now();
        updates.extend(self.diagnosis.advance(self.live.looks_since().map_or(now, |since| since.min(now))));
        self.note_trouble();
        self.named(updates)
    }

    fn note_trouble(&mut self) {
        let new = self.log.as_mut().map(KubeletLogSource::take_trouble).unwrap_or_default();
        for trouble in new {
            if self.trouble.len() < MAX_TROUBLE && !self.trouble.contains(&trouble) {
                self.trouble.push(trouble);
            }
        }
    }

    fn named(&mut self, mut updates: Vec<Update>) -> Vec<Update> {
        if !updates.is_empty() {
            self.names.take_waiting(self.now());
        }
        for update in &mut updates {
            self.names.name(incident_of(update), self.live.netns());
        }
        updates
    }

    /// What has gone wrong with the kubelet's log, or at the end, since the last call.
    pub fn take_trouble(&mut self) -> Vec<String> {
        let new = self.trouble.get(self.told..).unwrap_or_default().to_vec();
        self.told = self.trouble.len();
        new
    }

    /// The last line of a trace.
    pub fn summary(&self) -> Result<Summary, LoadError> {
        let mut summary = self.live.summary(&self.diagnosis)?;
        summary.incomplete.extend(self.trouble.iter().cloned());
        let Some(log) = &self.log else { return Ok(summary) };
        summary.probe_failures_elsewhere = Some(self.diagnosis.probe_failures_elsewhere());
        summary.probe_failures_ambiguous = Some(self.diagnosis.probe_failures_ambiguous());
        if log.lost() > 0 {
            let lost = log.lost();
            summary.lost.entry("kubelet log".to_owned()).or_default().insert("lines".to_owned(), lost);
            summary.incomplete.push(format!("kubelet log: {lost} lines lost"));
        }
        Ok(summary)
    }

    /// Connects that failed with EADDRNOTAVAIL since the start.
    pub const fn ports_used_up(&self) -> u64 {
        self.ports_used_up
    }

    /// Follows the wall clock if somebody has set it; returns by how much, nanoseconds. Not while a connection is open:
    /// its times would be torn apart.
    pub fn follow_clock(&mut self) -> Option<i64> {
        let now = Clock::sample();
        let step = self.live.clock().step_to(now);
        if step.unsigned_abs() < SMALL_STEP_NS || !self.diagnosis.open_connections().is_empty() {
            return None;
        }
        self.live.set_clock(now);
        Some(step)
    }

    /// The time on the clock of the observations.
    pub fn now(&self) -> Nanos {
        self.live.clock().now()
    }

    /// The kernel side.
    pub const fn live(&self) -> &Live {
        &self.live
    }

    /// The kernel side, for whoever takes its packets.
    pub const fn live_mut(&mut self) -> &mut Live {
        &mut self.live
    }

    /// Pods, probes and Services.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// The state machine.
    pub const fn diagnosis(&self) -> &Diagnosis {
        &self.diagnosis
    }
}

fn incident_of(update: &mut Update) -> &mut Incident {
    let (Update::Began(incident) | Update::Clear(incident) | Update::Concluded(incident)) = update;
    incident
}

/// Lines of the kubelet's log, as soon as there are any.
async fn next_lines(log: Option<&mut KubeletLogSource>) -> Vec<Observation> {
    match log {
        Some(log) => log.next().await,
        None => std::future::pending().await,
    }
}

fn until(at: Nanos, now: Nanos) -> Duration {
    Duration::from_nanos(u64::try_from(at.saturating_sub(now)).unwrap_or(0))
}
