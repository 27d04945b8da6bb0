//! Who and what takes part in an incident, in words: process, probe, service, and which names are missing.

use super::text_escape::escape;
use crate::diagnosis::incident::{Confidence, Incident, OwnerInfo, Pod, Probe, ServiceInfo};
use crate::pods::naming;
use crate::pods::update::PodSourceKind;

/// The process in few words.
pub(super) fn owner_short(owner: &OwnerInfo) -> String {
    match (&owner.comm, owner.pid) {
        (Some(comm), Some(pid)) => format!("{} (pid {pid})", escape(comm)),
        (Some(comm), None) => format!("{} (pid unknown)", escape(comm)),
        (None, Some(pid)) => format!("pid {pid}"),
        (None, None) => "an unknown process".to_owned(),
    }
}

/// The process, as far as it is known: name, pod, container, command line.
pub(super) fn owner(owner: &OwnerInfo) -> String {
    let short = |container: &String| escape(&container.chars().take(12).collect::<String>());
    let pod = owner.pod.as_ref().map(|pod| format!("pod {}/{}", escape(&pod.namespace), escape(&pod.name)));
    let container = owner.container_id.as_ref().map(|container| format!("container {}", short(container)));
    let parts: Vec<String> = [Some(owner_short(owner)), pod, container].into_iter().flatten().collect();
    let command = owner.cmdline.as_ref().or(owner.exe.as_ref());
    let command = command.map_or_else(String::new, |command| format!(": {}", escape(command)));
    parts.join(", ") + &command
}

/// `, readiness probe of default/nginx`
pub(super) fn probe_short(probe: Option<&Probe>) -> String {
    probe.map_or_else(String::new, |probe| {
        let Pod { namespace, name, uid: _ } = &probe.pod;
        format!(", {} probe of {}/{}", escape(&probe.r#type), escape(namespace), escape(name))
    })
}

/// The probe as far as the incident itself has it, without its path.
pub(super) fn probe(probe: &Probe) -> String {
    let sure = match probe.confidence {
        Confidence::Proven => "",
        Confidence::Likely => " (likely)",
        Confidence::Possible => " (possible)",
    };
    let target = probe.target.as_deref().map_or_else(String::new, |target| format!(" to {}", escape(target)));
    let period = probe.period_s.map_or_else(String::new, |seconds| format!(", every {seconds} s"));
    let timeout = probe.timeout_s.map_or_else(String::new, |seconds| format!(", timeout {seconds} s"));
    format!(
        "{} probe of {}/{}, container {}: {}{target}{period}{timeout}{sure}",
        escape(&probe.r#type),
        escape(&probe.pod.namespace),
        escape(&probe.pod.name),
        escape(&probe.container),
        escape(&probe.handler),
    )
}

/// Backends that are listed by address; a service can have thousands.
const MAX_BACKENDS: usize = 4;

pub(super) fn service(service: &ServiceInfo) -> String {
    let names: Vec<String> =
        [&service.kind, &service.name].into_iter().flatten().map(|part| escape(part)).collect();
    let names = if names.is_empty() { String::new() } else { format!(", {}", names.join(" ")) };
    let shown: Vec<String> =
        service.backends.iter().take(MAX_BACKENDS).map(|backend| escape(backend)).collect();
    let list = shown.join(", ");
    let backends = match (service.backends.len(), shown.len()) {
        // Whoever has the table has the scheduler too.
        (0, _) if service.scheduler.is_none() => String::new(),
        (0, _) => ", without backends".to_owned(),
        (1, _) => format!(", backend {list}"),
        (all, listed) if all == listed => format!(", backends {list}"),
        (all, listed) => format!(", backends {list} and {} more", all - listed),
    };
    format!("{} {}{names}{backends}", escape(&service.protocol), escape(&service.address))
}

/// Which names are missing because a source is not on this machine; nothing if those that are make up for it.
pub(super) fn absent(incident: &Incident) -> Option<String> {
    let is_absent = |kind: &PodSourceKind| {
        let source = format!("{} ({kind})", naming::source::ABSENT);
        incident.evidence.iter().any(|evidence| evidence.source == source)
    };
    let (kubelet, api, runtime) = (PodSourceKind::Kubelet, PodSourceKind::Api, PodSourceKind::Cri);
    // A build that cannot ask the API server does not know whether there is one.
    let absent = [is_absent(&kubelet), cfg!(feature = "kube") && is_absent(&api), is_absent(&runtime)];
    let (who, what) = match absent {
        [true, true, true] => ("no kubelet, API server or container runtime", "none"),
        [true, false, true] => ("no kubelet or container runtime", "none"),
        [false, true, true] => ("no API server or container runtime", "none"),
        // The runtime answered, or nobody was asked yet.
        [true, true, false] => ("no kubelet or API server", "not of probes and Services"),
        [false, true, false] => ("no API server", "not of Services"),
        [false, false, true] => ("no container runtime", "none"),
        // The API server knows all that kubelet does.
        [_, false, false] => return None,
    };
    Some(format!("{what}: {who} on this machine (--pods file:PATH reads a list)"))
}
