//! Takes out of an analysis, and of the packets that belong to it, what names somebody, so that it can be given away.
//!
//! Fields that hold a name get its alias, addresses keep their relations, and of texts only this stays: words of the
//! program's own sentences, numbers, times and aliases. Ports, times and sequence numbers stay: they are the evidence.

mod addresses;
mod names;
mod packet;
mod text;

use addresses::Addresses;
use names::{Kind, Names};
use text::{Texts, Trust};

use super::model::{Analysed, Analysis, InputAccount, Ladder, Moment};
use crate::capture::LinkType;
use crate::diagnosis::incident::{
    Advice, Evidence, Hijack, Incident, LogLine, OwnerInfo, Pod, Probe, ResetInfo, ServiceInfo, Summary,
};
use crate::kubelet_log::{FailureClass, LineParser, ProbeFailure, Times, YearRule};
use crate::pods::words::probe_type;

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

/// Replaces names and addresses, each always by the same.
pub struct Redactor {
    addresses: Addresses,
    names: Names,
    texts: Texts,
    /// Packets that could not be made safe.
    dropped: u64,
}

impl Redactor {
    /// With the same key the same addresses are replaced by the same ones; whoever has the key can undo that.
    pub fn new(key: [u8; 32]) -> Self {
        Self { addresses: Addresses::new(&key), names: Names::default(), texts: Texts::new(), dropped: 0 }
    }

    /// Rewrites all that an analysis holds, and says so in its notes.
    pub fn redact(&mut self, analysis: &mut Analysis) {
        let Analysis { incidents, left_out: _, summary, inputs, clocks, ports: _, notes } = analysis;
        // All names first: texts refer to names of other fields and of other incidents.
        for input in &*inputs {
            self.names.file(&input.name);
        }
        for analysed in &*incidents {
            self.learn(&analysed.incident);
        }
        for input in inputs {
            self.input(input);
        }
        for analysed in incidents {
            self.analysed(analysed);
        }
        self.summary(summary);
        self.all(clocks);
        self.all(notes);
        notes.push(
"Names were replaced by aliases, and addresses by others that share as many leading bits. Words of other programs were \
             replaced or cut too. Ports and times are as they were."
                .to_owned(),
        );
    }

    /// Makes a captured frame safe, and says how many of its bytes are to be kept: payload is cut off. `None`: it
    /// cannot be made safe and must be left out.
    pub fn packet(&mut self, bytes: &mut [u8], link: LinkType) -> Option<usize> {
        let kept = packet::rewrite(bytes, link, &mut self.addresses);
        self.dropped += u64::from(kept.is_none());
        kept
    }

    /// Packets that [`Self::packet`] refused so far.
    pub const fn dropped_packets(&self) -> u64 {
        self.dropped
    }

    /// What stands for an input's name.
    pub fn file_name(&mut self, name: &str) -> String {
        self.names.file(name)
    }

    /// A text of somebody else: all that is no word of the program's own sentences, no number and no time is replaced.
    pub fn text(&mut self, text: &str) -> String {
        self.texts.rewrite(text, Trust::Outside, &mut self.names, &mut self.addresses)
    }

    /// Rewrites one incident.
    pub fn incident(&mut self, incident: &mut Incident) {
        self.learn(incident);
        self.fields(incident);
    }

    /// Meets the names of an incident.
    fn learn(&mut self, incident: &Incident) {
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

    fn analysed(&mut self, analysed: &mut Analysed) {
        let Analysed { incident, timeline, ladder, packets: _ } = analysed;
        self.fields(incident);
        for moment in timeline {
            let Moment { at: _, source, text } = moment;
            *text = self.line(text);
            *source = self.text(source);
        }
        let Ladder { parties, arrows } = ladder;
        for party in parties {
            party.title = self.text(&party.title);
            self.maybe(&mut party.address);
        }
        for arrow in arrows {
            arrow.label = self.text(&arrow.label);
            arrow.place = self.text(&arrow.place);
        }
    }

    fn fields(&mut self, incident: &mut Incident) {
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
        for Advice { setting, value, command, persist, why } in advice {
            let texts = [Some(setting), value.as_mut(), command.as_mut(), persist.as_mut(), Some(why)];
            for text in texts.into_iter().flatten() {
                *text = self.texts.rewrite(text, Trust::Advice, &mut self.names, &mut self.addresses);
            }
        }
    }

    fn maybe(&mut self, text: &mut Option<String>) {
        if let Some(text) = text {
            *text = self.text(text);
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

    /// A line of a log: told anew where it is a kubelet's about a probe, because its words are those of a server.
    fn line(&mut self, text: &str) -> String {
        let times = Times { zone: None, year: YearRule::From(1970) };
        let mut parser = LineParser::new("".into(), times);
        let mut found = Vec::new();
        parser.line(text.as_bytes(), None, &mut found);
        parser.flush(&mut found);
        match found.first() {
            Some(failure) => self.failure(failure),
            None => self.text(text),
        }
    }

    fn failure(&mut self, failure: &ProbeFailure) -> String {
        let ProbeFailure { kind, namespace, name, container, target, class, .. } = failure;
        let kind = kind.map_or("probe", probe_type);
        let names = &mut self.names;
        let container = container
            .as_ref()
            .map(|name| format!(" container {}", names.known_or_new(Kind::Container, name)));
        let pod = namespace.as_ref().zip(name.as_ref()).map(|(namespace, name)| {
            let namespace = names.known_or_new(Kind::Namespace, namespace);
            format!(" pod {namespace}/{}", names.known_or_new(Kind::Pod, name))
        });
        let target = target.map(|target| format!(" target {}", self.addresses.socket(target)));
        let parts: String = [pod, container, target].into_iter().flatten().collect();
        format!("Probe failed: {kind}{parts}: {} (line told anew)", class_word(*class))
    }

    fn input(&mut self, input: &mut InputAccount) {
        let InputAccount { schema: _, name, kind, bytes: _, sha256, read, skipped } = input;
        *name = self.names.file(name);
        self.maybe(kind);
        // The checksum of a file tells who has the same one.
        *sha256 = None;
        *read = self.text(read);
        self.all(skipped);
    }

    /// Rewrites a summary.
    pub fn summary(&mut self, summary: &mut Summary) {
        let Summary {
            schema: _,
            verdicts: _,
            connects_seen: _,
            probe_failures_elsewhere: _,
            probe_failures_ambiguous: _,
            lost,
            hooks,
            incomplete,
        } = summary;
        self.all(incomplete);
        let mut new = std::collections::BTreeMap::new();
        for (program, reasons) in std::mem::take(lost) {
            let reasons = reasons.into_iter().map(|(reason, count)| (self.text(&reason), count)).collect();
            new.insert(self.text(&program), reasons);
        }
        *lost = new;
        *hooks = std::mem::take(hooks)
            .into_iter()
            .map(|(need, rung)| (self.text(&need), self.text(&rung)))
            .collect();
    }

    fn all(&mut self, texts: &mut [String]) {
        for text in texts {
            *text = self.text(text);
        }
    }
}

const fn class_word(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Timeout => "timeout",
        FailureClass::Refused => "connection refused",
        FailureClass::Reset => "connection reset",
        FailureClass::Unreachable => "no route",
        FailureClass::OutOfPorts => "no free source port",
        FailureClass::HttpStatus(_) => "the server answered with an error",
        FailureClass::Exec => "a command failed",
        FailureClass::Empty => "no output",
        FailureClass::Cut => "the line is cut off",
        FailureClass::Other => "other",
    }
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "vocabulary_tests.rs"]
mod vocabulary_tests;
