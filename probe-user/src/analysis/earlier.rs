//! Incidents that were told before: a live trace knows the process, its packets may be here.

use std::collections::BTreeMap;

use super::material::FromInput;
use crate::diagnosis::incident::{Incident, Verdict};

/// What makes two incidents one: the connect, by addresses and ISN; else the id.
type Identity = (Option<String>, Option<String>, Option<u32>, Option<String>);

fn identity(incident: &Incident) -> Identity {
    let connection = &incident.connection;
    let id = connection.isn.is_none().then(|| incident.id.clone());
    (connection.local.clone(), connection.remote.clone(), connection.isn, id)
}

/// Adds what was told before, each once. What was found anew about the same connect is made whole with it. Returns the
/// verdicts of those that were not found anew.
pub(super) fn merge(found: &mut Vec<Incident>, told: &[FromInput<Incident>]) -> Vec<Verdict> {
    let mut known: BTreeMap<Identity, usize> = BTreeMap::new();
    for (index, incident) in found.iter().enumerate() {
        known.insert(identity(incident), index);
    }
    let mut added = Vec::new();
    for before in told.iter().map(|from| &from.value).filter(|before| before.verdict != Verdict::None) {
        if let Some(incident) = known.get(&identity(before)).and_then(|index| found.get_mut(*index)) {
            complete(incident, before);
            continue;
        }
        known.insert(identity(before), found.len());
        added.push(before.verdict);
        found.push(before.clone());
    }
    added
}

/// Whoever was there knows better: its verdict counts unless this one is surer, and so do the names it has.
fn complete(incident: &mut Incident, before: &Incident) {
    if before.confidence >= incident.confidence {
        (incident.verdict, incident.outcome, incident.confidence) =
            (before.verdict, before.outcome, before.confidence);
    }
    incident.id.clone_from(&before.id);
    incident.connection.netns = incident.connection.netns.or(before.connection.netns);
    incident.duration_ms = incident.duration_ms.or(before.duration_ms);
    if before.owner.confidence.is_some() {
        incident.owner.clone_from(&before.owner);
    }
    let better = |mine: bool, theirs: bool| !mine && theirs;
    if better(incident.service.as_ref().is_some_and(|s| s.scheduler.is_some()), before.service.is_some()) {
        incident.service.clone_from(&before.service);
    }
    if better(incident.probe.as_ref().is_some_and(|p| p.period_s.is_some()), before.probe.is_some()) {
        incident.probe.clone_from(&before.probe);
    }
    if incident.hijack.as_ref().is_none_or(|hijack| hijack.state.is_none()) && before.hijack.is_some() {
        incident.hijack.clone_from(&before.hijack);
    }
    if before.resets.len() >= incident.resets.len() {
        incident.resets.clone_from(&before.resets);
    }
    if incident.log_lines.is_empty() {
        incident.log_lines.clone_from(&before.log_lines);
    }
    if incident.advice.is_empty() {
        incident.advice.clone_from(&before.advice);
    }
    incident.evidence.extend(before.evidence.iter().cloned());
    incident.evidence.sort_by(|one, other| one.at.cmp(&other.at));
}
