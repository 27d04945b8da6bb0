//! The seed's story: kubelet probes nginx, the kernel gives the connect a source port that is a NodePort of the
//! dashboard's, and kubelet logs that nginx is not ready.

use anyhow::{Context, Result, ensure};

use crate::containers::{ContainerSpec, NGINX, Pod, PodSpec, ProbeSpec};
use crate::kubelet::{Kubelet, Probed};
use crate::node::{BACKEND, POD};
use crate::process::sysctl;

/// NodePort of the dashboard's Service.
pub const PORT: u16 = 36704;

/// The seed's probe.
pub const READINESS: ProbeSpec =
    ProbeSpec { kind: "Readiness", path: "/", port: 80, period_s: 10, timeout_s: 2 };

/// The seed's probed pod.
pub fn nginx() -> PodSpec {
    PodSpec {
        namespace: "default",
        name: "nginx-5dfb7c896c-x2q2w",
        uid: "3daea6ef-f286-43f2-8825-51edaa3994d3",
        host_network: false,
        containers: vec![ContainerSpec { probes: vec![READINESS], ..web_server("nginx", 80) }],
    }
}

/// What the seed's NodePort leads to.
pub fn dashboard() -> PodSpec {
    PodSpec {
        namespace: "kube-system",
        name: "kubernetes-dashboard-6b79449649-8kz5w",
        uid: "0c1f5d0e-7a52-4a3e-9a55-c7f5b0f2a9d1",
        host_network: false,
        containers: vec![web_server("kubernetes-dashboard", 8443)],
    }
}

/// A container that serves a page on a port.
pub fn web_server(name: &'static str, port: u16) -> ContainerSpec {
    let command = ["/bin/httpd", "-f", "-p", &port.to_string(), "-h", "/www"].map(str::to_owned);
    ContainerSpec { name, image: NGINX, command: command.into(), port: Some(port), probes: Vec::new() }
}

/// Both pods, at the lab's addresses, where namespaces stand for them: their containers are not known.
pub fn without_containers() -> [Pod; 2] {
    [(nginx(), POD), (dashboard(), BACKEND)].map(|(spec, ip)| Pod {
        spec,
        sandbox: String::new(),
        ip: Some(ip.to_owned()),
        containers: Vec::new(),
    })
}

/// A probe that succeeds, one that is given the service's port and fails, and one more that succeeds. Returns the
/// second; `each` is shown all three.
pub fn fail_one_probe(kubelet: &mut Kubelet, mut each: impl FnMut(&Probed)) -> Result<Probed> {
    let good = probe_once(kubelet)?;
    each(&good);
    ensure!(good.failure.is_none(), "the first probe failed: {good:?}");
    // The kernel tries the parity of the lower end first, and there is one port of it.
    sysctl("net/ipv4/ip_local_port_range", &format!("{PORT} {}", PORT + 1))?;
    let bad = probe_once(kubelet);
    sysctl("net/ipv4/ip_local_port_range", "32768 60999")?;
    let bad = bad?;
    each(&bad);
    let good = probe_once(kubelet)?;
    each(&good);
    ensure!(good.failure.is_none(), "the last probe failed: {good:?}");
    Ok(bad)
}

fn probe_once(kubelet: &mut Kubelet) -> Result<Probed> {
    kubelet.period()?.pop().context("kubelet has no probe")
}
