//! From addresses to names: fills an incident's probe, its owner's pod, the service's name and the backends' pods, and
//! says as evidence what was ambiguous or what no source told. Pure; between diagnosis and the sinks.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::index::{Known, PodIndex};
use super::kubelet::{IsKubelet, ProcessView, is_kubelet};
use super::owner::{OwnerPod, owner_pod};
use super::probe::{Connect, ProbeMatch, match_probe};
use super::services::Services;
use super::update::{PodSourceKind, PodUpdate};
use super::words;
use crate::diagnosis::incident::{Confidence, Evidence, Incident, Outcome, OwnerInfo, Pod, Probe, Verdict};
use crate::observation::Nanos;

/// Where an evidence line of this module comes from: the beginning of its `source`.
pub mod source {
    /// Which probe it is, or which it may be.
    pub const PROBE: &str = "probe match";
    /// The pod and the container of the owner; why it counts as kubelet.
    pub const OWNER: &str = "owner match";
    /// The pod that was connected to, where no probe tells it.
    pub const SERVER: &str = "server match";
    /// Pods of backends.
    pub const BACKEND: &str = "backend match";
    /// Which Service it is.
    pub const SERVICE: &str = "service match";
    /// Sources that did not answer.
    pub const MISSING: &str = "pod sources";
    /// Sources that are not on this machine.
    pub const ABSENT: &str = "no pod source";
    /// All of them.
    pub const ALL: [&str; 7] = [PROBE, OWNER, SERVER, BACKEND, SERVICE, MISSING, ABSENT];
}

/// Addresses of which earlier connects are remembered.
const MAX_HISTORY: usize = 1024;
/// Connects that are remembered per address.
const MAX_EARLIER: usize = 8;
/// Backends whose pods are named.
const MAX_BACKENDS: usize = 4;

/// All that is known of pods and Services.
#[derive(Debug, Default)]
pub struct Names {
    pods: PodIndex,
    services: Services,
    /// When kubelet connected to an address, as far as it was seen.
    earlier: BTreeMap<SocketAddr, Vec<Nanos>>,
}

impl Names {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pods.
    pub const fn pods(&self) -> &PodIndex {
        &self.pods
    }

    /// The pods, to say which node this is.
    pub const fn pods_mut(&mut self) -> &mut PodIndex {
        &mut self.pods
    }

    /// Takes what a source says, at time `now`.
    pub fn apply(&mut self, update: PodUpdate, now: Nanos) {
        self.services.apply(&update);
        self.pods.apply(update, now);
    }

    /// Fills in what is known. `listens`: whether the owner holds the socket that listens on kubelet's port, if
    /// somebody looked. An incident that is told again is named again, with what is known by then.
    pub fn name(&mut self, incident: &mut Incident, listens: Option<bool>) {
        let at = time(&incident.started_at);
        let remote = incident.connection.remote.as_deref().and_then(|text| text.parse().ok());
        let mut notes = Vec::new();
        self.name_service(incident, &mut notes);
        if self.pods.sources().any_answered() {
            let kubelet = judge(&incident.owner, listens);
            if let IsKubelet::Yes(reason) = &kubelet {
                notes.push((source::OWNER, None, format!("it is a kubelet: {reason}")));
            }
            self.name_owner(incident, at, &kubelet, &mut notes);
            if let Some(remote) = remote {
                self.name_probe(incident, remote, at, &kubelet, &mut notes);
            }
            self.name_backends(incident, at, &mut notes);
        }
        self.name_sources(&mut notes);
        add(incident, notes);
    }

    /// The Kubernetes Services at a TCP address of this node; several = ambiguous, none = not known.
    pub fn services_at(&self, address: SocketAddr) -> Vec<String> {
        let node = &self.pods.node().addresses;
        let found = self.services.name_of(address, (!node.is_empty()).then_some(node));
        found.iter().map(ToString::to_string).collect()
    }

    fn name_service(&self, incident: &mut Incident, notes: &mut Vec<Note>) {
        let Some(service) = &mut incident.service else { return };
        let Ok(address) = service.address.parse() else { return };
        let node = &self.pods.node().addresses;
        let found = self.services.name_of(address, (!node.is_empty()).then_some(node));
        match found.as_slice() {
            [] if self.services.is_empty() => {}
            [] => notes.push((
                source::SERVICE,
                self.services.source(),
                format!("no listed Service has {address}"),
            )),
            [name] => {
                service.name = Some(name.to_string());
                service.kind = Some(super::services::kind_word(name.kind).to_owned());
            }
            several => {
                let all: Vec<String> = several.iter().map(|name| format!("{name} ({})", name.kind)).collect();
                let text = format!("ambiguous, {address} is claimed by {}", all.join(", "));
                notes.push((source::SERVICE, self.services.source(), text));
            }
        }
    }

