//! What an analysis was not given, and what that would have told; and which incidents tell the same story.

use crate::analysis::model::{Analysed, Analysis};
use crate::diagnosis::evidence;
use crate::diagnosis::incident::{Connection, Incident, Verdict};

/// A kind of evidence: words by which an input of it is known, and what its absence means.
const WANTED: [(&[&str], &str); 5] = [
    (
        &["pcap", "capture", "tcpdump", "wireshark"],
        "no capture: packets show the reset and, from the backend's side, the hijack itself",
    ),
    (
        &["ip_vs", "ipvs"],
        "no IPVS table (ipvsadm -Ln, /proc/net/ip_vs): only it tells which ports are service ports",
    ),
    (&["kubelet"], "no kubelet log: it tells which probe failed and when"),
    (
        &["service"],
        "no list of Services (kubectl get svc -A): it gives ports their names, and covers a missing IPVS table",
    ),
    (&["pod"], "no list of pods (kubectl get pods -A -o json): it tells whose probe a connect was"),
];

/// What would help and was not given, one sentence part each.
pub(super) fn missing(analysis: &Analysis) -> Vec<&'static str> {
    let kinds: Vec<String> = analysis
        .inputs
        .iter()
        .filter_map(|input| input.kind.as_ref())
        .map(|kind| kind.to_lowercase())
        .collect();
    let given = |words: &[&str]| kinds.iter().any(|kind| words.iter().any(|word| kind.contains(word)));
    WANTED.iter().filter(|(words, _)| !given(words)).map(|(_, text)| *text).collect()
}

/// Incidents of one kind: same verdict, service and remote side, or the same reason of another reset. The gravest kinds
/// first, those of one verdict in the order of their first ones.
pub(super) fn groups(analysis: &Analysis) -> Vec<Vec<&Analysed>> {
    let mut groups: Vec<Vec<&Analysed>> = Vec::new();
    let mut index = std::collections::HashMap::new();
    for analysed in &analysis.incidents {
        let at = *index.entry(key(&analysed.incident)).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) => group.push(analysed),
            None => groups.push(vec![analysed]),
        }
    }
    // The surest of a kind is the one to be shown in full.
    for group in &mut groups {
        let best = group
            .iter()
            .enumerate()
            .max_by_key(|(n, analysed)| (analysed.incident.confidence, std::cmp::Reverse(*n)))
            .map_or(0, |(n, _)| n);
        if let Some(part) = group.get_mut(..=best) {
            part.rotate_right(1);
        }
    }
    groups.sort_by_key(|group| group.first().map(|first| first.incident.verdict));
    groups
}

/// Whether incidents of its kind may have other servers: a scan hits many.
pub(super) fn is_elsewhere_too(incident: &Incident) -> bool {
    incident.verdict == Verdict::OtherReset && evidence::kind_of_reason(incident).is_some()
}

/// Whence a connect came; and where it went, where that is not the same for its kind.
pub(super) fn ends(incident: &Incident) -> String {
    let Connection { local, remote, .. } = &incident.connection;
    let from = local.as_deref().unwrap_or("unknown").to_owned();
    match remote.as_deref().filter(|_| is_elsewhere_too(incident)) {
        Some(remote) => format!("{from} to {remote}"),
        None => from,
    }
}

type Key<'a> = (Verdict, Option<&'a str>, Option<&'a str>);

fn key(incident: &Incident) -> Key<'_> {
    if let Some(reason) = evidence::kind_of_reason(incident).filter(|_| is_elsewhere_too(incident)) {
        return (incident.verdict, Some(reason), None);
    }
    let service = incident.service.as_ref();
    let service = service.map(|service| service.name.as_deref().unwrap_or(&service.address));
    (incident.verdict, service, incident.connection.remote.as_deref())
}
