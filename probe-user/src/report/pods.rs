//! Pods of this node and their probes: a page for people, one object per probe for programs.

use schemars::JsonSchema;
use serde::Serialize;

use super::text::TextStyle;
use super::text_escape::{escape, escape_all};
use super::text_page::{BOLD, DIM, PLAIN, Page, YELLOW};
use crate::diagnosis::incident::Pod;
use crate::kubernetes::pod::{Container, Handler, ProbeSpec};
use crate::observation::Nanos;
use crate::pods::index::{Known, PodIndex};
use crate::pods::targets::targets;
use crate::pods::words;

/// `portclash.probe/v1`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProbeLine {
    /// `portclash.probe/v1`
    pub schema: &'static str,
    /// The probed pod.
    pub pod: Pod,
    /// The probed container.
    pub container: String,
    /// `liveness`, `readiness` or `startup`.
    pub r#type: String,
    /// `httpGet`, `tcpSocket`, `grpc` or `exec`.
    pub handler: String,
    /// `address:port` that kubelet connects to; `null` if it connects to none (`exec`), or that is not known.
    pub target: Option<String>,
    /// Path of an `httpGet`.
    pub path: Option<String>,
    /// Period in seconds.
    pub period_s: u32,
    /// Timeout in seconds.
    pub timeout_s: u32,
    /// Whether the pod shares the node's network namespace.
    pub host_network: bool,
    /// Who said so: `kubelet`, `kubelet-read-only`, `api`, `file`.
    pub source: String,
}

/// Every probe of the pods on this node, by pod.
pub fn lines(pods: &[&Known]) -> Vec<ProbeLine> {
    pods.iter()
        .flat_map(|known| probes_of(known).map(|(container, probe)| line(known, container, probe)))
        .collect()
}

/// Pods that are there now and that run, or may run, on this node.
pub fn here(index: &PodIndex) -> Vec<&Known> {
    index.pods().into_iter().filter(|known| index.is_here(&known.pod) && known.is_active()).collect()
}

fn probes_of(known: &Known) -> impl Iterator<Item = (&Container, &ProbeSpec)> {
    known
        .pod
        .containers
        .iter()
        .flat_map(|container| container.probes.iter().map(move |probe| (container, probe)))
}

fn line(known: &Known, container: &Container, probe: &ProbeSpec) -> ProbeLine {
    let pod = &known.pod;
    let path = match &probe.handler {
        Handler::HttpGet { path, .. } => Some(path.clone()),
        _ => None,
    };
    ProbeLine {
        schema: "portclash.probe/v1",
        pod: Pod { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() },
        container: container.name.clone(),
        r#type: words::probe_type(probe.kind).to_owned(),
        handler: words::handler(&probe.handler).to_owned(),
        target: targets(pod, &probe.handler).first().map(|target| target.address.to_string()),
        path,
        period_s: probe.period_s,
        timeout_s: probe.timeout_s,
        host_network: pod.host_network,
        source: known.source.word().to_owned(),
    }
}

/// The page, as of `now`.
pub fn page(index: &PodIndex, notes: &[String], now: Nanos, style: TextStyle) -> String {
    let mut page = Page::new(style.colour, style.width);
    let pods = here(index);
    let cells = widths(&pods);
    for known in &pods {
        pod(&mut page, known, cells);
    }
    if !pods.is_empty() {
        page.blank();
    }
    summary(&mut page, index, &pods);
    sources(&mut page, index, &pods, now);
    for note in notes {
        page.field(0, ("Note", BOLD), 10, (&escape_all(note), PLAIN));
    }
    page.finish()
}

/// Width of the column of containers, so that all texts begin in one column.
fn widths(pods: &[&Known]) -> usize {
    let names =
        pods.iter().flat_map(|known| probes_of(known).map(|(container, _)| container.name.chars().count()));
    names.max().unwrap_or(0).clamp(6, 20) + 2
}

