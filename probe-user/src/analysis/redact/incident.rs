//! What an incident holds.

use std::sync::Arc;

use super::Redactor;
use super::names::Kind;
use super::text::Trust;
use crate::diagnosis::incident::{
    Advice, Evidence, Hijack, Incident, LogLine, OwnerInfo, Pod, Probe, ResetInfo, ServiceInfo,
};

/// Programs that every node has: they name nobody.
const PROGRAMS: [&str; 32] = [
    "kubelet",
    "kube-proxy",
    "kube-apiserver",
    "kube-controller",
    "kube-scheduler",
    "etcd",
    "containerd",
    "containerd-shim",
    "dockerd",
    "docker-proxy",
    "crio",
    "conmon",
    "runc",
    "k3s",
    "k3s-server",
    "k3s-agent",
    "rke2",
    "microk8s",
    "hyperkube",
    "kubelite",
    "coredns",
    "node-cache",
    "calico-node",
    "bird",
    "cilium-agent",
    "flanneld",
    "kube-router",
    "haproxy",
    "nginx",
    "curl",
    "systemd",
    "portclash",
];

impl Redactor {
    /// Rewrites one incident.
    pub fn incident(&mut self, incident: &mut Incident) {
        self.learn(incident);
        self.fields(incident);
    }

    /// Meets the names of an incident.
    pub(super) fn learn(&mut self, incident: &Incident) {
        let probe = incident.probe.as_ref();
        for pod in incident.owner.pod.iter().chain(probe.map(|probe| &probe.pod)) {
            self.names.alias(Kind::Namespace, &pod.namespace);
            self.names.alias(Kind::Pod, &pod.name);
            if let Some(uid) = &pod.uid {
                self.names.alias(Kind::Uid, uid);
            }
        }
        if let Some(name) = incident.service.as_ref().and_then(|service| service.name.as_deref()) {
            self.service_name(name);
        }
        if let Some(probe) = probe {
            self.names.alias(Kind::Container, &probe.container);
        }
        if let Some(id) = &incident.owner.container_id {
            let alias = self.names.alias(Kind::ContainerId, id);
            // Twelve digits of it are shown elsewhere.
            if let Some(short) = id.get(..12) {
                self.names.also(Kind::ContainerId, short, &alias);
            }
        }
        if let Some(comm) = &incident.owner.comm {
            self.program(comm);
        }
        for line in &incident.log_lines {
            self.log_file(&line.file);
        }
    }

