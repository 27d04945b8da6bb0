//! Pods and probes in words, for evidence lines. Strings from outside are escaped where they are printed.

use std::net::SocketAddr;

use super::index::{Candidate, Known};
use crate::kubernetes::pod::{Handler, ProbeType};

/// Candidates that are listed at most.
const MAX_LISTED: usize = 6;

/// `liveness`, `readiness`, `startup`.
pub const fn probe_type(kind: ProbeType) -> &'static str {
    match kind {
        ProbeType::Liveness => "liveness",
        ProbeType::Readiness => "readiness",
        ProbeType::Startup => "startup",
    }
}

/// The field's name in a pod: `httpGet`, `tcpSocket`, `grpc`, `exec`.
pub const fn handler(handler: &Handler) -> &'static str {
    match handler {
        Handler::HttpGet { .. } => "httpGet",
        Handler::TcpSocket { .. } => "tcpSocket",
        Handler::Grpc { .. } => "grpc",
        Handler::Exec => "exec",
    }
}

/// What a probe does to an address: `GET http://10.0.0.1:80/`.
pub fn action(handler: &Handler, target: SocketAddr) -> String {
    match handler {
        Handler::HttpGet { scheme, path, .. } => {
            let slash = if path.starts_with('/') { "" } else { "/" };
            format!("GET {}://{target}{slash}{path}", scheme.to_ascii_lowercase())
        }
        Handler::TcpSocket { .. } => format!("TCP connect to {target}"),
        Handler::Grpc { service: Some(service), .. } if !service.is_empty() => {
            format!("gRPC health check of service {service} at {target}")
        }
        Handler::Grpc { .. } => format!("gRPC health check at {target}"),
        Handler::Exec => "a command in the container".to_owned(),
    }
}

/// `default/nginx`
pub fn pod(known: &Known) -> String {
    let gone = if known.is_gone() { " (gone since)" } else { "" };
    format!("{}/{}{gone}", known.pod.namespace, known.pod.name)
}

/// `default/a, default/b and 3 more`
pub fn pods(all: &[&Known]) -> String {
    list(&all.iter().map(|known| pod(known)).collect::<Vec<_>>(), ", ")
}

/// `readiness probe of default/nginx, container nginx: GET http://10.0.0.1:80/, every 10 s, timeout 2 s`
pub fn probe(found: &Candidate<'_>, target: SocketAddr) -> String {
    format!("{} probe of {}", probe_type(found.probe.kind), rest(found, target))
}

fn rest(found: &Candidate<'_>, target: SocketAddr) -> String {
    format!(
        "{}, container {}: {}, every {} s, timeout {} s",
        pod(found.known),
        found.container.name,
        action(&found.probe.handler, target),
        found.probe.period_s,
        found.probe.timeout_s
    )
}

/// Several probes, of which it is one. Those that differ in nothing but their type are named together.
pub fn probes(all: &[Candidate<'_>], target: SocketAddr) -> String {
    let mut groups: Vec<(Vec<&str>, String)> = Vec::new();
    for found in all {
        let (kind, rest) = (probe_type(found.probe.kind), rest(found, target));
        match groups.iter_mut().find(|(_, other)| *other == rest) {
            Some((kinds, _)) => kinds.push(kind),
            None => groups.push((vec![kind], rest)),
        }
    }
    let groups: Vec<String> =
        groups.into_iter().map(|(kinds, rest)| format!("{} probe of {rest}", kinds.join(" or "))).collect();
    if let [one] = groups.as_slice() { one.clone() } else { format!("one of: {}", list(&groups, "; ")) }
}

fn list(all: &[String], separator: &str) -> String {
    let shown = all.get(..MAX_LISTED.min(all.len())).unwrap_or_default().join(separator);
    match all.len().saturating_sub(MAX_LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
