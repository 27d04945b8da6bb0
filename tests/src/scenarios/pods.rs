//! Collisions among containerd's pods.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::expected::{Addresses, Collision, timed_out};
use crate::client::Ended;
use crate::containers::{self, ContainerSpec, NGINX, NODE_CACHE, Pod, PodSpec, ProbeSpec, Runtime};
use crate::kubelet::{self, Kubelet, Probed};
use crate::lab::{Lab, assert_incidents, probe, read, wait_until};
use crate::netns;
use crate::node::{BACKEND, POD};
use crate::prober::Release;
use crate::process::sysctl;
use crate::server::answers;

/// The seed's probed pod.
fn nginx() -> PodSpec {
    PodSpec {
        namespace: "default",
        name: "nginx-5dfb7c896c-x2q2w",
        uid: "3daea6ef-f286-43f2-8825-51edaa3994d3",
        host_network: false,
        containers: vec![ContainerSpec { probes: vec![READINESS], ..web_server("nginx", 80) }],
    }
}

/// The seed's probe.
const READINESS: ProbeSpec = ProbeSpec { kind: "Readiness", path: "/", port: 80, period_s: 10, timeout_s: 2 };

/// What the seed's NodePort leads to.
fn dashboard() -> PodSpec {
    PodSpec {
        namespace: "kube-system",
        name: "kubernetes-dashboard-6b79449649-8kz5w",
        uid: "0c1f5d0e-7a52-4a3e-9a55-c7f5b0f2a9d1",
        host_network: false,
        containers: vec![web_server("kubernetes-dashboard", 8443)],
    }
}

fn web_server(name: &'static str, port: u16) -> ContainerSpec {
    let command = ["/bin/httpd", "-f", "-p", &port.to_string(), "-h", "/www"].map(str::to_owned);
    ContainerSpec { name, image: NGINX, command: command.into(), port: Some(port), probes: Vec::new() }
}

/// The probed pod and the backend's, both serving.
fn run_both(runtime: &mut Runtime) -> Result<[Pod; 2]> {
    let pods = [runtime.run(&nginx())?, runtime.run(&dashboard())?];
    let [probed, backend] = &pods;
    containers::ensure_addresses(probed, backend)?;
    for address in [format!("{POD}:80"), format!("{BACKEND}:8443")] {
        let limit = std::time::Duration::from_secs(20);
        wait_until(&format!("{address} answers"), limit, || Ok(answers(&address)))?;
    }
    Ok(pods)
}

/// A client of the node whose reply IPVS gives to a pod of containerd's.
pub(super) fn collision(lab: &mut Lab) -> Result<()> {
    let mut runtime = Runtime::start()?;
    let [_, backend] = run_both(&mut runtime)?;
    let resetting = netns::of_process(runtime.pid(backend.only_container()?)?);
    let addresses = Addresses::v4(36704);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(&[], 1, |_| connect.run())?;
    lab.note("containers", &containers::logs());
    timed_out(&client)?;
    assert_incidents(&traced, &[Collision::new(&addresses, &connect, &client).hijacked(&resetting)?])
}

/// The seed's story, without names: kubelet probes nginx, the kernel gives it a source port that is a NodePort of the
/// dashboard's, and kubelet logs that nginx is not ready.
pub(super) fn seed_story_without_names(lab: &mut Lab) -> Result<()> {
    seed_story(lab, Release::V1_29, &[], |story, _| story)
}

/// The same with the names of everybody who takes part, from a file, and with kubelet's line.
pub(super) fn seed_story_from_a_file(lab: &mut Lab) -> Result<()> {
    let source = format!("file:{}", kubelet::LIST);
    let arguments = ["--pods", &source, "--kubelet-log", kubelet::LOG];
    seed_story(lab, Release::V1_23, &arguments, |story, line| {
        let named = with_names(story, "likely", " (likely: the pod list is a file)");
        logged(with_service(named), line)
    })
}

/// The same with what kubelet itself tells; it knows no Services.
pub(super) fn seed_story_from_kubelet(lab: &mut Lab) -> Result<()> {
    let arguments = ["--pods", "kubelet", "--kubelet-log", kubelet::LOG];
    seed_story(lab, Release::V1_29, &arguments, |story, line| logged(with_names(story, "proven", ""), line))
}

/// Adds the probe, and the backend's pod.
fn with_names(story: Collision, confidence: &str, doubt: &str) -> Collision {
    let (nginx, dashboard) = (nginx(), dashboard());
    let probe = json!({
        "type": "readiness",
        "handler": "httpGet",
        "pod": {"namespace": nginx.namespace, "name": nginx.name, "uid": nginx.uid},
        "container": "nginx",
        "target": format!("{POD}:80"),
        "period_s": 10,
        "timeout_s": 2,
        "confidence": confidence,
    });
    let notes = [
        "it is a kubelet: its cgroup is kubelet.service".to_owned(),
        format!(
            "readiness probe of {}/{}, container nginx: GET http://{POD}:80/, every 10 s, timeout 2 s{doubt}",
            nginx.namespace, nginx.name
        ),
        format!(
            "backend {BACKEND}:8443 is pod {}/{}, container kubernetes-dashboard",
            dashboard.namespace, dashboard.name
        ),
    ];
    story.with("/probe", probe).noted(&notes)
}

