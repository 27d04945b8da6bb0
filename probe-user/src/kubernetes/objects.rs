//! What is read of Service and Pod objects, and how it becomes [`KubeService`] and [`Pod`].
//!
//! Only the fields named here are ever taken out of the input: environment variables, header values, labels and
//! the rest are skipped by the parser.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::pod::Pod;
use super::pod_object::RawPod;
use super::service::{KubeService, ServicePort, ServiceType};
use crate::ipvs::table::{Protocol, canonical_ip};

/// Every field name that [`RawService`], [`RawPod`] and their parts know. Readers that build values first (YAML)
/// skip all others.
pub(super) const KNOWN_FIELDS: [&str; 55] = [
    "annotations",
    "clusterIP",
    "clusterIPs",
    "containerID",
    "containerPort",
    "containerStatuses",
    "containers",
    "ephemeralContainerStatuses",
    "ephemeralContainers",
    "exec",
    "externalIPs",
    "grpc",
    "healthCheckNodePort",
    "host",
    "hostIP",
    "hostIPs",
    "hostNetwork",
    "httpGet",
    "httpHeaders",
    "image",
    "ingress",
    "initContainerStatuses",
    "initContainers",
    "ip",
    "kind",
    "kubernetes.io/config.hash",
    "kubernetes.io/config.mirror",
    "livenessProbe",
    "loadBalancer",
    "metadata",
    "name",
    "namespace",
    "nodeName",
    "nodePort",
    "path",
    "periodSeconds",
    "phase",
    "podIP",
    "podIPs",
    "port",
    "ports",
    "protocol",
    "readinessProbe",
    "restartPolicy",
    "scheme",
    "service",
    "spec",
    "started",
    "startupProbe",
    "status",
    "tcpSocket",
    "timeoutSeconds",
    "type",
    "uid",
    "template",
];

/// A kind of object that lists are read for.
pub(super) trait Object: Sized {
    /// `kind` of the object.
    const KIND: &'static str;
    /// Its fields as they are written.
    type Raw: DeserializeOwned;
    /// The `kind` that the object itself gives; the items of a typed list have none.
    fn kind(raw: &Self::Raw) -> Option<&str>;
    /// The object with its defaults filled in.
    fn from_raw(raw: Self::Raw) -> Result<Self, String>;
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawMetadata {
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) annotations: Option<RawAnnotations>,
}

#[derive(Deserialize, Default)]
pub(super) struct RawAnnotations {
    #[serde(rename = "kubernetes.io/config.hash")]
    pub(super) config_hash: Option<String>,
    #[serde(rename = "kubernetes.io/config.mirror")]
    pub(super) config_mirror: Option<String>,
}

/// Kind and name of any object, for messages about one that cannot be read.
#[derive(Deserialize, Default)]
pub(super) struct Head {
    pub(super) kind: Option<String>,
    pub(super) metadata: Option<HeadMetadata>,
}

#[derive(Deserialize, Default)]
pub(super) struct HeadMetadata {
    namespace: Option<String>,
    name: Option<String>,
}

