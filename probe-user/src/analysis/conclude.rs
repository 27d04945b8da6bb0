//! From observations to what the report shows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::gather::{self, Gathered};
use super::material::Material;
use super::model::{Analysed, Analysis, Ladder};
use super::requests::{Missing, missing};
use super::{Packets, earlier, handshake_picture, listeners, picture, ports, zones};
use crate::diagnosis::incident::{Confidence, Evidence, Incident, Pod, Probe, Summary, Verdict};
use crate::diagnosis::{Diagnosis, Settings, Update};
use crate::handshakes::{Connect, Seen};
use crate::kubelet_log::{FailureClass, ProbeFailure};
use crate::kubernetes::pod::ProbeType;
use crate::observation::{Nanos, Observation, Tuple};
use crate::pods::naming::Names;
use crate::pods::update::{PodSourceKind, PodUpdate};
use crate::pods::{self, naming};

/// Incidents that are kept; beyond it they are counted.
const MAX_INCIDENTS: usize = 10_000;
const SECOND: Nanos = 1_000_000_000;
/// Facts of one connection are no further apart than this.
const PATIENCE_NS: Nanos = 900 * SECOND;

/// The past can be waited for: a server repeats its SYN-ACK for a minute, and a log is written late.
const SETTINGS: Settings = Settings {
    max_connections: 16_384,
    max_parked: 16_384,
    grace_ns: 60 * SECOND,
    park_ns: PATIENCE_NS,
    tell_ns: PATIENCE_NS,
    reset_ns: PATIENCE_NS,
    settle_ns: PATIENCE_NS,
    silence_ns: 60 * SECOND,
    log_wait_ns: 120 * SECOND,
    give_up_ns: PATIENCE_NS,
    conclusions_only: false,
};

/// Finds the incidents in everything that was read.
pub fn conclude(material: &Material, packets: &Packets) -> Analysis {
    let coverage = material.coverage();
    let mut gathered = gather::gather(material, packets, &coverage);
    let mut names = names(material);
    let (logged, shifted) = logged(material, &gathered, &mut names);
    gathered.observations.extend(logged);
    let mut diagnosis = Diagnosis::new(SETTINGS);
    diagnosis.set_node(material.node_facts());
    let mut incidents = run(&mut diagnosis, std::mem::take(&mut gathered.observations));
    incidents.extend(listeners::conflicts(material, &coverage));
    let told_before = earlier::merge(&mut incidents, &material.earlier);
    incidents.sort_by(|one, other| (&one.started_at, &one.id).cmp(&(&other.started_at, &other.id)));
    let mut summary = summary(&diagnosis, material, packets);
    for verdict in told_before {
        *summary.verdicts.entry(verdict).or_default() += 1;
    }
    let conflicts = incidents.iter().filter(|incident| incident.verdict == Verdict::ListenConflict).count();
    if conflicts > 0 {
        summary.verdicts.insert(Verdict::ListenConflict, u64::try_from(conflicts).unwrap_or(u64::MAX));
    }
    let left_out = incidents.len().saturating_sub(MAX_INCIDENTS);
    truncate(&mut incidents);
    let gaps = gaps(material);
    let show = Show { material, packets, gathered: &gathered, gaps: &gaps };
    let incidents = incidents.into_iter().map(|incident| show.analysed(incident, &mut names)).collect();
    Analysis {
        incidents,
        left_out: u64::try_from(left_out).unwrap_or(u64::MAX),
        summary,
        inputs: Vec::new(),
        clocks: clocks(packets, &shifted),
        ports: ports::map(material),
        notes: material.notes.iter().cloned().chain(gathered.notes.iter().cloned()).collect(),
    }
}

/// The gravest are kept, in the order of time.
fn truncate(incidents: &mut Vec<Incident>) {
    if incidents.len() > MAX_INCIDENTS {
        incidents.sort_by_key(|incident| incident.verdict);
        incidents.truncate(MAX_INCIDENTS);
        incidents.sort_by(|one, other| (&one.started_at, &one.id).cmp(&(&other.started_at, &other.id)));
    }
}

fn names(material: &Material) -> Names {
    let source = PodSourceKind::File;
    let mut names = Names::new();
    for (source, pods) in [(source, &material.pods), (PodSourceKind::Table, &material.named_pods)] {
        if !pods.is_empty() {
            names.apply(PodUpdate::All { source, pods: pods.clone(), unreadable: Vec::new() }, 0);
        }
    }
    if !material.services.is_empty() {
        let services = material.services.clone();
        names.apply(PodUpdate::ServicesAll { source, services, unreadable: Vec::new() }, 0);
    }
    names
}

