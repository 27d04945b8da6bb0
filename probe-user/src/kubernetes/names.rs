//! Which Kubernetes Service an IPVS service belongs to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::service::{KubeService, ServicePort};
use crate::ipvs::table::{Protocol, canonical, canonical_ip};

/// Which of a Service's addresses it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KindOfAddress {
    /// Its cluster IP.
    ClusterIp,
    /// A node port, on an address of the node.
    NodePort,
    /// An address that its load balancer gave it.
    LoadBalancer,
    /// One of `spec.externalIPs`.
    ExternalIp,
    /// `spec.healthCheckNodePort`: kube-proxy listens there, it is no IPVS service.
    HealthCheckNodePort,
}

impl fmt::Display for KindOfAddress {
    /// As people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIp => "external IP",
            Self::HealthCheckNodePort => "healthCheckNodePort",
        })
    }
}

/// One port of a Service, as people name it: `kube-system/kubernetes-dashboard:443`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Namespace; `None` if the listing had none.
    pub namespace: Option<String>,
    /// Name of the Service.
    pub name: String,
    /// Name of the port, if it has one.
    pub port_name: Option<String>,
    /// The Service's own port (not the node port); for a healthCheckNodePort that port. Host byte order.
    pub port: u16,
    /// Through which kind of address it is reached.
    pub kind: KindOfAddress,
}

impl ServiceName {
    fn new(service: &KubeService, port: &ServicePort, kind: KindOfAddress) -> Self {
        Self {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port_name: port.name.clone(),
            port: port.port,
            kind,
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        match &self.port_name {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// An index from addresses to the Services of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ServiceNames {
    /// Cluster IPs, external IPs, load balancer IPs.
    exact: HashMap<(Protocol, SocketAddr), Vec<ServiceName>>,
    node_ports: HashMap<(Protocol, u16), Vec<ServiceName>>,
    cluster_ips: HashSet<IpAddr>,
    /// External and load balancer IPs: may also be addresses of the node.
    other_ips: HashSet<IpAddr>,
}

impl ServiceNames {
    /// An index of `services`.
    pub fn new(services: &[KubeService]) -> Self {
        let mut names = Self::default();
        for service in services {
            names.cluster_ips.extend(service.cluster_ips.iter().copied().map(canonical_ip));
            let others = service.external_ips.iter().chain(&service.load_balancer_ips);
            names.other_ips.extend(others.copied().map(canonical_ip));
            names.add_addresses(service);
            for (protocol, port, name) in node_claims(service) {
                push_once(names.node_ports.entry((protocol, port)).or_default(), name);
            }
        }
        names
    }

    fn add_addresses(&mut self, service: &KubeService) {
        let kinds = [
            (KindOfAddress::ClusterIp, &service.cluster_ips),
            (KindOfAddress::LoadBalancer, &service.load_balancer_ips),
            (KindOfAddress::ExternalIp, &service.external_ips),
        ];
        for port in &service.ports {
            for (kind, ips) in kinds {
                for ip in ips {
                    let address = canonical(SocketAddr::new(*ip, port.port));
                    let name = ServiceName::new(service, port, kind);
                    push_once(self.exact.entry((port.protocol, address)).or_default(), name);
                }
            }
        }
    }

    /// True if there are no Services with addresses or node ports.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.node_ports.is_empty()
    }

    /// The Services that `address` belongs to: none if unknown, several if ambiguous.
    ///
    /// A node port is one only on an address of the node: in `node_addresses` or on loopback; where the node's
    /// addresses are not known, on any address that is no Service's own. It never is one on a cluster IP, even though
    /// the node has that on its device `kube-ipvs0` (kubernetes/kubernetes#132068).
    pub fn name_of(
        &self,
        protocol: Protocol,
        address: SocketAddr,
        node_addresses: Option<&[IpAddr]>,
    ) -> Vec<ServiceName> {
        let address = canonical(address);
        if let Some(found) = self.exact.get(&(protocol, address)) {
            return found.clone();
        }
        let ip = address.ip();
        let on_node = !self.cluster_ips.contains(&ip)
            && match node_addresses {
                Some(known) => ip.is_loopback() || known.iter().any(|known| canonical_ip(*known) == ip),
                None => !self.other_ips.contains(&ip),
            };
        let found = self.node_ports.get(&(protocol, address.port())).filter(|_| on_node);
        found.cloned().unwrap_or_default()
    }
}

/// Ports of nodes that a Service claims.
fn node_claims(service: &KubeService) -> impl Iterator<Item = (Protocol, u16, ServiceName)> + '_ {
    let node_ports = service.ports.iter().filter_map(|port| {
        Some((port.protocol, port.node_port?, ServiceName::new(service, port, KindOfAddress::NodePort)))
    });
    let health_check = service.health_check_node_port.map(|port| {
        let name = ServiceName {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port_name: None,
            port,
            kind: KindOfAddress::HealthCheckNodePort,
        };
        (Protocol::Tcp, port, name)
    });
    node_ports.chain(health_check)
}

/// The same Service may be listed twice, in files put together.
fn push_once(names: &mut Vec<ServiceName>, name: ServiceName) {
    if !names.contains(&name) {
        names.push(name);
    }
}

/// A port of nodes that is claimed more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// Protocol.
    pub protocol: Protocol,
    /// The port, host byte order.
    pub port: u16,
    /// Who claims it; two or more.
    pub claims: Vec<ServiceName>,
}

/// Ports of nodes that two claim: node ports, and the node port of one Service that is the healthCheckNodePort of
/// another (kubernetes/kubernetes#63617, #60749). TCP and UDP of one number are two ports. By number.
pub fn duplicates(services: &[KubeService]) -> Vec<Duplicate> {
    let mut claims: BTreeMap<(u16, Protocol), Vec<ServiceName>> = BTreeMap::new();
    for (protocol, port, name) in services.iter().flat_map(node_claims) {
        push_once(claims.entry((port, protocol)).or_default(), name);
    }
    claims
        .into_iter()
        .filter(|(_, claims)| claims.len() > 1)
        .map(|((port, protocol), claims)| Duplicate { protocol, port, claims })
        .collect()
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
