//! The metrics in the form of the OpenTelemetry protocol (`opentelemetry/proto/metrics/v1`, as JSON): the same families as on
//! the page, with the same values.
//!
//! Names are those of the page, with the suffixes `_total` and `_info`. Whoever translates OTLP to Prometheus appends the
//! unit and `_total` only where a name lacks them, so the very same names come out, also where nothing is appended.

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::metrics::{Family, Samples, known};
use super::metrics_text::{Kind, Value};
use crate::serve::snapshot::Snapshot;

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`
const CUMULATIVE: u8 = 2;

/// All metrics of one moment.
pub(crate) struct Metrics {
    /// Each with its data points.
    pub(crate) all: Vec<Metric>,
    /// Data points of all.
    pub(crate) points: u64,
}

/// The message of this name.
#[derive(Serialize)]
pub(crate) struct Metric {
    name: String,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    #[serde(flatten)]
    data: Data,
}

/// What kind of metric it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Data {
    Gauge { data_points: Vec<Point> },
    Sum { data_points: Vec<Point>, aggregation_temporality: u8, is_monotonic: bool },
}

/// `NumberDataPoint`. 64-bit numbers are strings in the JSON of protobuf.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    attributes: Vec<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time_unix_nano: Option<String>,
    time_unix_nano: String,
    #[serde(flatten)]
    value: Number,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Number {
    AsInt(String),
    AsDouble(Json),
}

/// Puts all metrics together.
pub(crate) fn metrics(snapshot: &Snapshot) -> Metrics {
    let mut points = 0;
    let all = known(snapshot).map(|(family, samples)| {
        let data_points = data_points(snapshot, family, &samples);
        points += data_points.len() as u64;
        metric(family, data_points)
    });
    let all = all.collect();
    Metrics { all, points }
}

fn metric(family: &Family, data_points: Vec<Point>) -> Metric {
    let data = match family.kind {
        Kind::Counter => Data::Sum { data_points, aggregation_temporality: CUMULATIVE, is_monotonic: true },
        Kind::Gauge | Kind::Info => Data::Gauge { data_points },
    };
    Metric { name: family.sample_name(), description: family.help, unit: family.unit().map(ucum), data }
}

/// The unit in the Unified Code for Units of Measure.
fn ucum(unit: &'static str) -> &'static str {
    match unit {
        "seconds" => "s",
        "bytes" => "By",
        "ratio" => "1",
        other => other,
    }
}

fn data_points(snapshot: &Snapshot, family: &'static Family, samples: &Samples) -> Vec<Point> {
    // A clock that was set back must not make the start later than the count.
    let start = snapshot.started_at.min(snapshot.at).to_string();
    let points = samples.of(family).map(|(labels, value)| Point {
        attributes: attributes(labels),
        start_time_unix_nano: (family.kind == Kind::Counter).then(|| start.clone()),
        time_unix_nano: snapshot.at.to_string(),
        value: number(value),
    });
    points.collect()
}

/// As on the page, a label without a value is none.
fn attributes<'a>(labels: impl Iterator<Item = (&'static str, &'a str)>) -> Vec<Json> {
    let known = labels.filter(|(_, text)| !text.is_empty());
    known.map(|(label, text)| json!({"key": label, "value": {"stringValue": text}})).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a count beyond 2^63 is no count any more")]
fn number(value: Value) -> Number {
    match value {
        Value::Whole(whole) => match i64::try_from(whole) {
            Ok(whole) => Number::AsInt(whole.to_string()),
            Err(_) => Number::AsDouble((whole as f64).into()),
        },
        Value::Real(real) if real.is_nan() => Number::AsDouble("NaN".into()),
        Value::Real(real) if real.is_infinite() => {
            Number::AsDouble(if real > 0.0 { "Infinity" } else { "-Infinity" }.into())
        }
        Value::Real(real) => Number::AsDouble(real.into()),
        Value::Nanos(_) => {
            // What whoever reads the page makes of it.
            let mut seconds = String::new();
            value.push(&mut seconds);
            number(Value::Real(seconds.parse().unwrap_or(f64::NAN)))
        }
    }
}

#[cfg(test)]
#[path = "metrics_otlp_tests.rs"]
mod tests;
