//! Kubernetes Services. (A "service" with a small s is an IPVS virtual service: see [`crate::ipvs::table`].)

use std::net::IpAddr;

use crate::ipvs::table::Protocol;

/// One Service object, or one row of `kubectl get svc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeService {
    /// Namespace; `None` if the listing had no such column.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// `spec.type`; `None` if the listing had no such column.
    pub kind: Option<ServiceType>,
    /// `spec.clusterIPs`, without `None` (headless).
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.healthCheckNodePort`: a port that kube-proxy *listens* on, not an IPVS service.
    pub health_check_node_port: Option<u16>,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`, if it has one.
    pub name: Option<String>,
    /// TCP unless said otherwise.
    pub protocol: Protocol,
    /// Port on the cluster IP, host byte order.
    pub port: u16,
    /// `nodePort`, host byte order; `None` if it has none (0 in the object).
    pub node_port: Option<u16>,
}

/// `spec.type` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceType {
    /// Reachable in the cluster only.
    ClusterIp,
    /// Also on a port of every node.
    NodePort,
    /// Also through a load balancer.
    LoadBalancer,
    /// A DNS alias: no address, no port.
    ExternalName,
}
