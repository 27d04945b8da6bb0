//! What a file is, by its content and never by its name.

use std::fmt;

use crate::capture::{self, listing::ListingForm};
use crate::kubernetes::list::{self, ListKind};
use crate::kubernetes::pod_text;
use crate::node::conntrack_text;
use crate::node::sockets::text as sockets;
use crate::{access_log, ipvs, kubelet_log};

/// How much of a file is looked at, after decompression.
pub const SAMPLE: usize = 64 * 1024;
/// Lines looked at; empty ones do not count.
const LINES: usize = 300;
/// Longest beginning of a line that is looked at.
const LINE: usize = 8 * 1024;

/// Kinds of files that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Packets, in binary.
    Capture(capture::Format),
    /// Packets, as text.
    PacketListing(ListingForm),
    /// Services or connections of IPVS.
    Ipvs(ipvs::Form),
    /// Services or Pods.
    Kubernetes(ListKind),
    /// Names and addresses of Pods, as `kubectl get pods -o wide` prints them.
    PodTable,
    /// A kubelet's log, in any wrapping.
    KubeletLog,
    /// kube-proxy's log.
    KubeProxyLog,
    /// Access log of a web server.
    AccessLog,
    /// Sockets.
    Sockets(sockets::Form),
    /// Connection tracking table.
    Conntrack,
    /// Sysctls and their values.
    Sysctls,
    /// Arguments of the API server, with the range of its node ports.
    Arguments,
    /// What `portclash trace`, `analyze` or `serve` wrote as JSON.
    Incidents,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capture(capture::Format::Pcap) => f.write_str("pcap capture"),
            Self::Capture(capture::Format::Pcapng) => f.write_str("pcapng capture"),
            Self::PacketListing(form) => form.fmt(f),
            Self::Ipvs(form) => form.fmt(f),
            Self::Kubernetes(ListKind::Services) => f.write_str("list of Services"),
            Self::Kubernetes(ListKind::Pods) => f.write_str("list of Pods"),
            Self::PodTable => f.write_str("table of Pods"),
            Self::KubeletLog => f.write_str("kubelet log"),
            Self::KubeProxyLog => f.write_str("kube-proxy log"),
            Self::AccessLog => f.write_str("access log"),
            Self::Sockets(sockets::Form::Ss) => f.write_str("sockets (ss)"),
            Self::Sockets(sockets::Form::Netstat) => f.write_str("sockets (netstat)"),
            Self::Sockets(sockets::Form::Lsof) => f.write_str("sockets (lsof)"),
            Self::Sockets(sockets::Form::Counts) => f.write_str("sockets (counts per address)"),
            Self::Conntrack => f.write_str("connection tracking table"),
            Self::Sysctls => f.write_str("sysctl settings"),
            Self::Arguments => f.write_str("arguments of kube-apiserver"),
            Self::Incidents => f.write_str("portclash JSON"),
        }
    }
}

impl Kind {
    /// Whether its reader keeps no more of the file in memory than it hands out: then a file may be of any size.
    pub const fn is_streamed(self) -> bool {
        matches!(
            self,
            Self::Capture(_)
                | Self::PacketListing(_)
                | Self::KubeletLog
                | Self::AccessLog
                | Self::Conntrack
                | Self::Incidents
        )
    }

    /// What a line, by itself, is a line of.
    fn of_line(line: &str) -> Option<Self> {
        if let Some(log) = kubelet_log::recognise(line.as_bytes()) {
            // Whatever it quotes is no line of another file. klog's format alone does not tell whose log it is.
            let is_proxy = line.contains("proxier.go:") || line.contains("kube-proxy");
            let other = is_proxy.then_some(Self::KubeProxyLog);
            return if log.kubelet { Some(Self::KubeletLog) } else { other };
        }
        let packets = || ListingForm::of_line(line).map(Self::PacketListing);
        let requests = || access_log::is_request(line).then_some(Self::AccessLog);
        let tracked = || conntrack_text::is_row(line).then_some(Self::Conntrack);
        let ipvs = || ipvs::Form::of(line.as_bytes()).map(Self::Ipvs);
        let sockets = || sockets::Form::of(line.as_bytes()).map(Self::Sockets);
        let pods = || pod_text::is_row(line).then_some(Self::PodTable);
        let settings = || is_sysctl(line).then_some(Self::Sysctls);
        let arguments = || super::settings::node_port_argument(line).is_some().then_some(Self::Arguments);
        packets()
            .or_else(requests)
            .or_else(tracked)
            .or_else(ipvs)
            .or_else(sockets)
            .or_else(pods)
            .or_else(settings)
            .or_else(arguments)
    }

