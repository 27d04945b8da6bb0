//! Collisions among containerd's pods.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::expected::{Addresses, Collision, timed_out};
use crate::client::Ended;
use crate::containers::{self, ContainerSpec, NODE_CACHE, NODE_NAME, Pod, PodSpec, ProbeSpec, Runtime};
use crate::expect::differences;
use crate::kubelet::{self, Kubelet};
use crate::lab::{Lab, assert_incidents, probe, read, wait_until};
use crate::netns;
use crate::node::{BACKEND, NODE, POD};
use crate::prober::Release;
use crate::server::answers;
use crate::story::{PORT, READINESS, dashboard, fail_one_probe, nginx, web_server};

/// The probed pod and the backend's, both serving.
pub(super) fn run_both(runtime: &mut Runtime) -> Result<[Pod; 2]> {
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
    let addresses = Addresses::v4(PORT);
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

/// The same with what the API server tells, Services included.
pub(super) fn seed_story_from_the_api_server(lab: &mut Lab) -> Result<()> {
    let arguments = [
        "--pods",
        "api",
        "--kubeconfig",
        kubelet::KUBECONFIG,
        "--node-name",
        NODE_NAME,
        "--kubelet-log",
        kubelet::LOG,
    ];
    seed_story(lab, Release::V1_29, &arguments, |story, line| {
        logged(with_service(with_names(story, "proven", "")), line)
    })
}

/// Adds the probe, and the backend's pod.
pub(super) fn with_names(story: Collision, confidence: &str, doubt: &str) -> Collision {
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
pub(super) fn with_service(story: Collision) -> Collision {
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

/// `portclash pods` knows the pods that run, from each source, and says what a source could not tell.
pub(super) fn listed(lab: &mut Lab) -> Result<()> {
    let mut runtime = Runtime::start()?;
    let [nginx, dashboard] = run_both(&mut runtime)?;
    let exporter = runtime.run(&node_exporter())?;
    let _kubelet = Kubelet::start(Release::V1_29, &[&nginx, &dashboard, &exporter])?;
    let file = format!("file:{}", kubelet::LIST);
    let api = ["--pods", "api", "--kubeconfig", kubelet::KUBECONFIG, "--node-name", NODE_NAME];
    let sources: [(&str, &[&str]); 3] =
        [("kubelet", &["--pods", "kubelet"]), ("file", &["--pods", &file]), ("api", &api)];
    for (source, arguments) in sources {
        let output = list_pods(lab, "json", arguments)?;
        let lines = serde_json::Deserializer::from_str(&output.text).into_iter();
        let probes = Value::Array(lines.collect::<Result<_, _>>()?);
        let expected = json!([
            probe_line(&nginx, &READINESS, POD, source),
            probe_line(&exporter, &LIVENESS, NODE, source),
        ]);
        let found = differences(&expected, &probes);
        ensure!(found.is_empty(), "{source}: not as expected:\n{}", found.join("\n"));
        ensure!(
            output.status == Some(0),
            "{source}: exit status is {:?}: {}",
            output.status,
            output.messages
        );
    }
    // The runtime knows pods and addresses, but no probes.
    let output = list_pods(lab, "text", &["--pods", "cri"])?;
    for pod in [&nginx, &dashboard, &exporter] {
        let name = format!("{}/{}  ", pod.spec.namespace, pod.spec.name);
        let line =
            output.text.lines().find(|line| line.starts_with(&name)).with_context(|| format!("no {name}"))?;
        let address = pod.ip.as_deref().unwrap_or("host network");
        ensure!(line.contains(address), "{line:?} is without {address}");
    }
    ensure!(output.text.contains("the container runtime does not know probes"), "{}", output.text);
    // With another token kubelet tells nothing, and that is said.
    let wrong = "/run/kubelet/another-token";
    std::fs::write(wrong, "another")?;
    let output = list_pods(lab, "text", &["--pods", "kubelet", "--kubelet-token", wrong, "--wait", "3s"])?;
    ensure!(output.status == Some(2), "exit status is {:?}", output.status);
    ensure!(output.messages.contains("401 Unauthorized"), "{}", output.messages);
    ensure!(!output.messages.contains("another\n"), "the token is shown: {}", output.messages);
    Ok(())
}

/// What a command said.
struct Said {
    text: String,
    messages: String,
    status: Option<i32>,
}

fn list_pods(lab: &mut Lab, format: &str, arguments: &[&str]) -> Result<Said> {
    let output = Command::new("portclash").args(["pods", "-o", format]).args(arguments).output()?;
    let said = Said {
        text: String::from_utf8(output.stdout)?,
        messages: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status.code(),
    };
    lab.note(&format!("portclash pods {}", arguments.join(" ")), &format!("{}{}", said.text, said.messages));
    Ok(said)
}

fn probe_line(pod: &Pod, probe: &ProbeSpec, ip: &str, source: &str) -> Value {
    json!({
        "schema": "portclash.probe/v1",
        "pod": {"namespace": pod.spec.namespace, "name": pod.spec.name, "uid": pod.spec.uid},
        "container": pod.spec.containers.first().map(|container| container.name),
        "type": probe.kind.to_lowercase(),
        "handler": "httpGet",
        "target": format!("{ip}:{}", probe.port),
        "path": probe.path,
        "period_s": probe.period_s,
        "timeout_s": probe.timeout_s,
        "host_network": pod.spec.host_network,
        "source": source,
    })
}

/// A pod on the node's network.
fn node_exporter() -> PodSpec {
    PodSpec {
        namespace: "monitoring",
        name: "node-exporter-9x7lm",
        uid: "77a1c3a2-5a0e-4b0c-9f57-d0c1a9e0b3c4",
        host_network: true,
        containers: vec![ContainerSpec { probes: vec![LIVENESS], ..web_server("node-exporter", 9100) }],
    }
}

/// Its probe.
const LIVENESS: ProbeSpec = ProbeSpec { kind: "Liveness", path: "/", port: 9100, period_s: 20, timeout_s: 1 };

fn seed_story(
    lab: &mut Lab,
    release: Release,
    arguments: &[&str],
    change: impl FnOnce(Collision, &str) -> Collision,
) -> Result<()> {
    let mut runtime = Runtime::start()?;
    let [nginx, backend] = run_both(&mut runtime)?;
    let resetting = netns::of_process(runtime.pid(backend.only_container()?)?);
    let addresses = Addresses::v4(PORT);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut kubelet = Kubelet::start(release, &[&nginx, &backend])?;
    let (probed, traced) = lab.trace(arguments, 1, |_| fail_one_probe(&mut kubelet, |_| {}))?;
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
    let (pid, traced) = lab.trace(&["--pods", "cri"], 1, |lab| {
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
        .with("/owner/pod", json!({"namespace": spec.namespace, "name": spec.name, "uid": spec.uid}))
        .noted(&[
            format!("it runs in container node-cache, image {NODE_CACHE}"),
            format!("{POD}:80 is pod {}/{}", nginx().namespace, nginx().name),
            format!("backend {BACKEND}:8443 is pod {}/{}", dashboard().namespace, dashboard().name),
        ])
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
