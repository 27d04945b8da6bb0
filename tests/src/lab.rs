//! What a scenario works with: a node in a known state, and helpers that undo themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::Connect;
use crate::expect;
use crate::node::{self, ip, ipvsadm};
use crate::process::{run, run_with_input, sysctl};
use crate::server::Server;
use crate::tracer::{Traced, Tracer};

/// Longest table that is shown.
const MOST_LINES: usize = 150;

/// One run of one scenario.
#[derive(Default)]
pub struct Lab {
    servers: Vec<Server>,
    namespaces: Vec<String>,
    addresses: Vec<String>,
    files: Vec<PathBuf>,
    /// What is shown if the scenario fails.
    notes: Vec<String>,
}

impl Lab {
    /// The node as every scenario finds it: no services, no servers but the probed pod's, usual settings.
    pub fn fresh() -> Result<Self> {
        let mut lab = Self::without_pods()?;
        lab.serve("pod", 80)?;
        lab.serve("backend", 8443)?;
        Ok(lab)
    }

    /// The node as a scenario finds it that makes pods by a container runtime.
    pub fn without_pods() -> Result<Self> {
        ipvsadm("-C")?;
        // A tracked collision outlives its service, and so would the translation of what comes to its port.
        for family in ["ipv4", "ipv6"] {
            run(&format!("conntrack -f {family} -F"))?;
        }
        for (name, value) in [
            ("net/ipv4/vs/conn_reuse_mode", "0"),
            ("net/ipv4/vs/sloppy_tcp", "0"),
            ("net/ipv4/ip_local_port_range", "32768 60999"),
            ("net/ipv4/ip_local_reserved_ports", ""),
            ("net/ipv4/tcp_fastopen", "1"),
        ] {
            sysctl(name, value)?;
        }
        Ok(Self::default())
    }

    /// Starts a web server that lives as long as the scenario.
    pub fn serve(&mut self, namespace: &str, port: u16) -> Result<()> {
        self.servers.push(Server::start(namespace, port)?);
        Ok(())
    }

    /// Keeps text for the case that the scenario fails.
    pub fn note(&mut self, title: &str, text: &str) {
        let mut lines: Vec<&str> = text.trim_end().lines().collect();
        let more = lines.len().saturating_sub(MOST_LINES);
        lines.truncate(MOST_LINES);
        self.notes.push(format!("--- {title}\n{}", lines.join("\n")));
        if more > 0 {
            self.notes.push(format!("({more} more lines)"));
        }
    }

    /// What was noted.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Adds a TCP service with its backends, as kube-proxy does: round robin, masquerading.
    pub fn service(&mut self, address: &str, backends: &[&str]) -> Result<()> {
        ipvsadm(&format!("-A -t {address} -s rr"))?;
        backends.iter().try_for_each(|backend| ipvsadm(&format!("-a -t {address} -r {backend} -m")))
    }

    /// A pod that is gone after the scenario.
    pub fn pod(&mut self, name: &str, v4: &str, v6: &str) -> Result<()> {
        self.namespaces.push(name.to_owned());
        node::add_pod(name, v4, v6)
    }

    /// An address on the node's loopback device that is gone after the scenario.
    pub fn address(&mut self, address: &str) -> Result<()> {
        ip(&format!("addr add {address}/32 dev lo\n"))?;
        self.addresses.push(address.to_owned());
        Ok(())
    }

    /// A file with this content that is gone after the scenario, as is its folder if nothing else is in it.
    pub fn file(&mut self, path: &str, content: &str) -> Result<()> {
        self.takes_away(path);
        if let Some(folder) = Path::new(path).parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, content).with_context(|| format!("cannot write {path}"))
    }

    /// A file that something else will write, and that is gone after the scenario.
    pub fn takes_away(&mut self, path: &str) {
        self.files.push(PathBuf::from(path));
    }

    /// A bare namespace that is gone after the scenario.
    pub fn namespace(&mut self, name: &str) -> Result<()> {
        self.namespaces.push(name.to_owned());
        ip(&format!("netns add {name}\n"))
    }

    /// Traces while `work` runs and until so many incidents have come; hands back what the tracer said.
    pub fn trace<T>(
        &mut self,
        arguments: &[&str],
        incidents: usize,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<(T, Traced)> {
        let mut running = Tracer::start(arguments)?;
        let done = work(self);
        let waited = done.is_ok().then(|| running.wait_for_incidents(incidents));
        self.note("/proc/net/ip_vs", &read("/proc/net/ip_vs"));
        self.note("/proc/net/ip_vs_conn", &read("/proc/net/ip_vs_conn"));
        let (traced, messages) = running.stop()?;
        self.note("portclash trace said", &messages);
        for incident in traced.incidents.iter().take(3) {
            self.note("incident", &format!("{incident:#}"));
        }
        self.note("summary", &format!("{:#}", traced.summary));
        let done = done?;
        waited.transpose()?;
        Ok((done, traced))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.namespaces {
            // The next scenario uses names of its own; what is left over hinders nobody.
            let _ = run(&format!("ip netns del {name}"));
            let _ = run(&format!("ip link del v{name}"));
        }
        for address in &self.addresses {
            let _ = run(&format!("ip addr del {address}/32 dev lo"));
        }
        for file in &self.files {
            // Both fail if there is nothing to take away: no file, or a folder that others use.
            let _ = std::fs::remove_file(file);
            let _ = file.parent().map(std::fs::remove_dir);
        }
    }
}