    /// Whether lines of this kind also occur by chance, so that half of the file must be of it.
    const fn is_weak(self) -> bool {
        matches!(self, Self::Sockets(sockets::Form::Counts) | Self::Sysctls)
    }
}

/// What a file is, from the first [`SAMPLE`] bytes of its decompressed content. `None`: nothing that can be read.
pub fn recognise(sample: &[u8]) -> Option<Kind> {
    if let Some(format) = capture::recognise(sample) {
        return Some(Kind::Capture(format));
    }
    let sample = sample.get(..SAMPLE).unwrap_or(sample);
    let text = sample.strip_prefix(b"\xef\xbb\xbf").unwrap_or(sample);
    if text.get(..4096).unwrap_or(text).contains(&0) {
        return None;
    }
    if is_incidents(text) {
        return Some(Kind::Incidents);
    }
    let list = || list::recognise(text).map(Kind::Kubernetes);
    let is_document = text.trim_ascii_start().starts_with(b"{") || text.trim_ascii_start().starts_with(b"[");
    // JSON and YAML quote lines of anything; a listing of Services has no line that is of another kind.
    let document = if is_document || starts_yaml(text) { list() } else { None };
    let found = document.or_else(|| by_lines(text)).or_else(list);
    found.or_else(|| has_kubelet(text).then_some(Kind::KubeletLog))
}

/// What content that is not recognised looks like, for the message.
pub fn looks_like(sample: &[u8]) -> &'static str {
    let first = sample.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if sample.is_empty() {
        "an empty file"
    } else if kubelet_log::is_system_log(first.get(..LINE).unwrap_or(first)) {
        "a log of the machine, without a line of the kubelet where it begins: give `journalctl -u kubelet`"
    } else {
        ipvs::form::looks_like(sample)
    }
}

/// Whether a log of several programs has lines of the kubelet: they may be few.
fn has_kubelet(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.get(..LINE).unwrap_or(line));
    lines.any(|line| {
        kubelet_log::is_system_log(line) && kubelet_log::recognise(line).is_some_and(|log| log.kubelet)
    })
}

fn starts_yaml(text: &[u8]) -> bool {
    const STARTS: [&[u8]; 5] = [b"apiVersion:", b"kind:", b"items:", b"---", b"- apiVersion:"];
    let text = text.trim_ascii_start();
    STARTS.iter().any(|start| text.starts_with(start))
}

/// One JSON object a line, each with the name of its schema.
fn is_incidents(text: &[u8]) -> bool {
    let first = text.trim_ascii_start();
    let line = first.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.get(..LINE).unwrap_or(line);
    line.starts_with(b"{") && memchr::memmem::find(line, b"\"portclash.").is_some()
}

/// The kind that most lines are of.
fn by_lines(text: &[u8]) -> Option<Kind> {
    let mut votes: Vec<(Kind, usize)> = Vec::new();
    let mut count = 0;
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).take(LINES) {
        let line = String::from_utf8_lossy(line.get(..LINE).unwrap_or(line));
        let line = line.trim_end();
        if line.starts_with(['#', ';']) {
            continue;
        }
        count += 1;
        let Some(kind) = Kind::of_line(line) else { continue };
        match votes.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, votes)) => *votes += 1,
            None => votes.push((kind, 1)),
        }
    }
    votes.retain(|(kind, votes)| !kind.is_weak() || votes * 2 >= count);
    // The first of those with the most: a listing may have rows that another form also has.
    votes.iter().rev().max_by_key(|(_, votes)| *votes).map(|(kind, _)| *kind)
}

/// `net.ipv4.ip_local_port_range = 1024 65000`
fn is_sysctl(line: &str) -> bool {
    const ROOTS: [&str; 11] =
        ["abi", "crypto", "debug", "dev", "fs", "kernel", "net", "sunrpc", "user", "vm", "proc"];
    let Some((key, _)) = line.split_once('=') else { return false };
    let key = key.trim().trim_start_matches(['-', '/']);
    let root = key.split(['.', '/']).next().unwrap_or_default();
    ROOTS.contains(&root) && root.len() < key.len() && !key.contains(char::is_whitespace)
}

#[cfg(test)]
#[path = "recognise_tests.rs"]
mod tests;