    fn name_owner(&self, incident: &mut Incident, at: Nanos, kubelet: &IsKubelet, notes: &mut Vec<Note>) {
        let owner = &mut incident.owner;
        let found = owner_pod(&self.pods, owner.container_id.as_deref(), owner.cgroup.as_deref(), at);
        match found {
            OwnerPod::One { known, container, image } => {
                owner.pod = Some(named(known));
                let parts = [
                    container.map(|name| format!("it runs in container {name}")),
                    image.map(|image| format!("image {image}")),
                    known.is_gone().then(|| "its pod has gone since".to_owned()),
                ];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                if !parts.is_empty() {
                    notes.push((source::OWNER, Some(known.source), parts.join(", ")));
                }
            }
            OwnerPod::Ambiguous(pods) => {
                let text = format!("ambiguous, it runs in one of the pods {}", words::pods(&pods));
                notes.push((source::OWNER, None, text));
            }
            // A kubelet in a container (kind, hyperkube) is in nobody's list.
            OwnerPod::NotListed { .. } if matches!(kubelet, IsKubelet::Yes(_)) => {}
            OwnerPod::NotListed { what } => {
                notes.push((source::OWNER, None, format!("its pod is not known: no source lists {what}")));
            }
            OwnerPod::NoContainer => {}
        }
    }

    fn name_probe(
        &mut self,
        incident: &mut Incident,
        remote: SocketAddr,
        at: Nanos,
        kubelet: &IsKubelet,
        notes: &mut Vec<Note>,
    ) {
        let earlier = self.earlier.get(&remote).map(Vec::as_slice).unwrap_or_default();
        let earlier: Vec<Nanos> = earlier.iter().copied().filter(|before| *before < at).collect();
        let connect = Connect { remote, at, given_up_after: given_up_after(incident) };
        match match_probe(&self.pods, connect, kubelet, &earlier) {
            ProbeMatch::One { found, confidence, doubt } => {
                let text = words::probe(&found, remote);
                let sure =
                    doubt.map_or_else(String::new, |doubt| format!(" ({}: {doubt})", sure(confidence)));
                notes.push((source::PROBE, Some(found.known.source), text + &sure));
                incident.probe = Some(Probe {
                    r#type: words::probe_type(found.probe.kind).to_owned(),
                    handler: words::handler(&found.probe.handler).to_owned(),
                    pod: named(found.known),
                    container: found.container.name.clone(),
                    target: Some(remote.to_string()),
                    period_s: Some(found.probe.period_s),
                    timeout_s: Some(found.probe.timeout_s),
                    confidence,
                });
            }
            ProbeMatch::Ambiguous(all) => {
                let text = format!("ambiguous, {}", words::probes(&all, remote));
                notes.push((source::PROBE, all.first().map(|found| found.known.source), text));
            }
            ProbeMatch::None => self.name_server(remote, at, kubelet, notes),
        }
        if matches!(kubelet, IsKubelet::Yes(_)) {
            self.remember(remote, at);
        }
    }

    /// The pod that was connected to, and for kubelet why no probe is named.
    fn name_server(&self, remote: SocketAddr, at: Nanos, kubelet: &IsKubelet, notes: &mut Vec<Note>) {
        let pods = self.pods.pods_at(remote, at);
        match pods.as_slice() {
            [] => {}
            [known] => {
                let text = format!("{remote} is {}", in_pod(known, remote));
                notes.push((source::SERVER, Some(known.source), text));
            }
            several => {
                let text = format!("ambiguous, {remote} is one of {}", words::pods(several));
                notes.push((source::SERVER, None, text));
            }
        }
        if matches!(kubelet, IsKubelet::Yes(_)) {
            let blind = pods.iter().any(|known| !known.source.knows_probes());
            let text = if blind {
                "not known: the container runtime tells no probes; kubelet, the API server or a file would"
            } else {
                "not known: no listed probe connects there"
            };
            notes.push((source::PROBE, None, text.to_owned()));
        }
    }

