//! Facts in plain English.

use std::net::SocketAddr;

use super::connection::Report;
use super::incident::{Evidence, Incident, LogLine, ResetInfo};
use super::judge::{Case, ECONNREFUSED, ETIMEDOUT, Resetter};
use super::lines::Line;
use super::time::rfc3339;
use crate::kubelet_log::{FailureClass, ProbeFailure};
use crate::kubernetes::pod::ProbeType;
use crate::observation::{Fact, Nanos, Observation, ResetCause, Tuple};

/// All evidence of a case, oldest first, with the reports of the connect itself and the kubelet's log line.
pub(super) fn sentences(case: &Case<'_>, line: Option<&Line>) -> Vec<Evidence> {
    let reports =
        case.connection.reports().iter().map(|report| (report.at, 0, began(case, report), &report.source));
    let facts =
        case.facts.iter().map(|fact| (fact.at, stage(&fact.fact), sentence(case, fact), &fact.source));
    let line = line.map(|line| (line.at, LAST, logged(&line.failure), &line.source));
    let mut all: Vec<(Nanos, u8, String, _)> = reports.chain(facts).chain(line).collect();
    all.sort();
    all.into_iter()
        .map(|(at, _, text, source)| Evidence { at: rfc3339(at), source: source.to_string(), text })
        .collect()
}

/// The kubelet's line as the contract writes it.
pub(super) fn log_lines(line: Option<&Line>) -> Vec<LogLine> {
    let line = line.map(|line| LogLine {
        at: rfc3339(line.at),
        file: line.failure.file.to_string(),
        line: line.failure.line,
        text: line.failure.text.clone(),
    });
    line.into_iter().collect()
}

fn logged(failure: &ProbeFailure) -> String {
    let kind = match failure.kind {
        Some(ProbeType::Liveness) => "liveness probe",
        Some(ProbeType::Readiness) => "readiness probe",
        Some(ProbeType::Startup) => "startup probe",
        None => "probe",
    };
    let container = failure.container.iter().map(|name| format!("container {name}"));
    let pod = failure
        .namespace
        .iter()
        .zip(&failure.name)
        .map(|(namespace, name)| format!("pod {namespace}/{name}"));
    let whose: Vec<String> = container.chain(pod).collect();
    let whose = if whose.is_empty() { String::new() } else { format!(" of {}", whose.join(" in ")) };
    let how = match failure.class {
        FailureClass::Timeout => " with a timeout",
        FailureClass::Refused => ": connection refused",
        FailureClass::Reset => ": connection reset",
        _ => "",
    };
    format!("the kubelet logged that the {kind}{whose} failed{how}")
}

/// RSTs, oldest first.
pub(super) fn resets(case: &Case<'_>) -> Vec<ResetInfo> {
    let mut all: Vec<_> = case
        .facts
        .iter()
        .filter_map(|fact| match &fact.fact {
            Fact::Reset { remote, local, netns, seq, reason } => {
                Some((fact.at, *local, *remote, *seq, *netns, reason.clone()))
            }
            _ => None,
        })
        .collect();
    all.sort();
    all.into_iter()
        .map(|(at, local, remote, seq, netns, reason)| ResetInfo {
            at: rfc3339(at),
            netns,
            local: local.to_string(),
            remote: remote.to_string(),
            seq,
            reason,
        })
        .collect()
}

/// The log tells what happened before.
const LAST: u8 = 9;

/// Facts of one instant in the order in which they happen.
fn stage(fact: &Fact) -> u8 {
    match fact {
        Fact::Services { .. }
        | Fact::ConnectBegan { .. }
        | Fact::Remembered { .. }
        | Fact::NoService { .. } => 0,
        Fact::SynRetransmitted { .. }
        | Fact::ReplyIgnored { .. }
        | Fact::Masqueraded { .. }
        | Fact::FirstSynLost { .. } => 1,
        Fact::Hijacked { .. } | Fact::NoBackend { .. } => 2,
        Fact::Reset { .. } | Fact::ResetOtherwise { .. } => 3,
        Fact::Established { .. } => 4,
        Fact::ConnectFailed { .. } => 6,
        Fact::Died { .. } | Fact::FellSilent { .. } => 7,
        Fact::ConnectionRow { .. } => 8,
        Fact::ProbeFailed { .. } => LAST,
    }
}