/// Adds the name of the Service.
fn with_service(story: Collision) -> Collision {
    story
        .with("/service/name", json!("kube-system/kubernetes-dashboard:443"))
        .with("/service/kind", json!("NodePort"))
}

/// Adds kubelet's line. Which one of its log it is is not known, for the log is followed from its end.
fn logged(story: Collision, line: &str) -> Collision {
    let nginx = nginx();
    let note = format!(
        "the kubelet logged that the readiness probe of container nginx in pod {}/{} failed with a timeout",
        nginx.namespace, nginx.name
    );
    let lines = json!([{"at": "<time>", "file": kubelet::LOG, "line": null, "text": line}]);
    story.with("/log_lines", lines).noted(&[note])
}

fn seed_story(
    lab: &mut Lab,
    release: Release,
    arguments: &[&str],
    change: impl FnOnce(Collision, &str) -> Collision,
) -> Result<()> {
    let mut runtime = Runtime::start()?;
    let [nginx, backend] = run_both(&mut runtime)?;
    let resetting = netns::of_process(runtime.pid(backend.only_container()?)?);
    let addresses = Addresses::v4(36704);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut kubelet = Kubelet::start(release, &[&nginx, &backend])?;
    let (probed, traced) = lab.trace(arguments, 1, |_| fail_one_probe(&mut kubelet))?;
    lab.note("containers", &containers::logs());
    lab.note("kubelet's log", &read(kubelet::LOG));
    let local = probed.local.map(|local| local.to_string());
    ensure!(local.as_deref() == Some(addresses.local.as_str()), "the kernel chose {local:?}");
    let line = probed.line.context("kubelet logged nothing")?;
    ensure!(read(kubelet::LOG) == format!("{line}\n"), "kubelet logged something else");
    ensure!(line.contains("context deadline exceeded"), "kubelet logged {line}");
    let connect = probe(&addresses.local, &addresses.remote)?;
    let client = Ended { pid: kubelet.pid(), local: probed.local, error: probed.failure };
    let story =
        Collision::new(&addresses, &connect, &client).with("/owner/cmdline", json!(Kubelet::command_line()));
    assert_incidents(&traced, &[change(story, &line).hijacked(&resetting)?])
}

/// A probe that succeeds, one that is given the service's port and fails, and one more that succeeds.
fn fail_one_probe(kubelet: &mut Kubelet) -> Result<Probed> {
    let good = probe_once(kubelet)?;
    ensure!(good.failure.is_none(), "the first probe failed: {good:?}");
    // The kernel tries the parity of the lower end first, and there is one port of it.
    sysctl("net/ipv4/ip_local_port_range", "36704 36705")?;
    let bad = probe_once(kubelet);
    sysctl("net/ipv4/ip_local_port_range", "32768 60999")?;
    let bad = bad?;
    let good = probe_once(kubelet)?;
    ensure!(good.failure.is_none(), "the last probe failed: {good:?}");
    Ok(bad)
}

fn probe_once(kubelet: &mut Kubelet) -> Result<Probed> {
    kubelet.period()?.pop().context("kubelet has no probe")
}

/// A container on the node's network connects from a service port, as node-local-dns does in the seed: the container
/// is named, whatever cgroup version it is in.
pub(super) fn host_network_owner(lab: &mut Lab) -> Result<()> {
    let mut runtime = Runtime::start()?;
    let [_, backend] = run_both(&mut runtime)?;
    let resetting = netns::of_process(runtime.pid(backend.only_container()?)?);
    let addresses = Addresses::v4(36710);
    let mut connect = probe(&addresses.local, &addresses.remote)?;
    connect.name = "node-cache";
    let spec = node_local_dns(&connect.argument());
    let agent = runtime.create(&spec)?;
    let container = agent.only_container()?;
    ensure!(agent.ip.is_none(), "a pod on the node's network has no address of CNI's");
    connect.cgroup = format!("{}/{}", containers::cgroup_of(&spec), container.id);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let (pid, traced) = lab.trace(&[], 1, |lab| {
        runtime.start_container(container)?;
        let pid = runtime.pid(container);
        lab.note("containers", &containers::logs());
        pid
    })?;
    let client = Ended { pid, local: None, error: None };
    let expected = Collision::new(&addresses, &connect, &client)
        .with("/owner/exe", json!("/bin/node-cache"))
        .with("/owner/cmdline", json!(format!("/bin/node-cache connect {}", connect.argument())))
        .with("/owner/container_id", json!(container.id))
        .hijacked(&resetting)?;
    assert_incidents(&traced, &[expected])
}

fn node_local_dns(argument: &str) -> PodSpec {
    let command = ["/bin/node-cache", "connect", argument].map(str::to_owned);
    PodSpec {
        namespace: "kube-system",
        name: "node-local-dns-7zq4k",
        uid: "5b8c2b0e-3d0f-4c55-8f0e-0f6f8e2d7a11",
        host_network: true,
        containers: vec![ContainerSpec {
            name: "node-cache",
            image: NODE_CACHE,
            command: command.into(),
            port: None,
            probes: Vec::new(),
        }],
    }
}