/// Failed probes as observations, on the clock of the packets; and which files had another time zone.
fn logged(
    material: &Material,
    gathered: &Gathered,
    names: &mut Names,
) -> (Vec<Observation>, BTreeMap<Arc<str>, Nanos>) {
    let begun = gathered.observations.iter().filter_map(|seen| match &seen.fact {
        crate::observation::Fact::ConnectBegan { tuple, .. } => Some((tuple.remote, seen.at)),
        _ => None,
    });
    let begun: Vec<(SocketAddr, Nanos)> = begun.collect();
    let shifted = zones::differences(&material.failures, &begun);
    let observations = material.failures.iter().filter_map(|failure| {
        let ahead = shifted.get(&failure.file).copied().unwrap_or_default();
        let mut seen = gather::failure(failure)?;
        seen.at = seen.at.saturating_sub(ahead);
        pods::logged::add_targets(names.pods(), &mut seen);
        Some(seen)
    });
    (observations.collect(), shifted)
}

/// Everything in the order of time.
fn run(diagnosis: &mut Diagnosis, mut observations: Vec<Observation>) -> Vec<Incident> {
    observations.sort_by_key(|seen| seen.at);
    let mut incidents = Vec::new();
    let mut take = |updates: Vec<Update>| {
        for update in updates {
            if let Update::Concluded(incident) = update
                && incident.verdict != Verdict::None
            {
                incidents.push(*incident);
            }
        }
    };
    let mut end = 0;
    for seen in observations {
        end = seen.at;
        take(diagnosis.advance(end.saturating_sub(PATIENCE_NS)));
        take(diagnosis.observe(seen));
    }
    take(diagnosis.finish(end));
    if !diagnosis.unjoined().is_empty() {
        tracing::debug!("belongs to no connection that was found: {:?}", diagnosis.unjoined());
    }
    incidents
}

fn summary(diagnosis: &Diagnosis, material: &Material, packets: &Packets) -> Summary {
    let mut incomplete = material.incomplete.clone();
    for input in &packets.inputs {
        let counts = &input.counts;
        if counts.forgotten > 0 {
            incomplete.push(format!(
                "{}: {} handshakes were too many to be followed",
                input.name, counts.forgotten
            ));
        }
    }
    if diagnosis.forgotten() > 0 {
        incomplete.push(format!(
            "{} connections were concluded early: too many at one time",
            diagnosis.forgotten()
        ));
    }
    let connects = packets.inputs.iter().map(|input| input.counts.connects).sum();
    Summary {
        schema: "portclash.summary/v1",
        verdicts: diagnosis.counts().clone(),
        connects_seen: (!packets.inputs.is_empty()).then_some(connects),
        probe_failures_elsewhere: material.has_kubelet_log.then(|| diagnosis.probe_failures_elsewhere()),
        probe_failures_ambiguous: material.has_kubelet_log.then(|| diagnosis.probe_failures_ambiguous()),
        lost: BTreeMap::new(),
        hooks: BTreeMap::new(),
        incomplete,
    }
}

fn clocks(packets: &Packets, shifted: &BTreeMap<Arc<str>, Nanos>) -> Vec<String> {
    let name = |input: u32| packets.inputs.get(input as usize).map_or("?", |input| &input.name);
    let captures = packets.joined.clocks.iter().map(|clock| {
        let (one, other) = (name(clock.input), name(clock.reference));
        let from = match clock.packets {
            1 => "one packet that both have".to_owned(),
            count => format!("{count} packets that both have"),
        };
        if clock.agrees() {
            return format!("the clocks of {one} and {other} agree, by {from}");
        }
        let ms = clock.ahead_ns.unsigned_abs() / 1_000_000;
        let how = if clock.ahead_ns > 0 { "ahead of" } else { "behind" };
        format!("the clock of {one} is {}.{:03} s {how} that of {other}, by {from}", ms / 1000, ms % 1000)
    });
    captures.chain(shifted.iter().map(|(file, ahead)| zones::sentence(file, *ahead))).collect()
}

struct Show<'a> {
    material: &'a Material,
    packets: &'a Packets,
    gathered: &'a Gathered,
    gaps: &'a [(Arc<str>, Missing)],
}

