//! What is read of Pod objects, and how it becomes a [`Pod`].

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::objects::{RawAddress, RawMetadata, addresses, port, protocol};
use super::pod::{Container, ContainerPort, Handler, Pod, ProbeSpec, ProbeType};

/// `periodSeconds` where the object has none.
const DEFAULT_PERIOD_S: u32 = 10;
/// `timeoutSeconds` where the object has none.
const DEFAULT_TIMEOUT_S: u32 = 1;

#[derive(Deserialize)]
pub(super) struct RawPod {
    pub(super) kind: Option<String>,
    metadata: RawMetadata,
    spec: RawPodSpec,
    status: Option<RawPodStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Vec<RawContainer>,
    init_containers: Option<Vec<RawContainer>>,
    ephemeral_containers: Option<Vec<RawContainer>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct RawPodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<RawAddress>>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "hostIPs")]
    host_ips: Option<Vec<RawAddress>>,
    container_statuses: Option<Vec<RawContainerStatus>>,
    init_container_statuses: Option<Vec<RawContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<RawContainerStatus>>,
}

#[derive(Deserialize)]
struct RawContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    started: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawContainer {
    name: String,
    image: Option<String>,
    restart_policy: Option<String>,
    ports: Option<Vec<RawContainerPort>>,
    liveness_probe: Option<RawProbe>,
    readiness_probe: Option<RawProbe>,
    startup_probe: Option<RawProbe>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawContainerPort {
    name: Option<String>,
    container_port: i64,
    protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProbe {
    http_get: Option<RawHttpGet>,
    tcp_socket: Option<RawTcpSocket>,
    grpc: Option<RawGrpc>,
    exec: Option<IgnoredAny>,
    period_seconds: Option<i64>,
    timeout_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttpGet {
    scheme: Option<String>,
    host: Option<String>,
    port: RawPort,
    path: Option<String>,
    http_headers: Option<Vec<RawHeader>>,
}

/// The value of a header is not even a field here: it may be a secret.
#[derive(Deserialize)]
struct RawHeader {
    name: String,
}

#[derive(Deserialize)]
struct RawTcpSocket {
    host: Option<String>,
    port: RawPort,
}

#[derive(Deserialize)]
struct RawGrpc {
    port: RawPort,
    service: Option<String>,
}

/// IntOrString.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawPort {
    Number(i64),
    Name(String),
}

impl RawPod {
    pub(super) fn into_pod(self) -> Result<Pod, String> {
        let metadata = self.metadata;
        let status = self.status.unwrap_or_default();
        let host_network = self.spec.host_network.unwrap_or_default();
        let ips = status.ips(host_network)?;
        let annotations = metadata.annotations.unwrap_or_default();
        let mut containers = Vec::with_capacity(self.spec.containers.len());
        for raw in self.spec.containers {
            containers.push(raw.into_container(status.container_statuses.as_deref(), false)?);
        }
        for raw in self.spec.init_containers.into_iter().flatten() {
            // kubernetes/kubernetes#122902: only native sidecars run beside the others and have probes.
            if raw.restart_policy.as_deref() == Some("Always") {
                containers.push(raw.into_container(status.init_container_statuses.as_deref(), true)?);
            }
        }
        for raw in self.spec.ephemeral_containers.into_iter().flatten() {
            containers.push(raw.into_container(status.ephemeral_container_statuses.as_deref(), false)?);
        }
        Ok(Pod {
            namespace: metadata
                .namespace
                .filter(|namespace| !namespace.is_empty())
                .ok_or("it has no namespace")?,
            name: metadata.name.filter(|name| !name.is_empty()).ok_or("it has no name")?,
            uid: metadata.uid,
            config_hash: annotations.config_hash.or(annotations.config_mirror),
            node_name: self.spec.node_name,
            host_network,
            ips,
            phase: status.phase,
            containers,
        })
    }
}

impl RawPodStatus {
    fn ips(&self, host_network: bool) -> Result<Vec<std::net::IpAddr>, String> {
        let listed = |many: &Option<Vec<RawAddress>>, one: &Option<String>, field: &str| {
            let many = many.iter().flatten().filter_map(|address| address.ip.clone());
            let found = addresses(many, field)?;
            if found.is_empty() { addresses(one.clone(), field) } else { Ok(found) }
        };
        let ips = listed(&self.pod_ips, &self.pod_ip, "pod IP")?;
        if ips.is_empty() && host_network {
            listed(&self.host_ips, &self.host_ip, "host IP")
        } else {
            Ok(ips)
        }
    }
}

impl RawContainer {
    fn into_container(
        self,
        statuses: Option<&[RawContainerStatus]>,
        sidecar: bool,
    ) -> Result<Container, String> {
        let ports: Vec<ContainerPort> =
            self.ports.into_iter().flatten().map(RawContainerPort::into_port).collect::<Result<_, _>>()?;
        let probes = [
            (ProbeType::Liveness, self.liveness_probe),
            (ProbeType::Readiness, self.readiness_probe),
            (ProbeType::Startup, self.startup_probe),
        ];
        let probes = probes.into_iter().filter_map(|(kind, probe)| probe?.into_spec(kind, &ports)).collect();
        let status = statuses.iter().copied().flatten().find(|status| status.name == self.name);
        let id = status.and_then(|status| container_id(status.container_id.as_deref()?));
        let started = status.and_then(|status| status.started);
        Ok(Container { name: self.name, image: self.image, id, sidecar, started, ports, probes })
    }
}

/// The id of `containerd://0123…`: 64 hexadecimal digits, or nothing that a cgroup could be named after.
fn container_id(text: &str) -> Option<String> {
    let id = text.split_once("://").map_or(text, |(_, id)| id);
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_ascii_lowercase())
}

impl RawContainerPort {
    fn into_port(self) -> Result<ContainerPort, String> {
        Ok(ContainerPort {
            name: self.name.filter(|name| !name.is_empty()),
            port: port(self.container_port, "containerPort")?,
            protocol: protocol(self.protocol.as_deref())?,
        })
    }
}

impl RawProbe {
    /// `None` for a probe that does nothing, which the API server does not let in.
    fn into_spec(self, kind: ProbeType, ports: &[ContainerPort]) -> Option<ProbeSpec> {
        let handler = if let Some(http) = self.http_get {
            Handler::HttpGet {
                scheme: text(http.scheme).map_or_else(|| "HTTP".to_owned(), |s| s.to_ascii_uppercase()),
                host: text(http.host),
                port: http.port.resolve(ports),
                path: text(http.path).map_or_else(|| "/".to_owned(), without_query),
                header_names: http.http_headers.into_iter().flatten().map(|header| header.name).collect(),
            }
        } else if let Some(tcp) = self.tcp_socket {
            Handler::TcpSocket { host: text(tcp.host), port: tcp.port.resolve(ports) }
        } else if let Some(grpc) = self.grpc {
            Handler::Grpc { port: grpc.port.resolve(ports), service: text(grpc.service) }
        } else {
            self.exec?;
            Handler::Exec
        };
        Some(ProbeSpec {
            kind,
            handler,
            period_s: seconds(self.period_seconds, DEFAULT_PERIOD_S),
            timeout_s: seconds(self.timeout_seconds, DEFAULT_TIMEOUT_S),
        })
    }
}

impl RawPort {
    /// A name is looked up among the container's ports, then read as a number, as kubelet does
    /// (pkg/probe/util.go `ResolveContainerPort`).
    fn resolve(self, ports: &[ContainerPort]) -> Option<u16> {
        match self {
            Self::Number(number) => port(number, "port").ok(),
            Self::Name(name) => match ports.iter().find(|port| port.name.as_ref() == Some(&name)) {
                Some(named) => Some(named.port),
                None => name.parse().ok().filter(|port| *port != 0),
            },
        }
    }
}

fn text(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

/// A query may hold a token.
fn without_query(path: String) -> String {
    match path.split_once('?') {
        Some((path, _)) => format!("{path}?…"),
        None => path,
    }
}

/// Zero and less mean the default, as for the API server.
fn seconds(value: Option<i64>, default: u32) -> u32 {
    value.filter(|value| *value > 0).and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
}
