//! The image that `cargo xtask image` writes, run by containerd with exactly what the committed manifests say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::expected::{Addresses, Collision};
use super::pods::{run_both, with_names, with_service};
use super::serve_privileges::{has_only, kept_for_maps, threads};
use crate::client::Ended;
use crate::containers::manifest::{Given, Manifest};
use crate::containers::{self, Container, Runtime};
use crate::kubelet::{API_AUTHORITY, API_SERVER, Kubelet, TOKEN};
use crate::lab::{Lab, compare, probe, read, wait_until};
use crate::netns;
use crate::prober::Release;
use crate::sidecar::get;
use crate::story::{PORT, fail_one_probe};

/// The archive.
const ARCHIVE: &str = "/root/portclash.tar";
/// deploy/kubernetes/base
const DAEMON_SET: &str = "/root/daemonset.yaml";
const CONFIGURATION: &str = "/root/serve.toml";
/// deploy/kubernetes/one-shot
const JOB: &str = "/root/job.yaml";
/// Start under emulation, with the limits of the manifest.
const START: Duration = Duration::from_mins(1);
const TOLD: Duration = Duration::from_secs(20);
const SCHEMA: &str = "portclash.incident/v1";

/// The DaemonSet's pod catches the seed's incident: on standard output and over HTTP, whole, with a capture; and by then no
/// capability is left.
pub(super) fn seed_story(lab: &mut Lab) -> Result<()> {
    as_a_sidecar(lab, |manifest| manifest)
}

/// The same under the filter of system calls that the runtime has for everybody.
pub(super) fn seed_story_under_the_runtimes_filter(lab: &mut Lab) -> Result<()> {
    as_a_sidecar(lab, Manifest::with_runtimes_filter)
}

/// The same with hooks of a stable interface only, which need the node's cgroups and tracepoints.
pub(super) fn seed_story_stable_rung(lab: &mut Lab) -> Result<()> {
    as_a_sidecar(lab, |manifest| manifest.with_more_arguments(&["--hooks", "stable"]))
}

fn as_a_sidecar(lab: &mut Lab, change: impl FnOnce(Manifest) -> Manifest) -> Result<()> {
    let mut node = Node::start(lab)?;
    let manifest = change(Manifest::read(DAEMON_SET, &given()?.borrowed())?);
    let container = node.run(&manifest)?;
    let outcome = node.watch_sidecar(lab, &manifest, &container);
    note(lab, &manifest);
    let (probed, told) = outcome?;
    let status = node.runtime.stop(&container, manifest.grace_s)?;
    ensure!(status == 0, "exit status is {status}, expected 0");
    // Executables take CAP_SYS_PTRACE to see, which the DaemonSet does not ask for.
    let story = node.story(&probed)?.with("/owner/exe", Value::Null);
    let expected = with_service(with_names(story, "proven", "")).hijacked(&node.resetting)?;
    compare(&printed(&manifest, SCHEMA), std::slice::from_ref(&expected))?;
    compare(&told, &[expected])
}

/// The Job's pod catches the seed's incident, and its exit status says so.
pub(super) fn one_shot(lab: &mut Lab) -> Result<()> {
    let mut node = Node::start(lab)?;
    let manifest = Manifest::read(JOB, &given()?.borrowed())?;
    let container = node.run(&manifest)?;
    let outcome = node.watch_tracer(&manifest, &container);
    note(lab, &manifest);
    let probed = outcome?;
    let status = node.runtime.stop(&container, manifest.grace_s)?;
    ensure!(status == 1, "exit status is {status}, expected 1");
    compare(&printed(&manifest, SCHEMA), &[node.story(&probed)?.hijacked(&node.resetting)?])
}

/// A node with the seed's pods, service and kubelet.
struct Node {
    addresses: Addresses,
    /// Namespace of the backend.
    resetting: String,
    kubelet: Kubelet,
    runtime: Runtime,
}

impl Node {
    fn start(lab: &mut Lab) -> Result<Self> {
        let mut runtime = Runtime::start()?;
        let [nginx, backend] = run_both(&mut runtime)?;
        let resetting = netns::of_process(runtime.pid(backend.only_container()?)?);
        let addresses = Addresses::v4(PORT);
        lab.service(&addresses.local, &[&addresses.backend])?;
        let kubelet = Kubelet::start(Release::V1_29, &[&nginx, &backend])?;
        Ok(Self { addresses, resetting, kubelet, runtime })
    }

    fn run(&mut self, manifest: &Manifest) -> Result<Container> {
        self.runtime.import(ARCHIVE, manifest.image())?;
        self.runtime.run_manifest(manifest)
    }

