//! What goes to standard output: each incident once, its repeats as a number. Pure.
//!
//! The first incident of a (service, owner, verdict) is told. Later ones are counted, and once per period their number is
//! told in one line, until a period passes without any; then the next is told again. Nothing is lost: told + counted = all
//! that came, and every count is told in the end.

use std::collections::HashMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::diagnosis::incident::{Incident, Pod, Verdict};
use crate::observation::Nanos;

/// The schema of a line about repeats.
pub const SCHEMA: &str = "portclash.repeats/v1";
/// Pairs that are kept apart. Incidents of further ones are counted together, per verdict.
pub const MAX_PAIRS: usize = 1024;

/// Who keeps connecting, as far as known. Process ids are left out: they change from one connect to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub struct RepeatOwner {
    /// Task name at connect time.
    pub comm: Option<String>,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
    /// The pod of that container.
    pub pod: Option<Pod>,
}

/// `portclash.repeats/v1`: incidents like one that was told, counted and not repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Repeats {
    /// `portclash.repeats/v1`
    pub schema: &'static str,
    /// `address:port` of the service; `null` where the incidents have none, or are of several.
    pub service: Option<String>,
    /// Its Kubernetes name, `namespace/name:port`.
    pub service_name: Option<String>,
    /// Who connected; `null` where they are several.
    pub owner: Option<RepeatOwner>,
    /// What happened.
    pub verdict: Verdict,
    /// Whether these are of several services or owners: there were too many to be kept apart, and none of these
    /// incidents was told.
    pub several: bool,
    /// Incidents that were counted and not told.
    pub count: u64,
    /// When the first of them started: RFC 3339, UTC, nanoseconds.
    pub since: String,
    /// When the last of them started.
    pub until: String,
    /// Id of the last of them.
    pub last_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    verdict: Verdict,
    /// `None` = those that are too many to be kept apart.
    pair: Option<(Option<String>, RepeatOwner)>,
}

#[derive(Debug)]
struct Pair {
    /// When the period ends.
    due: Nanos,
    counted: Option<Counted>,
}

#[derive(Debug)]
struct Counted {
    count: u64,
    service_name: Option<String>,
    since: String,
    until: String,
    last_id: String,
}

impl Counted {
    fn first(incident: &Incident) -> Self {
        Self {
            count: 1,
            service_name: incident.service.as_ref().and_then(|service| service.name.clone()),
            since: incident.started_at.clone(),
            until: incident.started_at.clone(),
            last_id: incident.id.clone(),
        }
    }

    /// Incidents are concluded in any order. Their times have one form and one length, so they compare as text.
    fn add(&mut self, incident: &Incident) {
        self.count += 1;
        if incident.started_at < self.since {
            self.since.clone_from(&incident.started_at);
        }
        if incident.started_at >= self.until {
            self.until.clone_from(&incident.started_at);
            self.last_id.clone_from(&incident.id);
        }
    }
}

/// Decides what is told. Times are of any one clock.
#[derive(Debug)]
pub struct Lines {
    every: Nanos,
    pairs: HashMap<Key, Pair>,
    /// No period ends before this; `None` = there is none.
    next: Option<Nanos>,
    repeats: u64,
}

impl Lines {
    /// `repeat_every`: the period.
    pub fn new(repeat_every: Duration) -> Self {
        Self { every: nanos(repeat_every), pairs: HashMap::new(), next: None, repeats: 0 }
    }

    /// Another period, from now on; periods that run end when they would with it.
    pub fn set_repeat_every(&mut self, repeat_every: Duration) {
        let every = nanos(repeat_every);
        for pair in self.pairs.values_mut() {
            pair.due = pair.due.saturating_sub(self.every).saturating_add(every);
        }
        self.every = every;
        self.next = self.pairs.values().map(|pair| pair.due).min();
    }

    /// Whether this concluded incident is to be told; else it was counted, or is none (verdict `none`).
    /// Call [`Self::due`] before, so that no period is longer than it should be.
    pub fn take(&mut self, incident: &Incident, now: Nanos) -> bool {
        if incident.verdict == Verdict::None {
            return false;
        }
        let mut key = key_of(incident);
        let full = self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(&key);
        if full {
            key.pair = None;
        }
        let due = now.saturating_add(self.every);
        let mut new = false;
        let pair = self.pairs.entry(key).or_insert_with(|| {
            new = true;
            Pair { due, counted: None }
        });
        if new {
            self.next = Some(self.next.map_or(due, |next| next.min(due)));
            if !full {
                return true;
            }
        }
        match &mut pair.counted {
            Some(counted) => counted.add(incident),
            none => *none = Some(Counted::first(incident)),
        }
        self.repeats += 1;
        false
    }

    /// What is to be told of periods that have ended.
    pub fn due(&mut self, now: Nanos) -> Vec<Repeats> {
        // A clock that was set back must not make a period last until it is there again.
        let latest = now.saturating_add(self.every);
        if self.next.is_none_or(|next| now < next && next <= latest) {
            return Vec::new();
        }
        let mut lines = Vec::new();
        self.pairs.retain(|key, pair| {
            pair.due = pair.due.min(latest);
            if now < pair.due {
                return true;
            }
            pair.due = latest;
            let counted = pair.counted.take();
            let goes_on = counted.is_some();
            lines.extend(counted.map(|counted| line(key, counted)));
            goes_on
        });
        self.next = self.pairs.values().map(|pair| pair.due).min();
        sorted(lines)
    }

    /// It ends: all that was counted and not yet told.
    pub fn finish(&mut self) -> Vec<Repeats> {
        self.next = None;
        let all = self.pairs.drain();
        sorted(all.filter_map(|(key, pair)| Some(line(&key, pair.counted?))).collect())
    }

    /// Incidents that were counted instead of told, since the start.
    pub const fn repeats(&self) -> u64 {
        self.repeats
    }
}

fn nanos(time: Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX)
}

fn key_of(incident: &Incident) -> Key {
    let service = incident.service.as_ref().map(|service| service.address.clone());
    let owner = &incident.owner;
    let owner = RepeatOwner {
        comm: owner.comm.clone(),
        exe: owner.exe.clone(),
        container_id: owner.container_id.clone(),
        pod: owner.pod.clone(),
    };
    Key { verdict: incident.verdict, pair: Some((service, owner)) }
}

fn line(key: &Key, counted: Counted) -> Repeats {
    let (service, owner) = key.pair.clone().unzip();
    Repeats {
        schema: SCHEMA,
        service: service.flatten(),
        service_name: counted.service_name.filter(|_| key.pair.is_some()),
        owner,
        verdict: key.verdict,
        several: key.pair.is_none(),
        count: counted.count,
        since: counted.since,
        until: counted.until,
        last_id: counted.last_id,
    }
}

fn sorted(mut lines: Vec<Repeats>) -> Vec<Repeats> {
    lines.sort_by(|a, b| (&a.since, &a.last_id, a.verdict).cmp(&(&b.since, &b.last_id, b.verdict)));
    lines
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
