//! All pods that the sources named, findable by address, container, uid, name and probe target.
//!
//! Time is given by the caller. Pods that went away are kept for ten minutes: a failed probe is often followed by a
//! restart, and the incident is told after it.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::address::{Addresses, Span};
use super::sources::Sources;
use super::started::Starts;
use super::targets::TargetBy;
use super::update::{PodSourceKind, PodUpdate};
use crate::kubernetes::pod::{Container, Pod, ProbeSpec};
use crate::observation::Nanos;

use linking::remove_from;

/// Number of an entry; never used again.
pub type Slot = u64;

/// How long a pod that went away is kept.
pub const KEEP_NS: Nanos = 600_000_000_000;
/// Pods that are kept at most, those that went away included. What does not fit is counted.
pub const MAX_PODS: usize = 65_536;
/// A watch tells of a pod within this time.
const WATCH_DELAY_NS: Nanos = 30_000_000_000;
/// Containers that are remembered per pod, those before a restart included.
const MAX_CONTAINERS: usize = 64;

/// A pod and who named it.
#[derive(Debug)]
pub struct Known {
    /// The pod, as the best of its sources describes it.
    pub pod: Arc<Pod>,
    /// That source.
    pub source: PodSourceKind,
    /// When it existed.
    pub span: Span,
    /// Every source that still names it.
    views: Vec<(PodSourceKind, Arc<Pod>)>,
    /// What it is found by.
    keys: Keys,
    /// When its containers had passed their startup probes.
    starts: Starts,
}

impl Known {
    /// Whether the pod was missing when its sources last spoke.
    pub const fn is_gone(&self) -> bool {
        self.span.until.is_some()
    }

    /// Whether it runs, so that its addresses are its own: those of a finished pod are given to others.
    pub fn is_active(&self) -> bool {
        is_active(&self.pod)
    }
}

fn is_active(pod: &Pod) -> bool {
    !matches!(pod.phase.as_deref(), Some("Succeeded" | "Failed"))
}

#[derive(Debug, Default)]
struct Keys {
    ids: Vec<String>,
    containers: Vec<String>,
    targets: Vec<SocketAddr>,
    ports: Vec<u16>,
    addresses: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug)]
struct TargetRef {
    slot: Slot,
    container: u32,
    probe: u32,
    by: TargetBy,
}

#[derive(Clone, Debug)]
struct ContainerRef {
    slot: Slot,
    name: String,
    image: Option<String>,
}

/// A probe that connects to an address.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its pod.
    pub known: &'a Known,
    /// Its container.
    pub container: &'a Container,
    /// The probe.
    pub probe: &'a ProbeSpec,
    /// Why it connects there.
    pub by: TargetBy,
}

/// A container that an id names.
#[derive(Clone, Copy, Debug)]
pub struct Owned<'a> {
    /// Its pod.
    pub known: &'a Known,
    /// Its name.
    pub container: &'a str,
    /// Its image as the pod names it.
    pub image: Option<&'a str>,
}

/// Which node this is, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThisNode {
    /// Name of the Node object.
    pub name: Option<String>,
    /// Addresses of the node.
    pub addresses: Vec<IpAddr>,
}

/// Pods of this node (and, from a file, of others), joined from all sources.
#[derive(Debug, Default)]
pub struct PodIndex {
    entries: HashMap<Slot, Known>,
    next: Slot,
    by_name: HashMap<(String, String), Vec<Slot>>,
    by_id: HashMap<String, Vec<Slot>>,
    by_container: HashMap<String, ContainerRef>,
    by_port: HashMap<u16, Vec<Slot>>,
    by_target: HashMap<SocketAddr, Vec<TargetRef>>,
    addresses: Addresses,
    sources: Sources,
    node: ThisNode,
    refused: u64,
}

