//! The image that `cargo xtask image` writes, run by containerd with exactly what the committed manifests say.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::expected::{Addresses, Collision};
use super::pods::{run_both, with_names, with_service};
use crate::client::Ended;
use crate::containers::manifest::{Given, Manifest};
use crate::containers::{self, Container, Runtime};
use crate::expect::differences;
use crate::kubelet::{API_AUTHORITY, API_SERVER, Kubelet, TOKEN};
use crate::lab::{Lab, probe, read, wait_until};
use crate::netns;
use crate::prober::Release;
use crate::story::{PORT, fail_one_probe};

/// The archive.
const ARCHIVE: &str = "/root/portclash.tar";
/// deploy/kubernetes/base.
const DAEMON_SET: &str = "/root/daemonset.yaml";
const CONFIGURATION: &str = "/root/serve.toml";
/// Start under emulation, with the limits of the manifest.
const START: Duration = Duration::from_mins(1);
const SCHEMA: &str = "portclash.incident/v1";

/// `portclash trace` in the image, with the DaemonSet's privileges: the seed's incident, whole.
pub(super) fn trace(lab: &mut Lab) -> Result<()> {
    play(lab, |manifest| manifest.with_arguments(TRACE))
}

/// The same under the filter of system calls that the runtime has for everybody.
pub(super) fn trace_under_the_runtimes_filter(lab: &mut Lab) -> Result<()> {
    play(lab, |manifest| manifest.with_arguments(TRACE).with_runtimes_filter())
}

/// The same with hooks of a stable interface only, which need the node's cgroups and tracepoints.
pub(super) fn trace_stable_rung(lab: &mut Lab) -> Result<()> {
    let arguments = [TRACE, &["--hooks", "stable"]].concat();
    play(lab, |manifest| manifest.with_arguments(&arguments))
}

const TRACE: &[&str] = &["trace", "-o", "json", "--pods", "api", "--kubelet-log", "none"];

fn play(lab: &mut Lab, change: impl FnOnce(Manifest) -> Manifest) -> Result<()> {
    let mut runtime = Runtime::start()?;
    let [nginx, backend] = run_both(&mut runtime)?;
    let resetting = netns::of_process(runtime.pid(backend.only_container()?)?);
    let addresses = Addresses::v4(PORT);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut kubelet = Kubelet::start(Release::V1_29, &[&nginx, &backend])?;
    let manifest = change(manifest()?);
    runtime.import(ARCHIVE, manifest.image())?;
    let container = runtime.run_manifest(&manifest)?;
    let outcome = watch(lab, &mut runtime, &manifest, &container, &mut kubelet);
    lab.note("containers", &containers::logs());
    let (probed, pid) = outcome?;
    let incidents = printed(&manifest, SCHEMA);
    lab.note("/proc/PID/status", &read(&format!("/proc/{pid}/status")));
    lab.note("memory", &memory(pid));
    for incident in incidents.iter().take(3) {
        lab.note("incident", &format!("{incident:#}"));
    }
    let connect = probe(&addresses.local, &addresses.remote)?;
    let client = Ended { pid: kubelet.pid(), local: probed.local, error: probed.failure };
    let story =
        Collision::new(&addresses, &connect, &client).with("/owner/cmdline", json!(Kubelet::command_line()));
    let expected = with_service(with_names(story, "proven", "")).hijacked(&resetting)?;
    let found = differences(&json!([expected]), &json!(incidents));
    ensure!(found.is_empty(), "not as expected:\n{}", found.join("\n"));
    Ok(())
}

/// The committed manifest with what the lab's cluster gives its pod.
fn manifest() -> Result<Manifest> {
    let configuration = std::fs::read_to_string(CONFIGURATION).context("no configuration")?;
    let authority = std::fs::read_to_string(API_AUTHORITY).context("no authority")?;
    let api_server = API_SERVER.split_once(':').context("no port")?;
    let given = Given { configuration: &configuration, token: TOKEN, authority: &authority, api_server };
    Manifest::read(DAEMON_SET, &given)
}

/// Lets one probe fail while the container watches, until it has told the incident. Returns the probe and the process.
fn watch(
    lab: &mut Lab,
    runtime: &mut Runtime,
    manifest: &Manifest,
    container: &Container,
    kubelet: &mut Kubelet,
) -> Result<(crate::kubelet::Probed, u32)> {
    let begin = Instant::now();
    wait_until("it traces", START, || {
        // It must not have ended meanwhile.
        runtime.pid(container)?;
        Ok(messages(manifest).iter().any(|line| line.starts_with("tracing:")))
    })?;
    lab.note("time to trace", &format!("{:?}", begin.elapsed()));
    let pid = runtime.pid(container)?;
    let probed = fail_one_probe(kubelet, |_| {})?;
    wait_until(
        "the incident is told",
        Duration::from_secs(20),
        || Ok(!printed(manifest, SCHEMA).is_empty()),
    )?;
    Ok((probed, pid))
}

/// Lines of the container's log: which stream, and the text (the runtime's form: TIME STREAM TAG TEXT).
fn lines(manifest: &Manifest) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(manifest.log()).unwrap_or_default();
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut partial = std::collections::BTreeMap::<String, String>::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some(_), Some(stream), Some(tag), Some(text)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        // What is longer than 16 KiB comes in parts.
        let whole = partial.entry(stream.to_owned()).or_default();
        whole.push_str(text);
        if tag == "F" {
            lines.push((stream.to_owned(), std::mem::take(whole)));
        }
    }
    lines
}

/// What it printed on standard error.
fn messages(manifest: &Manifest) -> Vec<String> {
    lines(manifest).into_iter().filter(|(stream, _)| stream == "stderr").map(|(_, text)| text).collect()
}

/// The objects of one schema on its standard output.
fn printed(manifest: &Manifest, schema: &str) -> Vec<Value> {
    let lines = lines(manifest).into_iter().filter(|(stream, _)| stream == "stdout");
    let values = lines.filter_map(|(_, text)| serde_json::from_str::<Value>(&text).ok());
    values.filter(|value| value["schema"] == schema).collect()
}

/// What the container's cgroup counted.
fn memory(pid: u32) -> String {
    let path = read(&format!("/proc/{pid}/cgroup"));
    let path = path.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned();
    ["memory.current", "memory.peak", "memory.max", "memory.events"]
        .map(|file| format!("{file}: {}", read(&format!("/sys/fs/cgroup{path}/{file}"))))
        .concat()
}