impl Head {
    /// `namespace/name`, as far as known.
    pub(super) fn name(&self) -> String {
        let metadata = self.metadata.as_ref();
        let name = metadata.and_then(|metadata| metadata.name.as_deref()).unwrap_or_default();
        match metadata.and_then(|metadata| metadata.namespace.as_deref()) {
            Some(namespace) if !name.is_empty() => format!("{namespace}/{name}"),
            _ => name.to_owned(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct RawService {
    kind: Option<String>,
    metadata: RawMetadata,
    spec: RawServiceSpec,
    status: Option<RawServiceStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawServiceSpec {
    r#type: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    ports: Option<Vec<RawServicePort>>,
    health_check_node_port: Option<i64>,
    /// Only pods have these.
    containers: Option<IgnoredAny>,
    /// Only workloads have this.
    template: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawServicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: i64,
    node_port: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawServiceStatus {
    load_balancer: Option<RawLoadBalancer>,
}

#[derive(Deserialize)]
struct RawLoadBalancer {
    ingress: Option<Vec<RawAddress>>,
}

/// `{"ip": "…"}`, as in `podIPs` and `ingress`; an ingress may have a host name instead.
#[derive(Deserialize)]
pub(super) struct RawAddress {
    pub(super) ip: Option<String>,
}

impl Object for KubeService {
    const KIND: &'static str = "Service";
    type Raw = RawService;

    fn kind(raw: &RawService) -> Option<&str> {
        raw.kind.as_deref()
    }

    fn from_raw(raw: RawService) -> Result<Self, String> {
        let spec = raw.spec;
        if spec.containers.is_some() || spec.template.is_some() {
            return Err("this is no Service: it has containers".to_owned());
        }
        let cluster_ips = match spec.cluster_ips {
            Some(several) if !several.is_empty() => several,
            _ => spec.cluster_ip.into_iter().collect(),
        };
        let ingress = raw.status.and_then(|status| status.load_balancer).and_then(|lb| lb.ingress);
        let ingress = ingress.unwrap_or_default().into_iter().filter_map(|address| address.ip);
        Ok(Self {
            namespace: raw.metadata.namespace,
            name: raw.metadata.name.filter(|name| !name.is_empty()).ok_or("it has no name")?,
            kind: Some(spec.r#type.as_deref().map_or(Ok(ServiceType::ClusterIp), service_type)?),
            cluster_ips: addresses(cluster_ips.into_iter().filter(|ip| ip != "None"), "cluster IP")?,
            external_ips: addresses(spec.external_ips.unwrap_or_default(), "external IP")?,
            load_balancer_ips: addresses(ingress, "load balancer IP")?,
            ports: spec
                .ports
                .unwrap_or_default()
                .into_iter()
                .map(RawServicePort::into_port)
                .collect::<Result<_, _>>()?,
            health_check_node_port: optional_port(spec.health_check_node_port, "healthCheckNodePort")?,
        })
    }
}

impl RawServicePort {
    fn into_port(self) -> Result<ServicePort, String> {
        Ok(ServicePort {
            name: self.name.filter(|name| !name.is_empty()),
            protocol: protocol(self.protocol.as_deref())?,
            port: port(self.port, "port")?,
            node_port: optional_port(self.node_port, "nodePort")?,
        })
    }
}

impl Object for Pod {
    const KIND: &'static str = "Pod";
    type Raw = RawPod;

    fn kind(raw: &RawPod) -> Option<&str> {
        raw.kind.as_deref()
    }

    fn from_raw(raw: RawPod) -> Result<Self, String> {
        raw.into_pod()
    }
}

/// `spec.type`, as objects and listings write it.
pub(super) fn service_type(word: &str) -> Result<ServiceType, String> {
    match word {
        "ClusterIP" | "" => Ok(ServiceType::ClusterIp),
        "NodePort" => Ok(ServiceType::NodePort),
        "LoadBalancer" => Ok(ServiceType::LoadBalancer),
        "ExternalName" => Ok(ServiceType::ExternalName),
        other => Err(format!("unknown type of Service `{other}`")),
    }
}

/// The protocol of a port; TCP if none is given.
pub(super) fn protocol(word: Option<&str>) -> Result<Protocol, String> {
    match word {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("unknown protocol `{other}`")),
    }
}

/// A port number from 1 to 65535.
pub(super) fn port(number: i64, field: &str) -> Result<u16, String> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{field} {number} is not between 1 and 65535"))
}

/// A port number, or `None` for 0, which means that there is none.
fn optional_port(number: Option<i64>, field: &str) -> Result<Option<u16>, String> {
    number.filter(|number| *number != 0).map(|number| port(number, field)).transpose()
}

/// Addresses, each once; empty strings are left out.
pub(super) fn addresses(texts: impl IntoIterator<Item = String>, field: &str) -> Result<Vec<IpAddr>, String> {
    let mut out = Vec::new();
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        let ip = text.parse().map(canonical_ip).map_err(|_| format!("{field} `{text}` is no address"))?;
        if !out.contains(&ip) {
            out.push(ip);
        }
    }
    Ok(out)
}
