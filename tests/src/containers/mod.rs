//! Real pods: containerd, runc and CNI plugins, asked over the container runtime's interface as a kubelet asks.

mod cri;
mod image;
pub mod manifest;
mod spec;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::guest::load_module;
use crate::lab::wait_until;
use crate::node::{BACKEND, NODE, POD};
use crate::process::run;
pub use image::{NGINX, NODE_CACHE};
use manifest::Manifest;
pub use spec::{ContainerSpec, NODE_NAME, PodSpec, ProbeSpec, cgroup_of, list, pod_list, service_list};
use spec::{container_config, sandbox_config};

/// Where containerd listens.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
const LOG: &str = "/run/containerd.log";
const CONFIG: &str = "/etc/containerd/config.toml";
const LEASES: &str = "/var/lib/cni/networks";
/// Start and calls, under emulation on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What was asked for.
    pub spec: PodSpec,
    /// Id of its sandbox.
    pub sandbox: String,
    /// Address that CNI gave it; none on the node's network.
    pub ip: Option<String>,
    /// Its containers, in the order of the specification.
    pub containers: Vec<Container>,
}

impl Pod {
    /// The container of a pod that has one.
    pub fn only_container(&self) -> Result<&Container> {
        match self.containers.as_slice() {
            [only] => Ok(only),
            several => anyhow::bail!("{} has {} containers", self.spec.name, several.len()),
        }
    }
}

/// A container that exists.
#[derive(Clone, Debug)]
pub struct Container {
    /// Name.
    pub name: &'static str,
    /// Id at the runtime, 64 hex digits.
    pub id: String,
}

/// containerd, which runs as long as this value lives, and its pods.
pub struct Runtime {
    containerd: Child,
    client: cri::Client,
    sandboxes: Vec<String>,
}

impl Runtime {
    /// Starts containerd with the lab's images, and with addresses for pods that begin with the probed pod's.
    pub fn start() -> Result<Self> {
        load_module("overlay")?;
        configure()?;
        let log = fs::File::create(LOG)?;
        let mut containerd = Command::new("containerd")
            .arg("--config")
            .arg(CONFIG)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start containerd")?;
        let client = match first_client(&mut containerd) {
            Ok(client) => client,
            Err(error) => {
                let _ = containerd.kill();
                let _ = containerd.wait();
                return Err(error.context(fs::read_to_string(LOG).unwrap_or_default()));
            }
        };
        let mut runtime = Self { containerd, client, sandboxes: Vec::new() };
        runtime.need_images()?;
        Ok(runtime)
    }

    /// Imports the images unless an earlier start has, and waits until the runtime knows them.
    fn need_images(&mut self) -> Result<()> {
        if !self.has_images()? {
            image::import()?;
        }
        wait_until("the images are known", LIMIT, || self.has_images())
    }

    fn has_images(&mut self) -> Result<bool> {
        for name in image::IMAGES {
            if !self.has_image(name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn has_image(&mut self, name: &str) -> Result<bool> {
        let image = Some(cri::ImageSpec { image: name.to_owned() });
        let answer: cri::ImageStatusResponse =
            self.client.call_images("ImageStatus", cri::ImageStatusRequest { image })?;
        Ok(answer.image.is_some())
    }

    /// Makes a pod with its containers, none of which is started.
    pub fn create(&mut self, spec: &PodSpec) -> Result<Pod> {
        let config = sandbox_config(spec);
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()) };
        let answer: cri::PodSandboxId = self.client.call("RunPodSandbox", request)?;
        let sandbox = answer.pod_sandbox_id;
        self.sandboxes.push(sandbox.clone());
        let request = cri::PodSandboxId { pod_sandbox_id: sandbox.clone() };
        let answer: cri::PodSandboxStatusResponse = self.client.call("PodSandboxStatus", request)?;
        let network = answer.status.and_then(|status| status.network);
        let ip = network.map(|network| network.ip).filter(|ip| !ip.is_empty());
        let mut containers = Vec::new();
        for container in &spec.containers {
            let request = cri::CreateContainerRequest {
                pod_sandbox_id: sandbox.clone(),
                config: Some(container_config(spec, container)),
                sandbox_config: Some(config.clone()),
            };
            let answer: cri::ContainerId = self.client.call("CreateContainer", request)?;
            containers.push(Container { name: container.name, id: answer.container_id });
        }
        Ok(Pod { spec: spec.clone(), sandbox, ip, containers })
    }

    /// Starts a container.
    pub fn start_container(&mut self, container: &Container) -> Result<()> {
        let request = cri::ContainerId { container_id: container.id.clone() };
        self.client.call("StartContainer", request).map(|cri::Nothing {}| ())
    }

    /// Makes a pod and starts its containers.
    pub fn run(&mut self, spec: &PodSpec) -> Result<Pod> {
        let pod = self.create(spec)?;
        pod.containers.iter().try_for_each(|container| self.start_container(container))?;
        Ok(pod)
    }

    /// Imports the image archive at `path`, unless the runtime has `name` already.
    pub fn import(&mut self, path: &str, name: &str) -> Result<()> {
        if !self.has_image(name)? {
            run(&format!("ctr -n k8s.io images import {path}"))?;
        }
        wait_until(&format!("the image {name} is known"), LIMIT, || self.has_image(name))
    }

    /// Runs the pod of a manifest.
    pub fn run_manifest(&mut self, manifest: &Manifest) -> Result<Container> {
        let request = cri::RunPodSandboxRequest { config: Some(manifest.sandbox.clone()) };
        let answer: cri::PodSandboxId = self.client.call("RunPodSandbox", request)?;
        self.sandboxes.push(answer.pod_sandbox_id.clone());
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: answer.pod_sandbox_id,
            config: Some(manifest.container.clone()),
            sandbox_config: Some(manifest.sandbox.clone()),
        };
        let answer: cri::ContainerId = self.client.call("CreateContainer", request)?;
        let container = Container { name: "portclash", id: answer.container_id };
        self.start_container(&container)?;
        Ok(container)
    }

