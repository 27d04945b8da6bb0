//! The seed's incident, once, with the tracer's own words.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::kubelet::{self, Kubelet, Probed};
use crate::lab::Lab;
use crate::node::{BACKEND, NODE, POD};
use crate::prober::Release;
use crate::story::{PORT, fail_one_probe, without_containers};
use crate::{host, node, process};

/// Plays the incident while `portclash trace` runs, and shows what it prints as it comes.
pub(super) fn run() -> Result<u8> {
    node::set_up()?;
    let mut lab = Lab::fresh()?;
    host::say(&format!(
        "node {NODE}; nginx {POD}:80; IPVS service {NODE}:{PORT} (a NodePort) -> dashboard {BACKEND}:8443\n\
         kubelet probes nginx three times; at the second, the kernel gives it port {PORT} as its source port,\n\
         which it may do at any time as long as the port is in net.ipv4.ip_local_port_range\n"
    ));
    lab.service(&format!("{NODE}:{PORT}"), &[&format!("{BACKEND}:8443")])?;
    let [nginx, dashboard] = without_containers();
    let kubelet = Kubelet::start(Release::V1_29, &[&nginx, &dashboard])?;
    let pods = format!("file:{}", kubelet::LIST);
    let trace = ["portclash", "trace", "--pods", &pods, "--kubelet-log", kubelet::LOG, "--count", "1"];
    host::say(&format!("# {}", trace.join(" ")));
    let (ready, start) = mpsc::channel();
    let player = std::thread::spawn(move || play(kubelet, &start));
    let trace = trace.into_iter().chain(["--duration", "30s", "--color", "never"]).map(str::to_owned);
    let status = process::stream(&trace.collect::<Vec<_>>(), |line| {
        if line.starts_with("tracing:") {
            // The player may have given up already; its error is shown below.
            let _ = ready.send(());
        }
    })?;
    drop(ready);
    player.join().unwrap_or_else(|_| anyhow::bail!("the player panicked"))?;
    // 1 = found, which is what the demo is about.
    Ok(if status == 1 { 0 } else { status.max(1) })
}

/// Probes once the tracer is ready: an earlier incident would pass unseen.
fn play(mut kubelet: Kubelet, start: &mpsc::Receiver<()>) -> Result<()> {
    start.recv_timeout(Duration::from_secs(30)).context("the tracer did not begin to trace")?;
    let pid = kubelet.pid();
    fail_one_probe(&mut kubelet, |probed| host::say(&told(pid, probed))).map(drop)
}

/// What the kubelet knows of a probe's end.
fn told(pid: u32, probed: &Probed) -> String {
    let local = probed.local.map_or_else(|| "?".to_owned(), |local| local.to_string());
    let end =
        probed.line.as_deref().map_or("succeeded".to_owned(), |line| format!("failed; it logs\n#   {line}"));
    format!("# kubelet[{pid}] readiness probe of nginx, {local} -> {POD}:80: {end}")
}
