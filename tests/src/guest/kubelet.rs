//! The process that plays kubelet and the API server: it serves their lists, and probes whenever it is told to.

use std::io::{BufRead, Write};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::json;

use crate::kubelet::Settings;
use crate::{cgroups, kube_server};

/// Does what the file says. Prints `ready`; then each line of standard input is a period, in which every probe sends
/// one request, and for each probe `{"local": …, "failure": …, "line": …}` is printed.
pub(super) fn run(settings: &str) -> Result<()> {
    let text = std::fs::read_to_string(settings).with_context(|| format!("cannot read {settings}"))?;
    let settings: Settings = serde_json::from_str(&text)?;
    cgroups::join(&settings.cgroup)?;
    for server in settings.servers.clone() {
        kube_server::start(server)?;
    }
    say("ready")?;
    for period in std::io::stdin().lock().lines() {
        period?;
        for line in probe_all(&settings)? {
            say(&line)?;
        }
    }
    Ok(())
}

/// All probes at once, as each has a worker of its own.
fn probe_all(settings: &Settings) -> Result<Vec<String>> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = settings
            .probes
            .iter()
            .map(|probe| {
                scope.spawn(move || -> Result<String> {
                    let outcome = probe.run(settings.release);
                    let line = outcome.failure.as_deref().map(|failure| {
                        probe.log_line(settings.release, Timestamp::now(), std::process::id(), failure)
                    });
                    if let Some(line) = &line {
                        log(settings, line)?;
                    }
                    Ok(json!({"local": outcome.local, "failure": outcome.failure, "line": line}).to_string())
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a probe panicked"))?)
            .collect()
    })
}

/// One write per line, at the end of the file, so that lines of several workers stay whole.
fn log(settings: &Settings, line: &str) -> Result<()> {
    let path = &settings.log;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    Ok(file.write_all(format!("{line}\n").as_bytes())?)
}

fn say(line: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