    /// Asks a container to end, kills it after `grace` seconds, and returns its exit status.
    pub fn stop(&mut self, container: &Container, grace: i64) -> Result<i32> {
        let request = cri::StopContainerRequest { container_id: container.id.clone(), timeout: grace };
        self.client.call("StopContainer", request).map(|cri::Nothing {}| ())?;
        let status = self.status(container)?.status.unwrap_or_default();
        ensure!(status.state == cri::EXITED, "the container was stopped, its state is {}", status.state);
        Ok(status.exit_code)
    }

    /// Process id of a container's first process, as the node sees it.
    pub fn pid(&mut self, container: &Container) -> Result<u32> {
        let answer = self.status(container)?;
        let status = answer.status.unwrap_or_default();
        ensure!(
            status.state == cri::RUNNING,
            "container {} does not run: state {}, exit code {}, {}\n{}",
            container.name,
            status.state,
            status.exit_code,
            status.message,
            logs()
        );
        let info = answer.info.get("info").context("the runtime tells no details of the container")?;
        let info: Value = serde_json::from_str(info)?;
        let pid = info.get("pid").and_then(Value::as_u64).context("the runtime tells no process id")?;
        Ok(u32::try_from(pid)?)
    }

    fn status(&mut self, container: &Container) -> Result<cri::ContainerStatusResponse> {
        let request = cri::ContainerStatusRequest { container_id: container.id.clone(), verbose: true };
        self.client.call("ContainerStatus", request)
    }

    fn remove_pods(&mut self) -> Result<()> {
        for sandbox in std::mem::take(&mut self.sandboxes) {
            for method in ["StopPodSandbox", "RemovePodSandbox"] {
                let request = cri::PodSandboxId { pod_sandbox_id: sandbox.clone() };
                self.client.call(method, request).map(|cri::Nothing {}| ())?;
            }
        }
        Ok(())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Err(error) = self.remove_pods() {
            crate::host::say(&format!("pods were left over: {error:#}"));
        }
        // Both fail only if it has ended already.
        let _ = i32::try_from(self.containerd.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        let _ = self.containerd.wait();
    }
}

/// The end of containerd's log and what containers wrote, for a scenario that fails.
pub fn logs() -> String {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    let notable: Vec<&str> =
        text.lines().filter(|line| line.contains("level=warn") || line.contains("level=error")).collect();
    let from = notable.len().saturating_sub(20);
    let mut text = notable.get(from..).unwrap_or_default().join("\n");
    for file in fs::read_dir("/var/log/pods").into_iter().flatten().flatten() {
        for log in fs::read_dir(file.path()).into_iter().flatten().flatten() {
            text += &format!("\n{}:\n", log.path().display());
            text += &fs::read_to_string(log.path()).unwrap_or_default();
        }
    }
    text
}

/// A client of a containerd that answers.
fn first_client(containerd: &mut Child) -> Result<cri::Client> {
    let mut client = None;
    wait_until("containerd answers", LIMIT, || {
        if let Some(status) = containerd.try_wait()? {
            anyhow::bail!("containerd ended with {status}");
        }
        let Ok(mut connected) = cri::Client::connect(Path::new(SOCKET)) else { return Ok(false) };
        let answer: Result<cri::VersionResponse> = connected.call("Version", cri::VersionRequest {});
        let answers = answer.is_ok_and(|version| version.runtime_name == "containerd");
        client = answers.then_some(connected);
        Ok(answers)
    })?;
    client.context("containerd does not answer")
}

/// containerd's configuration and that of the pods' network.
fn configure() -> Result<()> {
    // The guest's root is the kernel's first file system, which cannot be pivoted away from.
    let containerd = format!(
        r#"version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
NoPivotRoot = true
"#,
        pause = image::PAUSE
    );
    // The node's address is the gateway of its pods' subnet; a veth of its own for each pod.
    let network = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "lab",
        "plugins": [{
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "ranges": [[{
                    "subnet": "10.23.77.128/25",
                    "rangeStart": POD,
                    "rangeEnd": "10.23.77.200",
                    "gateway": NODE,
                }]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    for directory in ["/etc/containerd", "/etc/cni/net.d", "/var/log/pods", LEASES] {
        fs::create_dir_all(directory)?;
    }
    // Without a memory of earlier pods, the first has the probed pod's address and the second the backend's.
    fs::remove_dir_all(LEASES)?;
    // containerd copies these into pods.
    fs::write("/etc/hosts", "127.0.0.1 localhost\n")?;
    fs::write("/etc/resolv.conf", "nameserver 10.96.0.10\n")?;
    fs::write("/etc/hostname", "node\n")?;
    fs::write(CONFIG, containerd)?;
    fs::write("/etc/cni/net.d/10-lab.conflist", network.to_string())?;
    Ok(())
}

/// Fails unless two pods have the addresses that expectations name.
pub fn ensure_addresses(probed: &Pod, backend: &Pod) -> Result<()> {
    let ips = (probed.ip.as_deref(), backend.ip.as_deref());
    ensure!(ips == (Some(POD), Some(BACKEND)), "CNI gave the pods {ips:?} instead of {POD} and {BACKEND}");
    Ok(())
}