fn began(case: &Case<'_>, report: &Report) -> String {
    if let Some(tuple) = case.connection.tuple().filter(|_| report.is_listed()) {
        return format!("a connect from {} to {} is listed", tuple.local, tuple.remote);
    }
    let isn = case.connection.isn().map_or_else(String::new, |isn| format!(" (sequence number {isn})"));
    match case.connection.tuple() {
        Some(tuple) => format!("{} sent its first SYN to {}{isn}", tuple.local, tuple.remote),
        None => "the first SYN was sent".to_owned(),
    }
}

fn sentence(case: &Case<'_>, observation: &Observation) -> String {
    let local = case.connection.tuple().map(|tuple| tuple.local);
    match &observation.fact {
        Fact::Hijacked { connection: row, .. } => format!(
            "IPVS handed the reply of {} to backend {} as if it were a new connection to service {}",
            row.client, row.backend, row.virtual_address
        ),
        Fact::ConnectionRow { row, .. } => format!(
            "IPVS keeps the connection it made of the reply: client {}, service {}, backend {}, state {}",
            row.client, row.virtual_address, row.backend, row.state
        ),
        Fact::Reset { .. } => reset(case, &observation.fact),
        Fact::NoBackend { tuple, .. } => format!(
            "IPVS took the reply of {} for a new connection to service {}, which has no backend for it, and answered with \
             ICMP port unreachable",
            tuple.remote, tuple.local
        ),
        Fact::SynRetransmitted { .. } => "no reply had reached the socket: the SYN was sent again".to_owned(),
        Fact::Established { .. } => "the handshake completed".to_owned(),
        Fact::Died { errno, .. } => died(*errno),
        Fact::ConnectFailed { errno, .. } => format!("connect() failed with {}", errno_name(*errno)),
        Fact::ProbeFailed { failure, .. } => logged(failure),
        Fact::ResetOtherwise { tuple, cause, .. } => otherwise(*tuple, *cause),
        Fact::Masqueraded { tuple, original, .. } => format!(
            "masquerading changed the source from {original} to {}; ip_local_reserved_ports has no say in that",
            tuple.local
        ),
        Fact::FirstSynLost { waited_ns, .. } => {
            format!("the first SYN was not answered, the second one was, {} ms later", waited_ns / 1_000_000)
        }
        Fact::Remembered { state, .. } => {
            format!("an earlier connection with the same addresses was still remembered, in state {state}")
        }
        Fact::ReplyIgnored { tuple, anew, .. } => format!(
            "the reply of {} was on its way, and yet {} sent its SYN again{}",
            tuple.remote,
            tuple.local,
            if *anew { "; the server answered anew, as if somebody had reset its first reply" } else { "" }
        ),
        Fact::NoService { tuple, .. } => {
            format!("nothing that was given shows a service at {}", tuple.local)
        }
        Fact::FellSilent { .. } => {
            "nothing more was seen of it, although a client that still waits would have sent its SYN again"
                .to_owned()
        }
        Fact::ConnectBegan { .. } | Fact::Services { .. } => {
            format!("connect from {}", address(local))
        }
    }
}

/// What [`otherwise()`] says, by which [`reason`] knows it again.
mod otherwise {
    pub(super) const REFUSED: &str = "refused the connection: nobody listens there";
    pub(super) const ABORTED: &str = "itself aborted the connection after the server's reply (RST with ACK)";
    pub(super) const ABORTED_BY_SERVER: &str =
        "aborted the connection right after its own reply (RST with ACK)";
    pub(super) const NOT_TRANSLATED: &str = "address translation was not undone on the way back";
    pub(super) const LATE: &str = "came so late that";
    pub(super) const REJECTED: &str = "rejected the reply of";
    pub(super) const ALL: [&str; 6] = [REFUSED, ABORTED, ABORTED_BY_SERVER, NOT_TRANSLATED, LATE, REJECTED];
}

