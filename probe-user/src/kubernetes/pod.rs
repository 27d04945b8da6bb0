//! Pods with their containers and probes.

use std::net::IpAddr;

use crate::ipvs::table::Protocol;

/// One Pod, without anything secret: neither environment nor header values are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: Option<String>,
    /// Annotation `kubernetes.io/config.hash` or `config.mirror`: what the cgroup of a static pod is named after, instead of its uid.
    pub config_hash: Option<String>,
    /// `spec.nodeName`.
    pub node_name: Option<String>,
    /// Whether it shares the node's network namespace.
    pub host_network: bool,
    /// `status.podIPs`, else `status.podIP`; the node's own addresses for a host network pod.
    pub ips: Vec<IpAddr>,
    /// `status.phase`.
    pub phase: Option<String>,
    /// Containers; init containers only if they are native sidecars (`restartPolicy: Always`).
    pub containers: Vec<Container>,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image as the pod names it.
    pub image: Option<String>,
    /// Id at the runtime, without `containerd://`; 64 hex digits.
    pub id: Option<String>,
    /// An init container with `restartPolicy: Always`.
    pub sidecar: bool,
    /// `status.containerStatuses[].started`: whether its startup probe, if it has one, has succeeded. `None`: not told.
    pub started: Option<bool>,
    /// `ports`: what a probe's named port refers to.
    pub ports: Vec<ContainerPort>,
    /// Probes; empty also if the source has none to tell (CRI): see the index's `knows_probes`.
    pub probes: Vec<ProbeSpec>,
}

/// One entry of a container's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name, if it has one.
    pub name: Option<String>,
    /// Host byte order.
    pub port: u16,
    /// TCP unless said otherwise.
    pub protocol: Protocol,
}

/// A liveness, readiness or startup probe with its defaults filled in as the API server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSpec {
    /// Which of the three.
    pub kind: ProbeType,
    /// What it does.
    pub handler: Handler,
    /// `periodSeconds`, default 10.
    pub period_s: u32,
    /// `timeoutSeconds`, default 1.
    pub timeout_s: u32,
}

/// Which probe of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeType {
    /// A failure restarts the container.
    Liveness,
    /// A failure takes the pod out of its Services.
    Readiness,
    /// Runs before the other two.
    Startup,
}

/// What a probe does. A port that could not be resolved (an unknown name) is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// `httpGet`.
    HttpGet {
        /// `HTTP` or `HTTPS`.
        scheme: String,
        /// `host`: overrides the pod's address.
        host: Option<String>,
        /// Port, host byte order; a named port is looked up in the container.
        port: Option<u16>,
        /// Path, `/` by default.
        path: String,
        /// Names of request headers, never their values.
        header_names: Vec<String>,
    },
    /// `tcpSocket`.
    TcpSocket {
        /// `host`: overrides the pod's address.
        host: Option<String>,
        /// Port, host byte order.
        port: Option<u16>,
    },
    /// `grpc`.
    Grpc {
        /// Port, host byte order.
        port: Option<u16>,
        /// `service`, if named.
        service: Option<String>,
    },
    /// `exec`: no network.
    Exec,
}