    fn name_backends(&self, incident: &Incident, at: Nanos, notes: &mut Vec<Note>) {
        let hijacked = incident.hijack.iter().map(|hijack| &hijack.backend);
        let listed = incident.service.iter().flat_map(|service| &service.backends);
        let mut named: Vec<SocketAddr> = Vec::new();
        for address in hijacked.chain(listed).filter_map(|text| text.parse().ok()) {
            if !named.contains(&address) {
                named.push(address);
            }
        }
        for address in named.into_iter().take(MAX_BACKENDS) {
            let pods = self.pods.pods_at(address, at);
            match pods.as_slice() {
                [] => {}
                [known] => {
                    let text = format!("backend {address} is {}", in_pod(known, address));
                    notes.push((source::BACKEND, Some(known.source), text));
                }
                several => {
                    let text = format!("ambiguous, backend {address} is one of {}", words::pods(several));
                    notes.push((source::BACKEND, None, text));
                }
            }
        }
    }

    fn name_sources(&self, notes: &mut Vec<Note>) {
        for (kind, state) in self.pods.sources().iter() {
            let complaints = state.complaints().into_iter().map(|text| (source::MISSING, text));
            let absent = state.absent.iter().map(|text| (source::ABSENT, text.clone()));
            notes.extend(
                complaints.chain(absent).map(|(what, text)| (what, Some(kind), format!("{kind}: {text}"))),
            );
        }
    }

    fn remember(&mut self, remote: SocketAddr, at: Nanos) {
        if self.earlier.len() >= MAX_HISTORY && !self.earlier.contains_key(&remote) {
            let oldest = self.earlier.iter().min_by_key(|(_, times)| times.last().copied());
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.earlier.remove(&oldest);
            }
        }
        let times = self.earlier.entry(remote).or_default();
        if !times.contains(&at) {
            times.push(at);
            times.sort_unstable();
            if times.len() > MAX_EARLIER {
                times.remove(0);
            }
        }
    }
}

/// Kind of the note, the source that told, the text.
type Note = (&'static str, Option<PodSourceKind>, String);

/// Adds the notes as evidence of the moment of the first SYN, after what was seen then. Notes of an earlier naming go.
fn add(incident: &mut Incident, notes: Vec<Note>) {
    incident.evidence.retain(|evidence| !is_note(evidence));
    let at = incident.started_at.clone();
    let place = incident.evidence.iter().position(|evidence| evidence.at > at);
    let place = place.unwrap_or(incident.evidence.len());
    let notes = notes.into_iter().map(|(what, told_by, text)| {
        let source = told_by.map_or_else(|| what.to_owned(), |kind| format!("{what} ({kind})"));
        Evidence { at: at.clone(), source, text }
    });
    incident.evidence.splice(place..place, notes);
}

/// Whether an evidence line is a name and no event.
pub fn is_note(evidence: &Evidence) -> bool {
    source::ALL.iter().any(|what| is_of(evidence, what))
}

/// Whether an evidence line is of this kind of [`source`].
pub fn is_of(evidence: &Evidence, what: &str) -> bool {
    evidence.source.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
}

/// Whether the owner is a kubelet already by what is known of it, without a look at its sockets.
pub fn is_known_kubelet(owner: &OwnerInfo) -> bool {
    matches!(judge(owner, None), IsKubelet::Yes(_))
}

fn judge(owner: &OwnerInfo, listens: Option<bool>) -> IsKubelet {
    is_kubelet(ProcessView {
        exe: owner.exe.as_deref(),
        cmdline: owner.cmdline.as_deref(),
        cgroup: owner.cgroup.as_deref(),
        listens,
    })
}

/// How long the process waited before it closed the socket; `None` if the connect ended another way.
fn given_up_after(incident: &Incident) -> Option<Nanos> {
    let failed = matches!(incident.outcome, Outcome::Hijacked | Outcome::NoBackend | Outcome::Failed);
    let waited = incident.verdict == Verdict::Collision && failed;
    let ms = incident.duration_ms.filter(|_| waited)?;
    Nanos::try_from(ms).ok()?.checked_mul(1_000_000)
}

fn sure(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Proven => "proven",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible",
    }
}

/// A pod as output names it.
pub(crate) fn named(known: &Known) -> Pod {
    let pod = &known.pod;
    Pod { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
}

/// `pod default/web`, with the container if only one declares the port.
fn in_pod(known: &Known, address: SocketAddr) -> String {
    let declares = |container: &&crate::kubernetes::pod::Container| {
        container.ports.iter().any(|port| port.port == address.port())
    };
    let mut containers = known.pod.containers.iter().filter(declares);
    let container = match (containers.next(), containers.next()) {
        (Some(only), None) => format!(", container {}", only.name),
        _ => String::new(),
    };
    format!("pod {}{container}", words::pod(known))
}

/// Nanoseconds since 1970 of a time as incidents have it.
fn time(at: &str) -> Nanos {
    at.parse::<jiff::Timestamp>()
        .ok()
        .and_then(|time| Nanos::try_from(time.as_nanosecond()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "naming_tests.rs"]
mod tests;
