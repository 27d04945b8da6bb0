//! Collisions among containerd's pods.

use anyhow::{Result, ensure};
use serde_json::json;

use super::expected::{Addresses, Collision, timed_out};
use crate::containers::{self, ContainerSpec, NGINX, NODE_CACHE, Pod, PodSpec, Runtime};
use crate::lab::{Lab, assert_incidents, probe, wait_until};
use crate::netns;
use crate::node::{BACKEND, POD};
use crate::server::answers;

/// The seed's probed pod.
fn nginx() -> PodSpec {
    PodSpec {
        namespace: "default",
        name: "nginx-5dfb7c896c-x2q2w",
        uid: "3daea6ef-f286-43f2-8825-51edaa3994d3",
        host_network: false,
        containers: vec![web_server("nginx", 80)],
    }
}

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
    ContainerSpec { name, image: NGINX, command: command.into() }
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
    let [container] = backend.containers.as_slice() else { anyhow::bail!("one container was asked for") };
    let resetting = netns::of_process(runtime.pid(container)?);
    let addresses = Addresses::v4(36704);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(&[], 1, |_| connect.run())?;
    lab.note("containers", &containers::logs());
    timed_out(&client)?;
    assert_incidents(&traced, &[Collision::new(&addresses, &connect, &client).hijacked(&resetting)?])
}

/// A container on the node's network connects from a service port, as node-local-dns does in the seed: the container
/// is named, whatever cgroup version it is in.
pub(super) fn host_network_owner(lab: &mut Lab) -> Result<()> {
    let mut runtime = Runtime::start()?;
    let [_, backend] = run_both(&mut runtime)?;
    let [container] = backend.containers.as_slice() else { anyhow::bail!("one container was asked for") };
    let resetting = netns::of_process(runtime.pid(container)?);
    let addresses = Addresses::v4(36710);
    let mut connect = probe(&addresses.local, &addresses.remote)?;
    connect.name = "node-cache";
    let spec = node_local_dns(&connect.argument());
    let agent = runtime.create(&spec)?;
    let [container] = agent.containers.as_slice() else { anyhow::bail!("one container was asked for") };
    ensure!(agent.ip.is_none(), "a pod on the node's network has no address of CNI's");
    connect.cgroup = format!("{}/{}", containers::cgroup_of(&spec), container.id);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let (pid, traced) = lab.trace(&[], 1, |lab| {
        runtime.start_container(container)?;
        let pid = runtime.pid(container);
        lab.note("containers", &containers::logs());
        pid
    })?;
    let client = crate::client::Ended { pid, local: None, error: None };
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
        containers: vec![ContainerSpec { name: "node-cache", image: NODE_CACHE, command: command.into() }],
    }
}