/// Fails with every difference between the incidents and what is expected of them, in the order of time.
pub fn assert_incidents(traced: &Traced, expected: &[Value]) -> Result<()> {
    compare(&traced.incidents, expected)?;
    let mut verdicts = BTreeMap::new();
    for verdict in traced.incidents.iter().filter_map(|incident| incident.get("verdict")?.as_str()) {
        *verdicts.entry(verdict).or_insert(0) += 1;
    }
    assert_summary(&traced.summary, &json!(verdicts))?;
    let complete = traced.summary.get("incomplete").is_some_and(|list| *list == json!([]));
    let status = match (expected.is_empty(), complete) {
        (false, _) => 1,
        (true, true) => 0,
        (true, false) => 3,
    };
    ensure!(traced.status == Some(status), "exit status is {:?}, expected {status}", traced.status);
    Ok(())
}

/// Fails with every difference between incidents and what is expected of them, in their order.
pub fn compare(incidents: &[Value], expected: &[Value]) -> Result<()> {
    let count = incidents.len();
    ensure!(count == expected.len(), "expected {} incidents, there are {count}", expected.len());
    let mut found = Vec::new();
    for (index, (expected, actual)) in expected.iter().zip(incidents).enumerate() {
        let differences = expect::differences(expected, actual);
        found.extend(differences.into_iter().map(|line| format!("incident {index}: {line}")));
    }
    ensure!(found.is_empty(), "not as expected:\n{}", found.join("\n"));
    Ok(())
}

/// The summary counts the verdicts as given, and nothing was lost.
pub fn assert_summary(summary: &Value, verdicts: &Value) -> Result<()> {
    let expected = json!({
        "schema": "portclash.summary/v1",
        "verdicts": verdicts,
        "connects_seen": {"<one of>": [null, "<number>"]},
        // Where a log is read, every line of the lab's is about an incident.
        "probe_failures_elsewhere": {"<one of>": [null, 0]},
        "probe_failures_ambiguous": {"<one of>": [null, 0]},
        "lost": if only_missed(summary) { summary.get("lost").cloned() } else { Some(json!({})) },
        "hooks": summary.get("hooks"),
        "incomplete": summary.get("incomplete"),
    });
    let found = expect::differences(&expected, summary);
    ensure!(found.is_empty(), "the summary is not as expected:\n{}", found.join("\n"));
    Ok(())
}

/// Runs that the kernel skipped because the program was interrupted on that CPU: they happen on a busy machine, are
/// counted by the kernel itself, and mostly concern sockets that nobody watches. What matters of them shows in the
/// incidents, which are compared whole. Anything else must not be lost.
fn only_missed(summary: &Value) -> bool {
    let programs = summary.get("lost").and_then(Value::as_object);
    programs.is_some_and(|programs| {
        programs
            .values()
            .filter_map(Value::as_object)
            .flat_map(|reasons| reasons.keys())
            .all(|key| key == "missed")
    })
}

/// Waits until `done` is true.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    while !done()? {
        ensure!(Instant::now() < end, "waited {} s until {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Text of a file, or why it cannot be read.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("{path}: {error}"))
}

/// Feeds a list of rules to `ipvsadm -R`.
pub fn restore(rules: &str) -> Result<()> {
    run_with_input("ipvsadm -R", rules).map(drop).context("ipvsadm -R")
}

/// The client's connect from a service port of the node to the probed pod.
pub fn probe(local: &str, remote: &str) -> Result<Connect> {
    Ok(Connect::new(Some(local.parse()?), remote.parse()?))
}