fn pod(page: &mut Page, known: &Known, cells: usize) {
    let name = format!("{}/{}", escape(&known.pod.namespace), escape(&known.pod.name));
    let ips: Vec<String> = known.pod.ips.iter().map(ToString::to_string).collect();
    let network = if known.pod.host_network { ", host network" } else { "" };
    let ips = if ips.is_empty() { "no address yet".to_owned() } else { ips.join(", ") };
    page.field(0, (&name, BOLD), name.chars().count() + 2, (&format!("{ips}{network}"), DIM));
    let mut any = false;
    for (container, probe) in probes_of(known) {
        any = true;
        let kind = words::probe_type(probe.kind);
        let text = format!(
            "{}, every {} s, timeout {} s",
            escape_all(&action(known, probe)),
            probe.period_s,
            probe.timeout_s
        );
        page.row(2, &[(&escape(&container.name), PLAIN, cells), (kind, PLAIN, 11)], (&text, PLAIN));
    }
    if !any {
        let text = if known.source.knows_probes() { "no probes" } else { "probes are not known" };
        page.verbatim(2, DIM, text);
    }
}

fn action(known: &Known, probe: &ProbeSpec) -> String {
    match targets(&known.pod, &probe.handler).first() {
        Some(target) => words::action(&probe.handler, target.address),
        None if probe.handler == Handler::Exec => "exec, no network".to_owned(),
        None => format!("{}, its address is not known", words::handler(&probe.handler)),
    }
}

fn summary(page: &mut Page, index: &PodIndex, pods: &[&Known]) {
    let probes: usize = pods.iter().map(|known| probes_of(known).count()).sum();
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let node = on_node(index, pods);
    let text = format!("{}, {}{node}", count(pods.len(), "pod"), count(probes, "probe"));
    page.field(0, ("Pods", BOLD), 10, (&text, PLAIN));
    if index.refused() > 0 {
        let text = format!("{} pods more than can be kept were left out", index.refused());
        page.field(0, ("LEFT OUT", YELLOW), 10, (&text, PLAIN));
    }
}

/// ` on node node-a`
fn on_node(index: &PodIndex, pods: &[&Known]) -> String {
    if let Some(name) = &index.node().name {
        return format!(" on node {}", escape(name));
    }
    let mut nodes: Vec<_> = pods.iter().filter_map(|known| known.pod.node_name.as_ref()).collect();
    nodes.sort();
    nodes.dedup();
    match nodes.as_slice() {
        [] => String::new(),
        [only] => format!(" on node {}", escape(only)),
        all => format!(" on {} nodes; which of them this is, is not known (see --node-name)", all.len()),
    }
}

fn sources(page: &mut Page, index: &PodIndex, pods: &[&Known], now: Nanos) {
    for (kind, state) in index.sources().iter() {
        let mut parts = Vec::new();
        let names_any = pods.is_empty() || pods.iter().any(|known| known.source == kind);
        if let Some(last) = state.last_word.filter(|_| names_any) {
            parts.push(format!("{kind}, listed {} s ago", now.saturating_sub(last).max(0) / 1_000_000_000));
            if !kind.knows_probes() {
                parts.push("the container runtime does not know probes".to_owned());
            }
        }
        if !parts.is_empty() {
            page.field(0, ("Source", BOLD), 10, (&parts.join("; "), PLAIN));
        }
        for complaint in state.complaints() {
            page.field(0, ("MISSING", YELLOW), 10, (&format!("{kind}: {}", escape_all(&complaint)), PLAIN));
        }
        for row in &state.unreadable {
            let line = if row.line > 0 { format!("line {}: ", row.line) } else { String::new() };
            let text = if row.text.is_empty() { String::new() } else { format!(" ({})", escape(&row.text)) };
            page.field(0, ("", PLAIN), 10, (&format!("{line}{}{text}", escape_all(&row.reason)), PLAIN));
        }
    }
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
