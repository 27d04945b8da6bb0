//! `--otlp`: each incident as a log record, by OTLP/HTTP in its JSON form (OpenTelemetry protocol 1.x, `/v1/logs`).
//! The JSON is made here: it is one fixed shape, and the SDK would bring a second HTTP client and a batch processor.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::carrier::{Carried, Failure};
use super::target::Target;
use crate::diagnosis::incident::Incident;

/// Where logs go, below the address that is given.
const LOGS: &str = "/v1/logs";
/// Where metrics go.
pub(super) const METRICS: &str = "/v1/metrics";
/// `SEVERITY_NUMBER_WARN` of the log data model.
const WARN: u8 = 13;

/// An OTLP receiver.
pub(super) struct Otlp {
    target: Target,
    node: Option<String>,
}

impl Otlp {
    pub(super) fn new(target: Target, node: Option<String>) -> Self {
        Self { target: target.with_path(|given| path_for(LOGS, given)), node }
    }
}

/// The path for one signal, below the address that is given; that may already be the one for a signal.
pub(super) fn path_for(signal: &str, given: &str) -> String {
    let base = given.trim_end_matches('/');
    let base = [LOGS, METRICS].iter().find_map(|signal| base.strip_suffix(signal)).unwrap_or(base);
    format!("{base}{signal}")
}

/// The part of the answer that matters.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Response {
    partial_success: Option<PartialSuccess>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PartialSuccess {
    /// A 64-bit number, which protobuf's JSON writes as a string.
    #[serde(alias = "rejectedLogRecords", alias = "rejectedDataPoints")]
    rejected: Value,
}

/// How many of `all` that were sent the receiver rejected, although it answered that all is well. Of a number that cannot be
/// read nothing is known, so that counts as all.
pub(super) fn rejected(answer: &[u8], all: u64) -> u64 {
    let response: Response = serde_json::from_slice(answer).unwrap_or_default();
    match response.partial_success.map(|part| part.rejected) {
        None | Some(Value::Null) => 0,
        Some(Value::String(text)) => text.parse().unwrap_or(all),
        Some(other) => other.as_u64().unwrap_or(all),
    }
    .min(all)
}

impl Otlp {
    /// Carries one.
    pub(super) async fn carry(&mut self, incident: &Incident) -> Result<Carried, Failure> {
        let body = request(incident, self.node.as_deref(), Timestamp::now()).to_string();
        let answer = self.target.deliver(body.into()).await?;
        match rejected(&answer.body, 1) {
            0 => Ok(Carried::Arrived),
            _ => Err(Failure::Never("--otlp: the receiver rejected the log record".to_owned())),
        }
    }
}

/// `ExportLogsServiceRequest` with one record.
fn request(incident: &Incident, node: Option<&str>, now: Timestamp) -> Value {
    json!({"resourceLogs": [{
        "resource": resource(node),
        "scopeLogs": [{"scope": scope(), "logRecords": [record(incident, now)]}],
    }]})
}

/// Who speaks. One portclash runs on a node, so the node's name tells them apart.
pub(super) fn resource(node: Option<&str>) -> Value {
    json!({"attributes": attributes([
        ("service.name", Some("portclash")),
        ("service.version", Some(env!("CARGO_PKG_VERSION"))),
        ("service.instance.id", node),
        ("k8s.node.name", node),
    ])})
}

pub(super) fn scope() -> Value {
    json!({"name": "portclash", "version": env!("CARGO_PKG_VERSION")})
}

fn record(incident: &Incident, now: Timestamp) -> Value {
    let started: Option<Timestamp> = incident.started_at.parse().ok();
    json!({
        "timeUnixNano": started.map_or_else(|| "0".to_owned(), |at| at.as_nanosecond().to_string()),
        "observedTimeUnixNano": now.as_nanosecond().to_string(),
        "severityNumber": WARN,
        "severityText": "WARN",
        "eventName": "portclash.incident",
        // The whole incident, as on standard output.
        "body": {"stringValue": serde_json::to_string(incident).unwrap_or_default()},
        "attributes": incident_attributes(incident),
    })
}

fn incident_attributes(incident: &Incident) -> Value {
    let word = |value: Value| value.as_str().map(str::to_owned);
    let verdict = word(json!(incident.verdict));
    let outcome = word(json!(incident.outcome));
    let confidence = word(json!(incident.confidence));
    let service = incident.service.as_ref();
    let owner = &incident.owner;
    let probe = incident.probe.as_ref();
    let pid = owner.pid.map(|pid| pid.to_string());
    let mut all = attributes([
        ("portclash.incident.id", Some(incident.id.as_str())),
        ("portclash.verdict", verdict.as_deref()),
        ("portclash.outcome", outcome.as_deref()),
        ("portclash.confidence", confidence.as_deref()),
        ("portclash.connection.local", incident.connection.local.as_deref()),
        ("portclash.connection.remote", incident.connection.remote.as_deref()),
        ("portclash.service.address", service.map(|service| service.address.as_str())),
        ("portclash.service.name", service.and_then(|service| service.name.as_deref())),
        ("portclash.service.kind", service.and_then(|service| service.kind.as_deref())),
        ("portclash.backend", incident.hijack.as_ref().map(|hijack| hijack.backend.as_str())),
        ("process.executable.path", owner.exe.as_deref()),
        ("portclash.owner.comm", owner.comm.as_deref()),
        ("container.id", owner.container_id.as_deref()),
        ("portclash.owner.pod.namespace", owner.pod.as_ref().map(|pod| pod.namespace.as_str())),
        ("portclash.owner.pod.name", owner.pod.as_ref().map(|pod| pod.name.as_str())),
        ("portclash.probe.type", probe.map(|probe| probe.r#type.as_str())),
        ("portclash.probe.pod.namespace", probe.map(|probe| probe.pod.namespace.as_str())),
        ("portclash.probe.pod.name", probe.map(|probe| probe.pod.name.as_str())),
        ("portclash.probe.container", probe.map(|probe| probe.container.as_str())),
    ]);
    if let (Some(pid), Some(all)) = (pid, all.as_array_mut()) {
        all.push(json!({"key": "process.pid", "value": {"intValue": pid}}));
    }
    all
}

/// Those that are known.
fn attributes<const N: usize>(all: [(&str, Option<&str>); N]) -> Value {
    let known = all.into_iter().filter_map(|(key, value)| Some((key, value?)));
    known.map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect()
}

#[cfg(test)]
#[path = "otlp_tests.rs"]
mod tests;
