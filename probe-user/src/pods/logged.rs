//! Where a probe connects to that kubelet's log names without an address. Pure; between the log and diagnosis.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::index::{Known, PodIndex};
use super::targets::targets;
use crate::kubelet_log::{FailureClass, ProbeFailure};
use crate::observation::{Fact, Nanos, Observation};

/// Adds to a line of kubelet's log where its probe connects to, if the line does not say so itself. What the line is
/// about is told by uid, else by namespace and name; a container or a type that it does not name may be any.
pub fn add_targets(index: &PodIndex, observation: &mut Observation) {
    let at = observation.at;
    if let Fact::ProbeFailed { failure, targets } = &mut observation.fact
        && targets.is_empty()
    {
        *targets = targets_of(index, failure, at).into_iter().collect();
    }
}

fn targets_of(index: &PodIndex, failure: &ProbeFailure, at: Nanos) -> BTreeSet<SocketAddr> {
    if failure.target.is_some() || failure.class == FailureClass::Exec {
        return BTreeSet::new();
    }
    let pods = pods(index, failure, at);
    let containers = pods.iter().flat_map(|known| {
        let named = |name: &String| failure.container.as_ref().is_none_or(|wanted| wanted == name);
        known.pod.containers.iter().filter(move |container| named(&container.name)).map(move |c| (known, c))
    });
    containers
        .flat_map(|(known, container)| container.probes.iter().map(move |probe| (known, probe)))
        .filter(|(_, probe)| failure.kind.is_none_or(|kind| kind == probe.kind))
        .flat_map(|(known, probe)| targets(&known.pod, &probe.handler))
        .map(|target| target.address)
        .collect()
}

/// The pod that a line is about. A pod of the same name with another uid is another pod; for a static pod the line has
/// the hash of its manifest, which counts as a uid.
fn pods<'a>(index: &'a PodIndex, failure: &ProbeFailure, at: Nanos) -> Vec<&'a Known> {
    let by_uid = failure.uid.as_deref().map(|uid| index.by_uid(uid)).unwrap_or_default();
    let mut pods = if by_uid.is_empty() { by_name(index, failure, at) } else { by_uid };
    pods.retain(|known| index.is_here(&known.pod));
    pods
}

fn by_name<'a>(index: &'a PodIndex, failure: &ProbeFailure, at: Nanos) -> Vec<&'a Known> {
    let (Some(namespace), Some(name)) = (&failure.namespace, &failure.name) else { return Vec::new() };
    let mut pods = index.by_name(namespace, name);
    pods.retain(|known| known.span.covers(at) && (failure.uid.is_none() || known.pod.uid.is_none()));
    pods
}

#[cfg(test)]
#[path = "logged_tests.rs"]
mod tests;