    pub(super) fn fields(&mut self, incident: &mut Incident) {
        let Incident {
            schema: _,
            id,
            verdict: _,
            outcome: _,
            confidence: _,
            started_at,
            duration_ms: _,
            connection,
            service,
            owner,
            probe,
            hijack,
            resets,
            log_lines,
            evidence,
            advice,
        } = incident;
        self.maybe(&mut connection.local);
        self.maybe(&mut connection.remote);
        // Incidents that were read are of whoever wrote them: no string of theirs is trusted.
        *started_at = self.text(started_at);
        let time: String = started_at.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let name = |address: &Option<String>| address.clone().unwrap_or_else(|| "unknown".to_owned());
        *id = format!("{time}-{}-{}", name(&connection.local), name(&connection.remote));
        if let Some(service) = service {
            self.service(service);
        }
        self.owner(owner);
        if let Some(probe) = probe {
            self.probe(probe);
        }
        if let Some(Hijack { client, r#virtual, backend, state }) = hijack {
            for text in [client, r#virtual, backend] {
                *text = self.text(text);
            }
            self.maybe(state);
        }
        for ResetInfo { at, netns: _, local, remote, seq: _, reason } in resets {
            (*at, *local, *remote) = (self.text(at), self.text(local), self.text(remote));
            self.maybe(reason);
        }
        for LogLine { at, file, line: _, text } in log_lines {
            *at = self.text(at);
            *text = self.line(text);
            *file = self.log_file(file);
        }
        for Evidence { at, source, text } in evidence {
            (*at, *source, *text) = (self.text(at), self.text(source), self.text(text));
        }
        for Advice { setting, value, command, persist, why } in Arc::make_mut(advice) {
            let texts = [Some(setting), value.as_mut(), command.as_mut(), persist.as_mut(), Some(why)];
            for text in texts.into_iter().flatten() {
                *text = self.texts.rewrite(text, Trust::Advice, &mut self.names, &mut self.addresses);
            }
        }
    }

    fn service(&mut self, service: &mut ServiceInfo) {
        let ServiceInfo { protocol, address, scheduler, name, kind, backends } = service;
        (*protocol, *address) = (self.text(protocol), self.text(address));
        self.maybe(scheduler);
        if let Some(name) = name {
            *name = self.service_name(name);
        }
        self.maybe(kind);
        self.all(backends);
    }

    /// `namespace/name:port`
    fn service_name(&mut self, name: &str) -> String {
        let (name, port) = name.split_once(':').map_or((name, None), |(name, port)| (name, Some(port)));
        let name = match name.split_once('/') {
            Some((namespace, name)) => {
                format!(
                    "{}/{}",
                    self.names.alias(Kind::Namespace, namespace),
                    self.names.alias(Kind::Service, name)
                )
            }
            None => self.names.alias(Kind::Service, name),
        };
        let Some(port) = port else { return name };
        let plain = port.chars().all(|c| c.is_ascii_digit()) || self.texts.is_ours(port);
        let port = if plain { port.to_owned() } else { self.names.alias(Kind::Port, port) };
        format!("{name}:{port}")
    }

    fn owner(&mut self, owner: &mut OwnerInfo) {
        let OwnerInfo { pid: _, comm, exe, cmdline, cgroup, container_id, pod, confidence: _ } = owner;
        for name in [comm, exe].into_iter().flatten() {
            *name = self.program(name);
        }
        if let Some(cmdline) = cmdline {
            let first = cmdline.split(' ').next().unwrap_or_default();
            let more = if first.len() < cmdline.len() { " …" } else { "" };
            *cmdline = self.program(first) + more;
        }
        if let Some(cgroup) = cgroup {
            *cgroup = self.names.alias(Kind::Cgroup, cgroup);
        }
        if let Some(id) = container_id {
            *id = self.names.alias(Kind::ContainerId, id);
        }
        if let Some(pod) = pod {
            self.pod(pod);
        }
    }

    /// The name of a program, without its path; its alias if not every node has it.
    fn program(&mut self, path: &str) -> String {
        let name = path.rsplit('/').next().unwrap_or(path);
        if PROGRAMS.contains(&name) { name.to_owned() } else { self.names.alias(Kind::Process, name) }
    }

    fn pod(&mut self, pod: &mut Pod) {
        let Pod { namespace, name, uid } = pod;
        *namespace = self.names.alias(Kind::Namespace, namespace);
        *name = self.names.alias(Kind::Pod, name);
        if let Some(uid) = uid {
            *uid = self.names.alias(Kind::Uid, uid);
        }
    }

    fn probe(&mut self, probe: &mut Probe) {
        let Probe { r#type, handler, pod, container, target, period_s: _, timeout_s: _, confidence: _ } =
            probe;
        (*r#type, *handler) = (self.text(r#type), self.text(handler));
        self.pod(pod);
        *container = self.names.alias(Kind::Container, container);
        self.maybe(target);
    }

    /// A file, or a unit of the journal.
    fn log_file(&mut self, file: &str) -> String {
        match file.strip_prefix("journal:") {
            Some(unit) if PROGRAMS.contains(&unit.trim_end_matches(".service")) => file.to_owned(),
            Some(unit) => format!("journal:{}", self.names.alias(Kind::Unit, unit)),
            None => self.names.file(file),
        }
    }
}
