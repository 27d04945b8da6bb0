//! Which services a connect of this node can collide with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::node::Node;
use super::traffic::Traffic;
use crate::ipvs::table::{Protocol, ServiceId, ServiceTable, canonical_ip};
use crate::kubernetes::names::ServiceNames;
use crate::node::addresses::{Interface, InterfaceKind, LocalAddresses};
use crate::node::port_ranges::PortRanges;

/// `--service-node-port-range` of the API server where nobody sets it.
pub const DEFAULT_NODE_PORTS: (u16, u16) = (30_000, 32_767);

/// The NodePort range, and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePorts {
    /// Somebody said it.
    Given(u16, u16),
    /// Kubernetes' default; nothing that was read contradicts it.
    Default,
    /// Nobody said it, and services lie outside the default.
    Unknown,
}

impl NodePorts {
    /// Both ends.
    pub const fn range(self) -> Option<(u16, u16)> {
        match self {
            Self::Given(first, last) => Some((first, last)),
            Self::Default => Some(DEFAULT_NODE_PORTS),
            Self::Unknown => None,
        }
    }

    /// As a set; empty if unknown.
    pub fn ports(self) -> PortRanges {
        self.range().map_or_else(PortRanges::default, |(first, last)| PortRanges::range(first, last))
    }
}

/// The services that can be hit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposed {
    /// Addresses that connects of this node can start from and that carry services: the exposed ports of each.
    pub by_address: BTreeMap<IpAddr, PortRanges>,
    /// Every port with the addresses that carry it.
    pub ports: BTreeMap<u16, BTreeSet<IpAddr>>,
    /// Addresses with a service for all ports (port 0).
    pub whole_addresses: Vec<IpAddr>,
    /// TCP services in the kernel's choice of ports, on addresses that no connect starts from.
    pub elsewhere: u32,
}

impl Exposed {
    /// All exposed ports.
    pub fn all(&self) -> PortRanges {
        self.by_address.values().fold(PortRanges::default(), |all, ports| all.union(ports))
    }

    /// The longest run of exposed ports side by side on one address.
    pub fn longest_block(&self) -> u32 {
        let lengths = self.by_address.values().flat_map(|ports| ports.ranges().iter());
        lengths.map(|&(first, last)| u32::from(last - first) + 1).max().unwrap_or(0)
    }
}

/// Finds them in the table.
pub fn find(node: &Node, table: &ServiceTable, traffic: Option<&Traffic>) -> Exposed {
    let sources = SourceAddresses::of(node, table, traffic);
    let candidates = node.candidates();
    let mut found = Exposed::default();
    let mut by_address: BTreeMap<IpAddr, Vec<u16>> = BTreeMap::new();
    for (ip, port) in tcp_services(table) {
        let hit = port == 0 || candidates.contains(port);
        if !hit {
            continue;
        }
        if !sources.contains(ip) {
            found.elsewhere += 1;
        } else if port == 0 {
            found.whole_addresses.push(ip);
            found.by_address.insert(ip, candidates.clone());
        } else {
            by_address.entry(ip).or_default().push(port);
            found.ports.entry(port).or_default().insert(ip);
        }
    }
    for (ip, ports) in by_address {
        let ports: PortRanges = ports.into_iter().collect();
        let all = found.by_address.entry(ip).or_default();
        *all = all.union(&ports);
    }
    found
}

/// Address and port of every TCP service.
pub fn tcp_services(table: &ServiceTable) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
    table.services.keys().filter_map(|id| match id {
        ServiceId::Address(Protocol::Tcp, address) => Some((canonical_ip(address.ip()), address.port())),
        _ => None,
    })
}