impl PodIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which node this is: probes of pods on other nodes are no candidates.
    pub fn set_node(&mut self, node: ThisNode) {
        self.node = node;
    }

    /// Which node this is.
    pub const fn node(&self) -> &ThisNode {
        &self.node
    }

    /// How the sources are doing.
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Pods that did not fit.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Pods that are there now, by namespace and name.
    pub fn pods(&self) -> Vec<&Known> {
        let mut pods: Vec<_> = self.entries.values().filter(|known| !known.is_gone()).collect();
        pods.sort_by(|a, b| (&a.pod.namespace, &a.pod.name).cmp(&(&b.pod.namespace, &b.pod.name)));
        pods
    }

    /// Takes what a source says, at time `now`. Services are not kept here.
    pub fn apply(&mut self, update: PodUpdate, now: Nanos) {
        match update {
            PodUpdate::All { source, pods, unreadable } => {
                let before = self.sources.heard(source, now);
                self.refused = 0;
                let mut named = BTreeSet::new();
                for pod in pods {
                    named.extend(self.put(source, pod, now, before));
                }
                // What could not be read may be a pod that was named before: nothing is known to have gone then.
                if unreadable.is_empty() {
                    self.drop_missing(source, &named, now);
                }
                self.sources.listed(source, unreadable);
            }
            PodUpdate::Changed { source, pod } => {
                let after = self.sources.heard(source, now).map(|last| last.max(now - WATCH_DELAY_NS));
                self.put(source, *pod, now, after);
            }
            PodUpdate::Gone { source, namespace, name, uid } => {
                self.sources.heard(source, now);
                let slots = self.by_name.get(&(namespace, name)).cloned().unwrap_or_default();
                for slot in slots {
                    let same =
                        |known: &&Known| uid.is_none() || known.pod.uid.is_none() || known.pod.uid == uid;
                    if self.entries.get(&slot).as_ref().is_some_and(same) {
                        self.withdraw(slot, source, now);
                    }
                }
            }
            PodUpdate::Trouble { source, reason } => self.sources.troubled(source, reason),
            PodUpdate::Absent { source, reason } => self.sources.absent(source, reason),
            PodUpdate::ServicesAll { source, unreadable, .. } => {
                self.sources.heard_services(source, now, Some(unreadable.len()));
            }
            PodUpdate::ServiceChanged { source, .. } | PodUpdate::ServiceGone { source, .. } => {
                self.sources.heard_services(source, now, None);
            }
        }
        self.expire(now);
    }

    /// Forgets pods that went away more than ten minutes before `now`.
    pub fn expire(&mut self, now: Nanos) {
        let limit = now.saturating_sub(KEEP_NS);
        self.addresses.forget(limit);
        let old = |known: &Known| known.span.until.is_some_and(|until| until < limit);
        let old: Vec<Slot> = self.entries.iter().filter(|(_, k)| old(k)).map(|(slot, _)| *slot).collect();
        for slot in old {
            self.forget(slot);
        }
    }

    fn put(&mut self, source: PodSourceKind, pod: Pod, now: Nanos, after: Option<Nanos>) -> Option<Slot> {
        let name = (pod.namespace.clone(), pod.name.clone());
        let namesakes = self.by_name.get(&name).cloned().unwrap_or_default();
        let found = namesakes
            .iter()
            .copied()
            .find(|slot| self.entries.get(slot).is_some_and(|known| is_same(&known.pod, &pod)));
        // A name is one pod's at a time: what this source said of another pod of that name is over.
        for other in namesakes.into_iter().filter(|slot| Some(*slot) != found) {
            self.withdraw(other, source, now);
        }
        let slot = found.or_else(|| self.make(name, &pod, source, after))?;
        let known = self.entries.get_mut(&slot)?;
        known.span.until = None;
        if source.knows_probes() {
            known.starts.see(&pod, now);
        }
        match known.views.iter_mut().find(|(kind, _)| *kind == source) {
            Some((_, view)) if **view == pod => return Some(slot),
            Some((_, view)) => *view = Arc::new(pod),
            None => known.views.push((source, Arc::new(pod))),
        }
        self.reindex(slot, now, after);
        Some(slot)
    }

    fn make(
        &mut self,
        name: (String, String),
        pod: &Pod,
        source: PodSourceKind,
        after: Option<Nanos>,
    ) -> Option<Slot> {
        if self.entries.len() >= MAX_PODS {
            self.refused += 1;
            return None;
        }
        let slot = self.next;
        self.next += 1;
        let span = Span { after, until: None };
        let pod = Arc::new(pod.clone());
        let known =
            Known { pod, source, span, views: Vec::new(), keys: Keys::default(), starts: Starts::default() };
        self.entries.insert(slot, known);
        self.by_name.entry(name).or_default().push(slot);
        Some(slot)
    }

    fn drop_missing(&mut self, source: PodSourceKind, named: &BTreeSet<Slot>, now: Nanos) {
        let missing: Vec<Slot> = self.entries.keys().copied().filter(|slot| !named.contains(slot)).collect();
        for slot in missing {
            self.withdraw(slot, source, now);
        }
    }

    /// The source no longer names this pod. If none does, it went away.
    fn withdraw(&mut self, slot: Slot, source: PodSourceKind, now: Nanos) {
        let Some(known) = self.entries.get_mut(&slot) else { return };
        let before = known.views.len();
        known.views.retain(|(kind, _)| *kind != source);
        if known.views.len() == before {
            return;
        }
        if known.views.is_empty() {
            known.span.until = Some(now);
            let open = std::mem::take(&mut known.keys.addresses);
            self.addresses.set(slot, &open, &[], now, None);
        } else {
            self.reindex(slot, now, None);
        }
    }

    fn forget(&mut self, slot: Slot) {
        let Some(known) = self.entries.remove(&slot) else { return };
        self.unlink(slot, &known.keys);
        for id in &known.keys.containers {
            if self.by_container.get(id).is_some_and(|container| container.slot == slot) {
                self.by_container.remove(id);
            }
        }
        let name = (known.pod.namespace.clone(), known.pod.name.clone());
        remove_from(&mut self.by_name, &name, |other| *other == slot);
    }
}

/// Whether two descriptions of one name are of one pod: they share an id, or one of them has none. A static pod has
/// the hash of its manifest for uid at kubelet and an ordinary one at the API server, with the hash as annotation.
fn is_same(a: &Pod, b: &Pod) -> bool {
    let ids = |pod: &Pod| -> Vec<String> { pod.uid.iter().chain(&pod.config_hash).cloned().collect() };
    let (a, b) = (ids(a), ids(b));
    a.is_empty() || b.is_empty() || a.iter().any(|id| b.contains(id))
}

#[path = "linking.rs"]
mod linking;
#[path = "lookup.rs"]
mod lookup;

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
