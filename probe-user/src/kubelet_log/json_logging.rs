//! `--logging-format=json`: `{"ts":1663268944534.948,"caller":"prober/prober.go:121","msg":"Probe failed","probeType":…}`.

use serde::Deserialize;
use serde_json::Value;

use super::parser::{Message, Words, container, label, pod, probe_type, uid};
use super::time;
use crate::observation::Nanos;

/// The head of every record, and the fields of a probe.
#[derive(Deserialize)]
pub(super) struct Record {
    pub(super) ts: Value,
    pub(super) caller: String,
    pub(super) msg: String,
    #[serde(default, rename = "probeType")]
    probe_type: Option<Value>,
    #[serde(default)]
    pod: Option<Value>,
    #[serde(default, rename = "podUID")]
    pod_uid: Option<Value>,
    #[serde(default, rename = "containerName")]
    container_name: Option<Value>,
    #[serde(default)]
    output: Option<Value>,
    #[serde(default)]
    err: Option<Value>,
}

/// `None` if the text is no such record.
pub(super) fn parse(text: &str) -> Option<Record> {
    if !text.starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

impl Record {
    /// Milliseconds since 1970, or RFC 3339.
    pub(super) fn at(&self) -> Option<Nanos> {
        match &self.ts {
            Value::Number(number) => milliseconds(&number.to_string()),
            Value::String(text) => time::rfc3339(text),
            _ => None,
        }
    }

    /// File without its folder and line.
    pub(super) fn file(&self) -> &str {
        let file = self.caller.rsplit_once(':').map_or(self.caller.as_str(), |(file, _)| file);
        super::klog::base(file)
    }

    /// The failed probe, if the record is about one.
    pub(super) fn message(&self) -> Option<Message<'_>> {
        let errored = match self.msg.as_str() {
            "Probe failed" => false,
            "Probe errored" => true,
            other => return super::classic::parse(other),
        };
        let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
        let (namespace, name) = self.pod.as_ref().and_then(names).unzip();
        let said = text(if errored { &self.err } else { &self.output });
        Some(Message {
            errored,
            kind: text(&self.probe_type).as_deref().and_then(probe_type),
            namespace,
            name,
            uid: text(&self.pod_uid).as_deref().and_then(uid),
            container: text(&self.container_name).as_deref().and_then(container),
            words: said.map_or(Words::Missing, |said| Words::Text(said.into())),
            range: None,
        })
    }

    /// The record as klog would have written it: the JSON has every field of the record in it, this only the usual ones.
    pub(super) fn shown(&self, with_words: bool) -> String {
        let mut text = format!("{}] {:?}", self.caller, self.msg);
        let fields = [
            ("probeType", &self.probe_type),
            ("pod", &self.pod),
            ("podUID", &self.pod_uid),
            ("containerName", &self.container_name),
        ];
        for (key, value) in fields {
            if let Some(value) = value {
                let value = names(value).map_or_else(
                    || value.as_str().unwrap_or_default().to_owned(),
                    |(namespace, name)| format!("{namespace}/{name}"),
                );
                text += &format!(" {key}={value:?}");
            }
        }
        for (key, value) in [("output", &self.output), ("err", &self.err)] {
            if let Some(value) = value.as_ref().and_then(Value::as_str) {
                text += &if with_words { format!(" {key}={value:?}") } else { format!(" {key}=…") };
            }
        }
        text
    }
}

/// `{"name":…,"namespace":…}`, or `"namespace/name"`.
fn names(value: &Value) -> Option<(String, String)> {
    match value {
        Value::String(text) => pod(text),
        Value::Object(fields) => {
            let field = |key: &str| fields.get(key).and_then(Value::as_str).and_then(label);
            Some((field("namespace")?, field("name")?))
        }
        _ => None,
    }
}

/// Exactly, where the text has it exactly: a float of this size has no nanoseconds.
fn milliseconds(text: &str) -> Option<Nanos> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let (whole, fraction): (Nanos, Nanos) = (whole.parse().ok()?, fraction.parse().ok()?);
    whole.checked_mul(1_000_000)?.checked_add(fraction)
}
