//! The seed's incident, once, with the tracer's own words.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::client::Connect;
use crate::lab::Lab;
use crate::node::{BACKEND, NODE, POD};
use crate::{host, node, process};

/// Port of the service and of the probe, as in the seed.
const PORT: u16 = 36704;

/// Plays the incident while `portclash trace` runs, and shows what it prints as it comes.
pub(super) fn run() -> Result<u8> {
    node::set_up()?;
    let mut lab = Lab::fresh()?;
    host::say(&format!(
        "node {NODE}; nginx {POD}:80; IPVS service {NODE}:{PORT} (a NodePort) -> dashboard {BACKEND}:8443\n\
         kubelet probes nginx twice: from port 41000, then from port {PORT}, which the kernel may pick at any time\n"
    ));
    lab.service(&format!("{NODE}:{PORT}"), &[&format!("{BACKEND}:8443")])?;
    host::say("# portclash trace --count 1");
    let (ready, start) = mpsc::channel();
    let player = std::thread::spawn(move || play(&start));
    let trace =
        ["portclash", "trace", "--pods", "none", "--count", "1", "--duration", "20s", "--color", "never"]
            .map(str::to_owned);
    let status = process::stream(&trace, |line| {
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

/// Connects once the tracer is ready: an earlier incident would pass unseen.
fn play(start: &mpsc::Receiver<()>) -> Result<()> {
    start.recv_timeout(Duration::from_secs(30)).context("the tracer did not begin to trace")?;
    for port in [41000, PORT] {
        let mut connect = Connect::new(Some(format!("{NODE}:{port}").parse()?), format!("{POD}:80").parse()?);
        // timeoutSeconds of the seed's readiness probe.
        connect.timeout = Duration::from_secs(2);
        let ended = connect.run()?;
        let how =
            ended.error.map_or("connected".to_owned(), |error| format!("timed out after 2 s ({error})"));
        host::say(&format!("# kubelet[{}] {NODE}:{port} -> {POD}:80: {how}", ended.pid));
    }
    Ok(())
}
