//! connect() that found no free source port: one incident per process and destination, however often it tried.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Settings;
use super::advice::{Cause, NodeFacts, advise};
use super::build::{INCIDENT_SCHEMA, incident_id, owner_info};
use super::incident::{Confidence, Connection, Evidence, Incident, Outcome, Verdict};
use super::time::{millis_between, rfc3339};
use crate::observation::{Nanos, Owner};

/// Processes and destinations watched at one time.
const MAX_GROUPS: usize = 1024;

/// Who ran out of ports, towards where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) pid: Option<u32>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) netns: Option<u32>,
}

#[derive(Clone, Debug)]
struct Group {
    first: Nanos,
    last: Nanos,
    times: u64,
    /// From the earliest report, so that the order of arrival does not matter.
    source: Arc<str>,
    owner: Option<Arc<Owner>>,
}

impl Group {
    fn due_at(&self, settings: &Settings) -> Nanos {
        let silent = self.last.saturating_add(settings.silence_ns);
        silent.min(self.first.saturating_add(settings.settle_ns))
    }
}

/// All that ran out of ports and did not fall silent yet.
#[derive(Debug, Default)]
pub(super) struct Exhaustion {
    groups: BTreeMap<Key, Group>,
}

impl Exhaustion {
    /// Counts one failed connect. True if it is the first of its group.
    pub(super) fn add(&mut self, key: Key, at: Nanos, source: Arc<str>, owner: Option<Arc<Owner>>) -> bool {
        let Some(group) = self.groups.get_mut(&key) else {
            self.groups.insert(key, Group { first: at, last: at, times: 1, source, owner });
            return true;
        };
        group.times = group.times.saturating_add(1);
        group.last = group.last.max(at);
        let name = |owner: &Option<Arc<Owner>>| {
            owner.as_ref().map(|owner| (owner.comm.clone(), owner.exe.clone(), owner.cmdline.clone()))
        };
        if (at, &source, name(&owner)) < (group.first, &group.source, name(&group.owner)) {
            group.first = at;
            group.source = source;
            group.owner = owner;
        }
        false
    }

    /// The group that must go to respect the bound: the one that has been silent longest.
    pub(super) fn surplus(&self) -> Option<Key> {
        if self.groups.len() <= MAX_GROUPS {
            return None;
        }
        self.groups.iter().min_by_key(|(key, group)| (group.last, **key)).map(|(key, _)| *key)
    }

    /// Groups that are to be concluded: silent, or failing for long; all of them at the end.
    pub(super) fn due(&self, now: Option<Nanos>, settings: &Settings) -> Vec<Key> {
        let mut silent: Vec<_> = self
            .groups
            .iter()
            .filter(|(_, group)| now.is_none_or(|now| group.due_at(settings) <= now))
            .map(|(key, group)| (group.first, *key))
            .collect();
        silent.sort_unstable();
        silent.into_iter().map(|(_, key)| key).collect()
    }

    /// When the first of them is due.
    pub(super) fn next_deadline(&self, settings: &Settings) -> Option<Nanos> {
        self.groups.values().map(|group| group.due_at(settings)).min()
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.groups.remove(key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The incident as it is known now. The errno itself is the proof.
    pub(super) fn incident(&self, key: &Key, node: &NodeFacts) -> Option<Incident> {
        let group = self.groups.get(key)?;
        let remote = key.remote.map(|remote| remote.to_string());
        let towards = remote.as_deref().unwrap_or("an unknown destination");
        let lasted = millis_between(group.first, group.last);
        let text = match group.times {
            1 => format!("connect() to {towards} failed with EADDRNOTAVAIL: no free source port"),
            times => format!(
                "connect() to {towards} failed with EADDRNOTAVAIL {times} times within {}.{:03} s: no free source port",
                lasted / 1000,
                lasted % 1000
            ),
        };
        let owner = owner_info(group.owner.as_ref());
        let pid = key.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
        Some(Incident {
            schema: INCIDENT_SCHEMA,
            id: format!("{}-pid:{pid}", incident_id(group.first, None, key.remote)),
            verdict: Verdict::Exhaustion,
            outcome: Outcome::Failed,
            confidence: Confidence::Proven,
            started_at: rfc3339(group.first),
            duration_ms: Some(lasted),
            connection: Connection { local: None, remote, netns: key.netns, isn: None, syn_retransmits: 0 },
            service: None,
            owner,
            probe: None,
            hijack: None,
            resets: Vec::new(),
            log_lines: Vec::new(),
            evidence: vec![Evidence { at: rfc3339(group.first), source: group.source.to_string(), text }],
            advice: advise(node, &Cause { verdict: Verdict::Exhaustion, local: None, remote: key.remote })
                .into(),
        })
    }
}