    /// Plays kubelet to the sidecar until it has told the incident. Returns the probe that was hit, and what `/incidents`
    /// says.
    fn watch_sidecar(
        &mut self,
        lab: &mut Lab,
        manifest: &Manifest,
        container: &Container,
    ) -> Result<(crate::kubelet::Probed, Vec<Value>)> {
        for kind in ["startupProbe", "readinessProbe"] {
            let (address, path) = manifest.probe(kind)?;
            wait_until(&format!("the {kind} succeeds"), START, || {
                // It must not have ended meanwhile.
                self.runtime.pid(container)?;
                Ok(get(address, &path).is_ok_and(|reply| reply.status == 200))
            })?;
        }
        let pid = self.runtime.pid(container)?;
        let before = threads(pid)?;
        let probed = fail_one_probe(&mut self.kubelet, |_| {})?;
        wait_until("the incident is told", TOLD, || Ok(!printed(manifest, SCHEMA).is_empty()))?;
        lab.note("/proc/PID/status", &read(&format!("/proc/{pid}/status")));
        lab.note("memory", &memory(pid));
        let (address, path) = manifest.probe("livenessProbe")?;
        let reply = get(address, &path)?;
        ensure!(reply.status == 200, "{path}: {} {}", reply.status, reply.text());
        let told = get(address, "/incidents")?.json()?.as_array().context("/incidents is no list")?.clone();
        for thread in before.iter().chain(&threads(pid)?) {
            has_only(thread, kept_for_maps())?;
            ensure!(thread.bounding == 0, "the bounding set is not empty: {thread:?}");
        }
        let captures = manifest.on_node("/var/lib/portclash").context("no volume for captures")?;
        wait_until("there is one capture", TOLD, || Ok(std::fs::read_dir(&captures)?.count() == 1))?;
        Ok((probed, told))
    }

    /// Lets one probe fail while the tracer watches, until it has told the incident.
    fn watch_tracer(&mut self, manifest: &Manifest, container: &Container) -> Result<crate::kubelet::Probed> {
        wait_until("it traces", START, || {
            self.runtime.pid(container)?;
            Ok(lines(manifest, "stderr").iter().any(|line| line.starts_with("tracing:")))
        })?;
        let probed = fail_one_probe(&mut self.kubelet, |_| {})?;
        wait_until("the incident is told", TOLD, || Ok(!printed(manifest, SCHEMA).is_empty()))?;
        Ok(probed)
    }

    /// What happened, without names.
    fn story(&self, probed: &crate::kubelet::Probed) -> Result<Collision> {
        let connect = probe(&self.addresses.local, &self.addresses.remote)?;
        let client = Ended { pid: self.kubelet.pid(), local: probed.local, error: probed.failure.clone() };
        let command_line = json!(Kubelet::command_line());
        Ok(Collision::new(&self.addresses, &connect, &client).with("/owner/cmdline", command_line))
    }
}

/// What the lab's cluster gives pods.
struct Cluster {
    configuration: String,
    authority: String,
}

fn given() -> Result<Cluster> {
    Ok(Cluster {
        configuration: std::fs::read_to_string(CONFIGURATION).context("no configuration")?,
        authority: std::fs::read_to_string(API_AUTHORITY).context("no authority")?,
    })
}

impl Cluster {
    fn borrowed(&self) -> Given<'_> {
        let api_server = API_SERVER.split_once(':').unwrap_or_default();
        Given { configuration: &self.configuration, token: TOKEN, authority: &self.authority, api_server }
    }
}

fn note(lab: &mut Lab, manifest: &Manifest) {
    lab.note("containers", &containers::logs());
    for incident in printed(manifest, SCHEMA).iter().take(3) {
        lab.note("incident", &format!("{incident:#}"));
    }
}

/// What the container wrote to one of its streams, by its log (the runtime's form: TIME STREAM TAG TEXT).
fn lines(manifest: &Manifest, wanted: &str) -> Vec<String> {
    let text = std::fs::read_to_string(manifest.log()).unwrap_or_default();
    let mut lines = Vec::new();
    let mut whole = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [_, stream, tag, text] = words.as_slice() else { continue };
        if *stream != wanted {
            continue;
        }
        // What is longer than 16 KiB comes in parts.
        whole.push_str(text);
        if *tag == "F" {
            lines.push(std::mem::take(&mut whole));
        }
    }
    lines
}

/// The objects of one schema on its standard output.
fn printed(manifest: &Manifest, schema: &str) -> Vec<Value> {
    let lines = lines(manifest, "stdout").into_iter();
    let values = lines.filter_map(|text| serde_json::from_str::<Value>(&text).ok());
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
