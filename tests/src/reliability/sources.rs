//! Who names pods goes away and comes back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::trouble::{collide, wait_for_collisions};
use crate::containers::NODE_NAME;
use crate::kubelet::{AUTHORITY, KUBECONFIG, Kubelet, TOKEN_FILE};
use crate::lab::Lab;
use crate::prober::Release;
use crate::sidecar::Sidecar;
use crate::story::without_containers;

const UP: &str = "portclash_pod_source_up";
/// A source is asked again after a while that grows; the lab waits for the first few.
const PATIENCE: Duration = Duration::from_secs(90);

/// The kubelet goes, and comes back with another certificate and another token, which is in the same file.
pub fn kubelet_gone(lab: &mut Lab) -> Result<Value> {
    let arguments = ["--pods", "kubelet", "--kubelet-token", TOKEN_FILE, "--kubelet-ca", AUTHORITY];
    source_gone(lab, "kubelet", &arguments)
}

/// The same with the API server.
pub fn api_gone(lab: &mut Lab) -> Result<Value> {
    source_gone(lab, "api", &["--pods", "api", "--kubeconfig", KUBECONFIG, "--node-name", NODE_NAME])
}

fn source_gone(lab: &mut Lab, source: &str, arguments: &[&str]) -> Result<Value> {
    super::load::services(39_060, 2)?;
    let pods = without_containers();
    let pods: Vec<_> = pods.iter().collect();
    let kubelet = Kubelet::start(Release::V1_29, &pods)?;
    let mut running = Sidecar::start(arguments)?;
    let label = format!("source=\"{source}\"");
    let labels = [label.as_str()];
    let is = |wanted: f64| move |up: Option<f64>| up == Some(wanted);
    running.wait_for_metric(UP, &labels, PATIENCE, is(1.0))?;
    running.wait_for_metric("portclash_pods", &[], PATIENCE, is(2.0))?;
    drop(kubelet);
    let begun = std::time::Instant::now();
    running.wait_for_metric(UP, &labels, PATIENCE, is(0.0)).context("after it went")?;
    let noticed = begun.elapsed();
    // What was known stays known, and tracing goes on.
    collide(39_060, Duration::from_millis(300))?;
    wait_for_collisions(&mut running, 1)?;
    let metrics = running.metrics()?;
    let errors = metrics.count("portclash_pod_source_errors_total", &labels);
    ensure!(errors > 0, "no error was counted");
    ensure!(metrics.count("portclash_pods", &[]) == 2, "the pods were forgotten");
    let begun = std::time::Instant::now();
    let again = Kubelet::start_with_token(Release::V1_29, &pods, "another-token-of-the-lab")?;
    running.wait_for_metric(UP, &labels, PATIENCE, is(1.0)).context("after it came back")?;
    let recovered = begun.elapsed();
    collide(39_061, Duration::from_millis(300))?;
    wait_for_collisions(&mut running, 2)?;
    let stopped = running.stop()?;
    drop(again);
    lab.note("portclash serve said", &stopped.messages);
    let secret = ["another-token-of-the-lab", "a-token-of-the-lab"];
    let lines = format!("{stopped:?}");
    ensure!(!secret.iter().any(|secret| lines.contains(secret)), "the token was told");
    let backend = |incident: &Value| {
        incident
            .get("evidence")
            .is_some_and(|evidence| evidence.to_string().contains("is pod kube-system/kubernetes-dashboard"))
    };
    ensure!(
        stopped.incidents.iter().all(backend),
        "the backend's pod is not named: {:#?}",
        stopped.incidents
    );
    Ok(json!({
        "source": source,
        "noticed_after_s": noticed.as_secs_f64(),
        "errors": errors,
        "recovered_after_s": recovered.as_secs_f64(),
    }))
}
