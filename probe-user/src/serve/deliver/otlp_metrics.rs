//! `--otlp-metrics-every`: all metrics in OTLP/HTTP's JSON form (`/v1/metrics`).

use serde_json::{Value, json};

use super::carrier::Failure;
use super::otlp::{METRICS, path_for, rejected, resource, scope};
use super::target::Target;
use crate::pods::clients::blocking;
use crate::report::metrics_otlp::{self, Metric};
use crate::serve::snapshot::Snapshot;

/// An OTLP receiver.
pub(super) struct OtlpMetrics {
    target: Target,
    node: Option<String>,
}

impl OtlpMetrics {
    pub(super) fn new(target: Target, node: Option<String>) -> Self {
        Self { target: target.with_path(|given| path_for(METRICS, given)), node }
    }

    /// Sends all metrics of one moment, once.
    pub(super) async fn export(&self, snapshot: Box<Snapshot>) -> Result<(), Failure> {
        let node = self.node.clone();
        // With labels for many pods it is much text: not on the thread that traces.
        let made = blocking(move || {
            let metrics = metrics_otlp::metrics(&snapshot);
            let points = metrics.points;
            (request(&metrics.all, node.as_deref()).to_string(), points)
        });
        let (body, points) = made.await;
        let answer = self.target.deliver(body.into()).await?;
        match rejected(&answer.body, points) {
            0 => Ok(()),
            count => {
                let reason =
                    format!("--otlp: the receiver rejected {count} of {points} data points of the metrics");
                Err(Failure::Never(reason))
            }
        }
    }
}

/// `ExportMetricsServiceRequest`
fn request(metrics: &[Metric], node: Option<&str>) -> Value {
    json!({"resourceMetrics": [{
        "resource": resource(node),
        "scopeMetrics": [{"scope": scope(), "metrics": metrics}],
    }]})
}

#[cfg(test)]
#[path = "otlp_metrics_tests.rs"]
mod tests;