/// The sentence of an incident that tells why its connect was reset, if that was not a hijack.
pub fn reason(incident: &Incident) -> Option<&str> {
    let texts = incident.evidence.iter().map(|evidence| evidence.text.as_str());
    texts.rev().find(|text| otherwise::ALL.iter().any(|words| text.contains(words)))
}

/// Which of the reasons it is: the same words for every incident that has it.
pub fn kind_of_reason(incident: &Incident) -> Option<&'static str> {
    let reason = reason(incident)?;
    otherwise::ALL.into_iter().find(|words| reason.contains(words))
}

fn otherwise(tuple: Tuple, cause: ResetCause) -> String {
    use otherwise::{ABORTED, ABORTED_BY_SERVER, LATE, NOT_TRANSLATED, REFUSED, REJECTED};
    let Tuple { local, remote } = tuple;
    match cause {
        ResetCause::ClosedPort => format!("{remote} {REFUSED}"),
        ResetCause::Aborted => format!(
            "{local} {ABORTED}: its program asked for that, by SO_LINGER or by closing with data unread"
        ),
        ResetCause::AbortedByServer => format!(
            "{remote} {ABORTED_BY_SERVER}: its program accepted it and dropped it, or could not take more"
        ),
        ResetCause::NoReverseNat(by) => format!(
            "the reply came from {by}, but the SYN had gone to {remote}: {NOT_TRANSLATED}, so {local} rejected it"
        ),
        ResetCause::LateReply => {
            format!("the reply of {remote} {LATE} {local} had given up, and was rejected")
        }
        ResetCause::Unexplained => {
            format!("{local} {REJECTED} {remote}, and its port is no service in what was given")
        }
        ResetCause::Dropped => format!(
            "{local} {REJECTED} {remote} and did not send its SYN again: a scan or a health check that opens nothing, or a \
             hijack whose client gave up at once; the IPVS table of its node would tell"
        ),
    }
}

fn reset(case: &Case<'_>, fact: &Fact) -> String {
    let Fact::Reset { local, remote, netns, seq, reason } = fact else { return String::new() };
    let offset = case.connection.isn().map(|isn| seq.wrapping_sub(isn));
    let relation = offset.map_or_else(String::new, |offset| format!(" = ISN + {offset}"));
    let mut details: Vec<String> = netns.iter().map(|netns| format!("namespace {netns}")).collect();
    details.extend(reason.iter().map(|reason| format!("reason {reason}")));
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
    let who = match case.resetter(fact) {
        Some(Resetter::Backend) if case.is_backend(*local) => {
            format!("the stack of backend {local} reset it")
        }
        Some(Resetter::OwnStack) => {
            format!("this node's own stack, at {local}, reset the reply of {remote}")
        }
        Some(Resetter::OwnAddress) => format!("the reply of {remote} was reset in the name of {local}"),
        _ => format!("the stack at {local} reset the reply of {remote}"),
    };
    format!("{who}: RST seq {seq}{relation}{details}")
}

fn died(errno: i32) -> String {
    match errno {
        0 => "its process closed the socket before the handshake completed".to_owned(),
        ETIMEDOUT => "the kernel gave up: the connect timed out (ETIMEDOUT)".to_owned(),
        ECONNREFUSED => "the server refused the connection (ECONNREFUSED)".to_owned(),
        other => format!("the connect failed with {}", errno_name(other)),
    }
}

/// The name of an errno of a connect; its number where it is none of the usual.
fn errno_name(errno: i32) -> String {
    let name = match errno {
        1 => "EPERM",
        4 => "EINTR",
        13 => "EACCES",
        22 => "EINVAL",
        99 => "EADDRNOTAVAIL",
        98 => "EADDRINUSE",
        101 => "ENETUNREACH",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        105 => "ENOBUFS",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        113 => "EHOSTUNREACH",
        _ => return format!("errno {errno}"),
    };
    name.to_owned()
}

fn address(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string())
}
