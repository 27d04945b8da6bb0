//! `--otlp`: each incident as a log record, by OTLP/HTTP in its JSON form (OpenTelemetry protocol 1.x, `/v1/logs`).
//! The JSON is made here: it is one fixed shape, and the SDK would bring a second HTTP client and a batch processor.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::target::Target;
use super::way::{Carried, Carrier, Failure};
use crate::diagnosis::incident::Incident;

/// Where logs go, below the address that is given.
const PATH: &str = "/v1/logs";
/// `SEVERITY_NUMBER_WARN` of the log data model.
const WARN: u8 = 13;

/// An OTLP receiver.
pub(super) struct Otlp {
    target: Target,
    node: Option<String>,
}

impl Otlp {
    pub(super) fn new(target: Target, node: Option<String>) -> Self {
        let target = target.with_path(|given| match given.trim_end_matches('/') {
            whole if whole.ends_with(PATH) => whole.to_owned(),
            base => format!("{base}{PATH}"),
        });
        Self { target, node }
    }
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
    rejected_log_records: Value,
}

impl Carrier for Otlp {
    async fn carry(&mut self, incident: &Incident) -> Result<Carried, Failure> {
        let body = request(incident, self.node.as_deref(), Timestamp::now()).to_string();
        let answer = self.target.deliver(body.into()).await?;
        let response: Response = serde_json::from_slice(&answer.body).unwrap_or_default();
        let rejected = response.partial_success.map(|part| part.rejected_log_records);
        match rejected {
            None | Some(Value::Null) => Ok(Carried::Arrived),
            Some(count) if count == "0" || count == 0 => Ok(Carried::Arrived),
            Some(_) => Err(Failure::Never("--otlp: the receiver rejected the log record".to_owned())),
        }
    }
}

/// `ExportLogsServiceRequest` with one record.
fn request(incident: &Incident, node: Option<&str>, now: Timestamp) -> Value {
    let resource = attributes([
        ("service.name", Some("portclash")),
        ("service.version", Some(env!("CARGO_PKG_VERSION"))),
        ("k8s.node.name", node),
    ]);
    json!({"resourceLogs": [{
        "resource": {"attributes": resource},
        "scopeLogs": [{
            "scope": {"name": "portclash", "version": env!("CARGO_PKG_VERSION")},
            "logRecords": [record(incident, now)],
        }],
    }]})
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