/// The NodePort range: as given, else the default unless the services on the node's addresses contradict it.
pub fn node_ports(node: &Node) -> NodePorts {
    if let Some((first, last)) = node.node_port_range.as_ref().map(|range| range.value) {
        return NodePorts::Given(first, last);
    }
    let outside = |port: u16| port < DEFAULT_NODE_PORTS.0 || port > DEFAULT_NODE_PORTS.1;
    let listed = node.services.iter().flatten().flat_map(|service| &service.ports);
    if listed.filter_map(|port| port.node_port).any(outside) {
        return NodePorts::Unknown;
    }
    let Some(table) = node.table() else { return NodePorts::Default };
    let Some(addresses) = &node.addresses else {
        return if shared_ports(table).any(outside) { NodePorts::Unknown } else { NodePorts::Default };
    };
    let own: BTreeSet<IpAddr> = own_addresses(addresses).collect();
    let high = |(ip, port): &(IpAddr, u16)| *port >= 1024 && own.contains(ip);
    match tcp_services(table).filter(high).any(|(_, port)| outside(port)) {
        true => NodePorts::Unknown,
        false => NodePorts::Default,
    }
}

/// Where the addresses of the node are not known: ports beside which the same address has one of the default range.
fn shared_ports(table: &ServiceTable) -> impl Iterator<Item = u16> + '_ {
    let default = PortRanges::range(DEFAULT_NODE_PORTS.0, DEFAULT_NODE_PORTS.1);
    let nodes: BTreeSet<IpAddr> =
        tcp_services(table).filter(|(_, port)| default.contains(*port)).map(|(ip, _)| ip).collect();
    tcp_services(table).filter(move |(ip, port)| *port >= 1024 && nodes.contains(ip)).map(|(_, port)| port)
}

/// Without those that kube-proxy put on `kube-ipvs0` only so that IPVS receives packets for them: no connect starts
/// from there, unless routing is broken or a program asks for it.
fn own_addresses(addresses: &LocalAddresses) -> impl Iterator<Item = IpAddr> + '_ {
    let own = |(_, interfaces): &(IpAddr, &BTreeSet<Interface>)| {
        interfaces.iter().any(|interface| interface.kind != InterfaceKind::KubeIpvs)
    };
    addresses.iter().filter(own).map(|(ip, _)| ip)
}

/// The addresses that a connect of this node may start from.
struct SourceAddresses {
    known: Option<BTreeSet<IpAddr>>,
    /// Where they are not known: addresses that carry a NodePort. kube-proxy puts every NodePort on each address of
    /// the node, and on no other.
    assumed: BTreeSet<IpAddr>,
    cluster_ips: BTreeSet<IpAddr>,
}

impl SourceAddresses {
    fn of(node: &Node, table: &ServiceTable, traffic: Option<&Traffic>) -> Self {
        let seen = traffic.iter().flat_map(|traffic| traffic.sources.keys().copied());
        let seen: BTreeSet<IpAddr> = seen.collect();
        let known = node
            .addresses
            .as_ref()
            .map(|addresses| own_addresses(addresses).chain(seen.iter().copied()).collect());
        let ports = node_ports(node).range().unwrap_or(DEFAULT_NODE_PORTS);
        let ports = PortRanges::range(ports.0, ports.1);
        let carries = tcp_services(table).filter(|(_, port)| ports.contains(*port) || *port == 0);
        let mut assumed: BTreeSet<IpAddr> = carries.map(|(ip, _)| ip).collect();
        let cluster_ips: BTreeSet<IpAddr> = node
            .services
            .iter()
            .flatten()
            .flat_map(|service| &service.cluster_ips)
            .map(|ip| canonical_ip(*ip))
            .filter(|ip| !seen.contains(ip))
            .collect();
        assumed.extend(seen);
        Self { known, assumed, cluster_ips }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match &self.known {
            Some(known) => known.contains(&ip),
            None => self.assumed.contains(&ip) && !self.cluster_ips.contains(&ip),
        }
    }
}

/// Kubernetes names of a port on these addresses, each once.
pub fn names_of(names: &ServiceNames, port: u16, addresses: &BTreeSet<IpAddr>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for ip in addresses {
        for name in names.name_of(Protocol::Tcp, SocketAddr::new(*ip, port), None) {
            let name = name.to_string();
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    all
}
