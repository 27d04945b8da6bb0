//! `--kubernetes-events`: an Event (events.k8s.io/v1) on the pod whose probe was hit. Repeats change the `series` of the
//! first Event instead of making further ones, at most once a minute.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Patience;
use super::carrier::{Carried, Failure, Settled};
use crate::diagnosis::incident::{Confidence, Incident, Outcome, Pod, Probe, Verdict};
use crate::pods::clients::{Api, ApiError, ApiOptions, ApiServer, Call};

/// The reason, as alerts and `kubectl get events` see it.
const REASON: &str = "SourcePortIsServicePort";
/// Longest note, in bytes: `NoteLengthLimit` in pkg/apis/core/validation/events.go.
const MAX_NOTE: usize = 1024;
/// Events whose repeats are counted. The one silent longest is forgotten: its next incident is a new Event.
const MAX_SERIES: usize = 256;
/// Longest name of an object: a DNS subdomain.
const MAX_NAME: usize = 253;

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct About {
    pod: Pod,
    service: Option<String>,
}

/// One Event and its repeats.
#[derive(Debug)]
struct Series {
    about: About,
    name: String,
    /// Incidents that the API server knows of.
    known: u64,
    /// Incidents that it does not know of yet.
    held: u64,
    /// The Event as the last incident would make it.
    last: Value,
    /// When the API server may be told again.
    due: Instant,
    last_seen: Instant,
}

/// Events on pods.
pub(super) struct Events {
    options: ApiOptions,
    node: Option<String>,
    patience: Patience,
    series: Vec<Series>,
}

impl Events {
    pub(super) fn new(server: ApiServer, node: Option<String>, patience: Patience) -> Self {
        let options = ApiOptions::new(server, node.clone().unwrap_or_default());
        let options = ApiOptions { timeouts: patience.timeouts, ..options };
        Self { options, node, patience, series: Vec::new() }
    }

    /// Goes on with the Events that another one made. Where the API server is another one, their next change finds nothing,
    /// and makes them anew.
    pub(super) fn take_over(&mut self, other: Self) {
        self.series = other.series;
    }

    async fn create(&self, event: &Value) -> Result<(), Failure> {
        let path = events_path(event.pointer("/metadata/namespace"));
        let body = Some(("application/json", event.to_string().into()));
        match self.send(Call { method: Method::POST, path: &path, body }).await? {
            // Made by an attempt whose answer did not arrive.
            Ok(()) | Err((409, _)) => Ok(()),
            Err((_, failure)) => Err(failure),
        }
    }

    /// Tells how often; makes a new Event where the old one has expired.
    async fn tell_repeats(&self, series: &Series) -> Result<String, Failure> {
        let total = series.known + series.held;
        let last = series.last.pointer("/eventTime").unwrap_or(&Value::Null);
        let change = json!({"series": {"count": total, "lastObservedTime": last}});
        let path = events_path(series.last.pointer("/metadata/namespace"));
        let path = format!("{path}/{}", series.name);
        let body = Some(("application/merge-patch+json", change.to_string().into()));
        match self.send(Call { method: Method::PATCH, path: &path, body }).await? {
            Ok(()) => return Ok(series.name.clone()),
            Err((404, _)) => {}
            Err((_, failure)) => return Err(failure),
        }
        let mut event = series.last.clone();
        if series.held > 1
            && let Some(event) = event.as_object_mut()
        {
            event.insert("series".into(), json!({"count": series.held, "lastObservedTime": last}));
        }
        self.create(&event).await?;
        let name = event.pointer("/metadata/name").and_then(Value::as_str);
        Ok(name.unwrap_or_default().to_owned())
    }

    /// The inner error: the status, and what it means.
    async fn send(&self, call: Call<'_>) -> Result<Result<(), (u16, Failure)>, Failure> {
        let said = Api(&self.options).send("send an Event", call).await;
        let said = said.map_err(|error| match error {
            ApiError::Unknown => Failure::Never(error.to_string()),
            other => Failure::later(other.to_string()),
        })?;
        if said.status.is_success() {
            return Ok(Ok(()));
        }
        let code = said.status.as_u16();
        let hint = match code {
            401 => ": it does not accept the token or client certificate",
            403 => {
                ": not allowed; the login needs the verbs create and patch on events (API group events.k8s.io), or the \
                 namespace is being deleted or takes no more Events"
            }
            404 => ": not found; the namespace may have gone",
            _ => "",
        };
        let reason = format!("Event at API server {}: {}{hint}", said.authority, said.status);
        let failure = match code {
            401 | 403 | 408 | 429 | 500..=599 => Failure::Later { reason, after: said.retry_after },
            _ => Failure::Never(reason),
        };
        Ok(Err((code, failure)))
    }

    fn remember(&mut self, series: Series) {
        if self.series.len() >= MAX_SERIES {
            let silent = self.series.iter().enumerate().filter(|(_, known)| known.held == 0);
            let Some((index, _)) = silent.min_by_key(|(_, known)| known.last_seen) else { return };
            self.series.swap_remove(index);
        }
        self.series.push(series);
    }
}

impl Events {
    /// Carries one.
    pub(super) async fn carry(&mut self, incident: &Incident) -> Result<Carried, Failure> {
        let Some(probe) = certain_probe(incident) else { return Ok(Carried::NotMeant) };
        let service = incident.service.as_ref().map(|service| service.address.clone());
        let about = About { pod: probe.pod.clone(), service };
        let event = event(incident, probe, self.node.as_deref());
        let now = Instant::now();
        if let Some(series) = self.series.iter_mut().find(|series| series.about == about) {
            series.held += 1;
            series.last = event;
            series.last_seen = now;
            return Ok(Carried::Held);
        }
        self.create(&event).await?;
        let name = event.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let due = now + self.patience.event_every;
        self.remember(Series { about, name, known: 1, held: 0, last: event, due, last_seen: now });
        Ok(Carried::Arrived)
    }