impl Show<'_> {
    fn analysed(&self, mut incident: Incident, names: &mut Names) -> Analysed {
        names.name(&mut incident, None);
        self.name_by_log(&mut incident);
        let local = address(incident.connection.local.as_ref());
        for text in local.and_then(|local| self.gathered.covered.get(&local)).into_iter().flatten() {
            let source = naming::source::SERVICE.to_owned();
            let at = incident.started_at.clone();
            if !incident.evidence.iter().any(|known| known.text == *text) {
                incident.evidence.push(Evidence { at, source, text: text.clone() });
            }
        }
        let listed = self.connect(&incident).map(Connect::as_listed);
        let connect = listed.as_ref();
        if connect.is_some_and(Connect::is_relative) {
            forget_numbers(&mut incident);
        }
        let place = |seen: &Seen| self.packets.place_of(seen);
        let (ladder, mut timeline) = match connect {
            Some(connect) => (
                handshake_picture::ladder(connect, &incident, &place),
                handshake_picture::timeline(connect, &incident, &place),
            ),
            None => (Ladder::of_incident(&incident), picture::timeline(&incident)),
        };
        timeline.extend(self.missing_request(&incident));
        timeline.sort_by_key(|moment| moment.at);
        let packets = connect.map_or_else(Vec::new, handshake_picture::packets);
        Analysed { incident, timeline, ladder, packets }
    }

    fn connect(&self, incident: &Incident) -> Option<&Connect> {
        let local = address(incident.connection.local.as_ref())?;
        let remote = address(incident.connection.remote.as_ref())?;
        let number = incident.connection.isn?.wrapping_add(1);
        let index = self.gathered.connects.get(&(Tuple { local, remote }, number))?;
        self.packets.joined.connects.get(*index)
    }

    /// Without a list of pods, the kubelet's own line tells which probe it was.
    fn name_by_log(&self, incident: &mut Incident) {
        let Some(line) = incident.log_lines.first() else { return };
        let is_it = |failure: &&ProbeFailure| {
            *failure.file == *line.file && failure.line == line.line && failure.text == line.text
        };
        let Some(failure) = self.material.failures.iter().find(is_it) else { return };
        if incident.probe.is_none() {
            incident.probe = probe(failure);
        }
    }

    /// The gap in the probed server's own log, if there is one where this probe should have been.
    fn missing_request(&self, incident: &Incident) -> Option<super::model::Moment> {
        let at = picture::nanos(&incident.started_at)?;
        let client = address(incident.connection.local.as_ref())?.ip();
        let fits = |(_, gap): &&(Arc<str>, Missing)| gap.client == client && gap.offset_from(at).is_some();
        let mut gaps = self.gaps.iter().filter(fits);
        // Two that fit equally well tell nothing.
        let ((input, gap), None) = (gaps.next()?, gaps.next()) else { return None };
        Some(gap.moment(input, at, gap.offset_from(at)?))
    }
}

/// The listing has no true sequence numbers: none are shown, but for the RST's, which is always the one after the SYN's.
fn forget_numbers(incident: &mut Incident) {
    let Some(isn) = incident.connection.isn.take() else { return };
    for reset in &mut incident.resets {
        reset.seq = reset.seq.wrapping_sub(isn);
    }
    let (first, next) = (isn.to_string(), isn.wrapping_add(1).to_string());
    for evidence in &mut incident.evidence {
        evidence.text = evidence.text.replace(&first, "0, relative").replace(&next, "1, relative");
    }
}

/// Requests that each server's log lacks.
fn gaps(material: &Material) -> Vec<(Arc<str>, Missing)> {
    let inputs: BTreeSet<&Arc<str>> = material.requests.iter().map(|from| &from.input).collect();
    let of = |input: &Arc<str>| {
        let requests = material.requests.iter().filter(|from| from.input == *input).map(|from| &from.value);
        missing(requests).into_iter().map(|gap| (Arc::clone(input), gap)).collect::<Vec<_>>()
    };
    inputs.into_iter().flat_map(of).collect()
}

fn address(text: Option<&String>) -> Option<SocketAddr> {
    text?.parse().ok()
}

/// What a line says of the probe. Its period is not in it.
fn probe(failure: &ProbeFailure) -> Option<Probe> {
    let kind = match failure.kind? {
        ProbeType::Liveness => "liveness",
        ProbeType::Readiness => "readiness",
        ProbeType::Startup => "startup",
    };
    let handler = match failure.class {
        FailureClass::Exec => return None,
        _ if failure.text.contains("Get ") => "httpGet",
        _ if failure.text.contains("dial tcp") => "tcpSocket",
        _ => "unknown",
    };
    Some(Probe {
        r#type: kind.to_owned(),
        handler: handler.to_owned(),
        pod: Pod {
            namespace: failure.namespace.clone()?,
            name: failure.name.clone()?,
            uid: failure.uid.clone(),
        },
        container: failure.container.clone()?,
        target: failure.target.map(|target| target.to_string()),
        period_s: None,
        timeout_s: failure.timeout_ns.and_then(|timeout| u32::try_from(timeout / SECOND).ok()),
        confidence: Confidence::Likely,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_collision_after_many_closed_ports_is_kept() {
        let closed = Incident { verdict: Verdict::OtherReset, ..samples::hijacked() };
        let mut incidents = vec![closed; MAX_INCIDENTS + 5];
        let late =
            Incident { started_at: "2030-01-01T00:00:00.000000000Z".to_owned(), ..samples::hijacked() };
        incidents.push(late);
        truncate(&mut incidents);
        assert_eq!(incidents.len(), MAX_INCIDENTS);
        assert_eq!(incidents.last().map(|incident| incident.verdict), Some(Verdict::Collision));
    }
}
