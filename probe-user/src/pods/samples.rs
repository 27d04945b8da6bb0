//! Pods for tests.

use crate::ipvs::table::Protocol;
use crate::kubernetes::pod::{Container, ContainerPort, Handler, Pod, ProbeSpec, ProbeType};
use crate::kubernetes::service::{KubeService, ServicePort, ServiceType};

/// A running pod with one container `nginx` without ports and probes.
pub(crate) fn pod(namespace: &str, name: &str, ips: &[&str]) -> Pod {
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: Some(format!("uid-{namespace}-{name}")),
        config_hash: None,
        node_name: Some("node-a".to_owned()),
        host_network: false,
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        phase: Some("Running".to_owned()),
        containers: vec![container("nginx")],
    }
}

pub(crate) fn container(name: &str) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(format!("example.net/{name}:1")),
        id: None,
        sidecar: false,
        started: None,
        ports: Vec::new(),
        probes: Vec::new(),
    }
}

pub(crate) fn tcp_port(port: u16) -> ContainerPort {
    ContainerPort { name: None, port, protocol: Protocol::Tcp }
}

pub(crate) fn http(port: u16) -> Handler {
    Handler::HttpGet {
        scheme: "HTTP".to_owned(),
        host: None,
        port: Some(port),
        path: "/".to_owned(),
        header_names: Vec::new(),
    }
}

pub(crate) fn tcp(host: Option<&str>, port: u16) -> Handler {
    Handler::TcpSocket { host: host.map(str::to_owned), port: Some(port) }
}

pub(crate) fn probe(kind: ProbeType, handler: Handler, period_s: u32, timeout_s: u32) -> ProbeSpec {
    ProbeSpec { kind, handler, period_s, timeout_s }
}

/// The pod of the incident as it was first seen.
pub(crate) fn nginx() -> Pod {
    let mut pod = pod("default", "nginx-5dfb7c896c-x2q2w", &["10.23.77.138"]);
    pod.uid = Some("3daea6ef-f286-43f2-8825-51edaa3994d3".to_owned());
    pod.containers[0].id = Some("a".repeat(64));
    pod.containers[0].ports = vec![tcp_port(80)];
    pod.containers[0].probes = vec![probe(ProbeType::Readiness, http(80), 10, 2)];
    pod
}

/// The backend of the incident as it was first seen.
pub(crate) fn dashboard() -> Pod {
    let mut pod = pod("kube-system", "kubernetes-dashboard-7d8f5d5c4-l9k2m", &["10.23.77.139"]);
    pod.containers = vec![container("dashboard")];
    pod.containers[0].ports = vec![tcp_port(8443)];
    pod
}

/// The Service of the incident as it was first seen.
pub(crate) fn dashboard_service() -> KubeService {
    node_port_service("kubernetes-dashboard", 36704)
}

pub(crate) fn node_port_service(name: &str, node_port: u16) -> KubeService {
    KubeService {
        namespace: Some("kube-system".to_owned()),
        name: name.to_owned(),
        kind: Some(ServiceType::NodePort),
        cluster_ips: vec!["10.96.7.7".parse().unwrap()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![ServicePort {
            name: Some("https".to_owned()),
            protocol: Protocol::Tcp,
            port: 443,
            node_port: Some(node_port),
        }],
        health_check_node_port: None,
    }
}

/// A pod on the host network of the node 10.23.77.129.
pub(crate) fn host_pod(name: &str, port: u16) -> Pod {
    let mut pod = pod("kube-system", name, &["10.23.77.129"]);
    pod.host_network = true;
    pod.containers[0].ports = vec![tcp_port(port)];
    pod
}