    /// When [`Self::settle`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.series.iter().filter(|series| series.held > 0).map(|series| series.due).min()
    }

    /// Sends some of what was held and is due, or some of all that is held.
    pub(super) async fn settle(&mut self, all: bool) -> Settled {
        let now = Instant::now();
        let is_due = |series: &Series| series.held > 0 && (all || series.due <= now);
        let Some(index) = self.series.iter().position(is_due) else { return Settled::default() };
        let mut series = self.series.swap_remove(index);
        let lane = series.about.pod.namespace.clone();
        let result = self.tell_repeats(&series).await;
        series.due = Instant::now() + self.patience.event_every;
        let settled = match result {
            Ok(name) => {
                let arrived = std::mem::take(&mut series.held);
                let anew = name != series.name;
                series.known = if anew { arrived } else { series.known + arrived };
                series.name = name;
                Settled { lane, arrived, ..Settled::default() }
            }
            Err(failure @ Failure::Never(_)) => {
                let lost = std::mem::take(&mut series.held);
                return Settled { lane, lost, failure: Some(failure), ..Settled::default() };
            }
            Err(failure) => Settled { lane, failure: Some(failure), ..Settled::default() },
        };
        self.series.push(series);
        settled
    }
}

fn events_path(namespace: Option<&Value>) -> String {
    let namespace = namespace.and_then(Value::as_str).unwrap_or_default();
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

/// The probe that an incident hit, if there is no doubt about it and its pod.
fn certain_probe(incident: &Incident) -> Option<&Probe> {
    let hit = matches!(incident.verdict, Verdict::Collision | Verdict::CollisionSnat)
        && matches!(incident.outcome, Outcome::Hijacked | Outcome::NoBackend | Outcome::Failed);
    let probe = incident.probe.as_ref().filter(|_| hit)?;
    // Names go into a path.
    let is_name = |name: &str| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(fits)
    };
    let certain = probe.confidence == Confidence::Proven && probe.pod.uid.is_some();
    (certain && is_name(&probe.pod.name) && is_name(&probe.pod.namespace)).then_some(probe)
}

/// The Event that an incident makes. The same incident makes the same Event.
fn event(incident: &Incident, probe: &Probe, node: Option<&str>) -> Value {
    let pod = &probe.pod;
    let mut hasher = DefaultHasher::new();
    (&incident.id, &pod.uid).hash(&mut hasher);
    let end = format!(".{:016x}", hasher.finish());
    let start: String = pod.name.chars().take(MAX_NAME - end.len()).collect();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": format!("{}{end}", start.trim_end_matches(['-', '.'])), "namespace": pod.namespace},
        "eventTime": micro_time(&incident.started_at),
        "reportingController": "portclash",
        "reportingInstance": node.filter(|node| !node.is_empty()).unwrap_or("portclash"),
        "action": "Probing",
        "reason": REASON,
        "type": "Warning",
        "regarding": {
            "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
            "fieldPath": format!("spec.containers{{{}}}", probe.container),
        },
        "note": note(incident, probe, node),
    })
}

/// Kubernetes' MicroTime has six digits, exactly.
fn micro_time(nanoseconds: &str) -> String {
    match nanoseconds.strip_suffix("000Z") {
        Some(micro) => format!("{micro}Z"),
        None => nanoseconds.get(..26).map_or_else(|| nanoseconds.to_owned(), |micro| format!("{micro}Z")),
    }
}

/// What happened and what to do, for somebody who sees nothing but this.
fn note(incident: &Incident, probe: &Probe, node: Option<&str>) -> String {
    const TOOK: &str = "IPVS took the pod's reply for a new connection to that service";
    // Masquerading may have changed the socket's own port; the service has the one that was on the wire.
    let address = incident.service.as_ref().map(|service| service.address.as_str());
    let address = address.or(incident.connection.local.as_deref());
    let port = address.and_then(|address| address.rsplit(':').next()).unwrap_or("?");
    let service = incident.service.as_ref().map_or_else(
        || "an IPVS service".to_owned(),
        |service| match (&service.name, &service.kind) {
            (Some(name), Some(kind)) => format!("service {name} ({kind} {})", service.address),
            (Some(name), None) => format!("service {name} ({})", service.address),
            _ => format!("service {}", service.address),
        },
    );
    let what = match (incident.outcome, &incident.hijack) {
        (Outcome::NoBackend, _) => format!("{TOOK}, which has no backend, so the reply was refused"),
        (_, Some(hijack)) => format!("{TOOK} and gave it to its backend {}", hijack.backend),
        _ => "IPVS takes replies to that port for new connections to that service".to_owned(),
    };
    let on = node.map_or_else(|| "the node".to_owned(), |node| format!("node {node}"));
    let story = format!(
        "The {} probe of container {} failed although the pod may be well: kubelet connected from port {port}, which is also \
         {service}. {what}. It happens again until {on} no longer uses that port for connects.",
        probe.r#type, probe.container,
    );
    let short = || format!("{story} `portclash check` on {on} says what to set.");
    let command = incident.advice.first().and_then(|advice| advice.command.as_deref());
    let with = command.map(|command| format!("{story} On {on}: {command}"));
    let mut text = with.filter(|text| text.len() <= MAX_NOTE).unwrap_or_else(short);
    while text.len() > MAX_NOTE {
        text.pop();
    }
    text
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
