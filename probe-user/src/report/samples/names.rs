//! The incident with names as their sources give them.

use super::hijacked;
use crate::diagnosis::incident::Incident;
use crate::kubernetes::pod::ProbeType;
use crate::pods::naming::Names;
use crate::pods::samples as pods;
use crate::pods::update::{PodSourceKind, PodUpdate};

/// As lists of pods and Services name it.
pub(crate) fn named() -> Incident {
    let api =
        |services| PodUpdate::ServicesAll { source: PodSourceKind::Api, services, unreadable: Vec::new() };
    with_names(vec![pods::nginx(), pods::dashboard()], vec![api(vec![pods::dashboard_service()])])
}

/// On a machine without any source of names.
#[cfg(feature = "kube")]
pub(crate) fn no_sources() -> Incident {
    let absent = |source, reason: &str| PodUpdate::Absent { source, reason: reason.to_owned() };
    named_by(vec![
        absent(PodSourceKind::Kubelet, "ask kubelet at 127.0.0.1:10250: read token: No such file"),
        absent(PodSourceKind::Api, "API server: no kubeconfig found"),
        absent(PodSourceKind::Cri, "ask the container runtime: none of its usual sockets exists"),
    ])
}

/// With probes and Services that cannot be told apart, and a source that does not answer.
pub(crate) fn ambiguous() -> Incident {
    let mut web = pods::nginx();
    let mut liveness = web.containers[0].probes[0].clone();
    liveness.kind = ProbeType::Liveness;
    web.containers[0].probes.push(liveness);
    let mut second = pods::dashboard();
    (second.name, second.uid) = ("second".to_owned(), Some("second".to_owned()));
    let reason = "https://10.96.0.1/api/v1/services: 403 Forbidden; let the service account list services";
    let trouble = PodUpdate::Trouble { source: PodSourceKind::Api, reason: reason.to_owned() };
    with_names(vec![web, pods::dashboard(), second], vec![trouble])
}

fn with_names(pods: Vec<crate::kubernetes::pod::Pod>, updates: Vec<PodUpdate>) -> Incident {
    let list = PodUpdate::All { source: PodSourceKind::Kubelet, pods, unreadable: Vec::new() };
    named_by(std::iter::once(list).chain(updates))
}

fn named_by(updates: impl IntoIterator<Item = PodUpdate>) -> Incident {
    let mut names = Names::new();
    for update in updates {
        names.apply(update, 0);
    }
    let mut incident = hijacked();
    incident.probe = None;
    let service = incident.service.as_mut().unwrap();
    (service.name, service.kind) = (None, None);
    names.name(&mut incident, None);
    incident
}
