//! How much memory incidents take, about: what keeps them has to be bounded in bytes.

use super::incident::{
    Advice, Connection, Evidence, Hijack, Incident, LogLine, OwnerInfo, Pod, Probe, ResetInfo, ServiceInfo,
};

/// Bytes of an incident without its advice, which others may share.
pub(crate) fn of_incident(incident: &Incident) -> usize {
    let Incident { id, started_at, connection, service, owner, probe, hijack, .. } = incident;
    let Incident { resets, log_lines, evidence, .. } = incident;
    let Connection { local, remote, .. } = connection;
    size_of::<Incident>()
        + id.len()
        + started_at.len()
        + of([local, remote])
        + service.as_ref().map_or(0, of_service)
        + of_owner(owner)
        + probe.as_ref().map_or(0, of_probe)
        + hijack.as_ref().map_or(0, of_hijack)
        + resets.iter().map(of_reset).sum::<usize>()
        + log_lines.iter().map(of_line).sum::<usize>()
        + evidence.iter().map(of_evidence).sum::<usize>()
}

/// Bytes of advice.
pub(crate) fn of_advice(advice: &[Advice]) -> usize {
    let one = |advice: &Advice| {
        let Advice { setting, value, command, persist, why } = advice;
        size_of::<Advice>() + setting.len() + of([value, command, persist]) + why.len()
    };
    advice.iter().map(one).sum()
}

fn of<const N: usize>(texts: [&Option<String>; N]) -> usize {
    texts.into_iter().flatten().map(String::len).sum()
}

fn of_service(service: &ServiceInfo) -> usize {
    let ServiceInfo { protocol, address, scheduler, name, kind, backends } = service;
    let backends: usize = backends.iter().map(|backend| size_of::<String>() + backend.len()).sum();
    protocol.len() + address.len() + of([scheduler, name, kind]) + backends
}

fn of_pod(pod: &Pod) -> usize {
    let Pod { namespace, name, uid } = pod;
    namespace.len() + name.len() + of([uid])
}

fn of_owner(owner: &OwnerInfo) -> usize {
    let OwnerInfo { pid: _, comm, exe, cmdline, cgroup, container_id, pod, confidence: _ } = owner;
    of([comm, exe, cmdline, cgroup, container_id]) + pod.as_ref().map_or(0, of_pod)
}

fn of_probe(probe: &Probe) -> usize {
    let Probe { r#type, handler, pod, container, target, .. } = probe;
    r#type.len() + handler.len() + of_pod(pod) + container.len() + of([target])
}

fn of_hijack(hijack: &Hijack) -> usize {
    let Hijack { client, r#virtual, backend, state } = hijack;
    client.len() + r#virtual.len() + backend.len() + of([state])
}

fn of_reset(reset: &ResetInfo) -> usize {
    let ResetInfo { at, netns: _, local, remote, seq: _, reason } = reset;
    size_of::<ResetInfo>() + at.len() + local.len() + remote.len() + of([reason])
}

fn of_line(line: &LogLine) -> usize {
    let LogLine { at, file, line: _, text } = line;
    size_of::<LogLine>() + at.len() + file.len() + text.len()
}

fn of_evidence(evidence: &Evidence) -> usize {
    let Evidence { at, source, text } = evidence;
    size_of::<Evidence>() + at.len() + source.len() + text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn the_size_follows_what_an_incident_says() {
        let incident = samples::hijacked();
        let told = serde_json::to_vec(&incident).unwrap().len();
        let whole = of_incident(&incident) + of_advice(&incident.advice);
        assert!((told / 2..told * 2).contains(&whole), "{whole} bytes, {told} as JSON");
        let mut more = incident.clone();
        let backend = "10.0.0.1:80".to_owned();
        more.service.as_mut().unwrap().backends = vec![backend; 1000];
        assert!(of_incident(&more) > of_incident(&incident) + 11_000);
    }
}
