//! The local addresses of a network namespace, and which interface has them.
//!
//! What matters here are the dummy interfaces of a node: `kube-ipvs0`, to which kube-proxy binds every ClusterIP, and
//! `nodelocaldns`. They make those addresses local, so the kernel may also choose one as the *source* of a connection
//! (kubernetes/kubernetes#89898).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use crate::ipvs::table::canonical_ip;
use crate::node::netns::{NetNs, NetnsError};

/// Interface of kube-proxy in IPVS mode (`DefaultDummyDevice`, pkg/proxy/ipvs).
const KUBE_IPVS: &str = "kube-ipvs0";
/// Interface of node-local-dns (`-interfacename`, this by default).
const NODE_LOCAL_DNS: &str = "nodelocaldns";

/// Why the addresses are not known.
#[derive(Debug, thiserror::Error)]
pub enum AddressesError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel does not list them.
    #[error("listing the local addresses (getifaddrs): {0}")]
    List(io::Error),
}

/// What an interface is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterfaceKind {
    /// Loopback.
    Loopback,
    /// `kube-ipvs0`: addresses of Services, bound there by kube-proxy.
    KubeIpvs,
    /// `nodelocaldns`: addresses of the DNS cache on this node.
    NodeLocalDns,
    /// Any other.
    Other,
}

/// One interface that has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// What it is for.
    pub kind: InterfaceKind,
}

impl Interface {
    /// `loopback`: the kernel's flag (IFF_LOOPBACK).
    pub fn new(name: &str, loopback: bool) -> Self {
        let kind = match name {
            KUBE_IPVS => InterfaceKind::KubeIpvs,
            NODE_LOCAL_DNS => InterfaceKind::NodeLocalDns,
            _ if loopback => InterfaceKind::Loopback,
            _ => InterfaceKind::Other,
        };
        Self { name: name.to_owned(), kind }
    }
}

/// The local addresses of one network namespace. An address may be on several interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    by_address: BTreeMap<IpAddr, BTreeSet<Interface>>,
}

impl FromIterator<(IpAddr, Interface)> for LocalAddresses {
    fn from_iter<I: IntoIterator<Item = (IpAddr, Interface)>>(addresses: I) -> Self {
        let mut by_address: BTreeMap<IpAddr, BTreeSet<Interface>> = BTreeMap::new();
        for (address, interface) in addresses {
            by_address.entry(canonical_ip(address)).or_default().insert(interface);
        }
        Self { by_address }
    }
}

impl LocalAddresses {
    /// Every address with its interfaces, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &BTreeSet<Interface>)> {
        self.by_address.iter().map(|(address, interfaces)| (*address, interfaces))
    }

    /// True if nothing is known.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// The interfaces that have `address`, which may be none.
    pub fn interfaces_of(&self, address: IpAddr) -> impl Iterator<Item = &Interface> {
        self.by_address.get(&canonical_ip(address)).into_iter().flatten()
    }

    /// True if a socket can have `address`. All of 127.0.0.0/8 is local wherever loopback is up.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical_ip(address);
        let loopback_up = || self.on(InterfaceKind::Loopback).next().is_some();
        self.by_address.contains_key(&address)
            || (address.is_ipv4() && address.is_loopback() && loopback_up())
    }

    /// The addresses on interfaces of this kind.
    pub fn on(&self, kind: InterfaceKind) -> impl Iterator<Item = IpAddr> {
        self.iter()
            .filter(move |(_, interfaces)| interfaces.iter().any(|interface| interface.kind == kind))
            .map(|(address, _)| address)
    }

    /// The interface that makes `address` a source no connection to another host should have: `kube-ipvs0` or
    /// `nodelocaldns`, unless an ordinary interface has it as well.
    pub fn service_interface(&self, address: IpAddr) -> Option<&Interface> {
        let is_service =
            |kind: InterfaceKind| matches!(kind, InterfaceKind::KubeIpvs | InterfaceKind::NodeLocalDns);
        if self.interfaces_of(address).any(|interface| !is_service(interface.kind)) {
            return None;
        }
        self.interfaces_of(address).next()
    }

    /// What is wrong with a connection from `source` to `remote`, in words: the kernel chose an address of a Service
    /// or of the DNS cache to talk to another host. A connection to one's own address is as it should be.
    pub fn wrong_source(&self, source: IpAddr, remote: IpAddr) -> Option<String> {
        let interface = self.service_interface(source).filter(|_| !self.contains(remote))?;
        Some(format!(
            "the source address {source} is on {}: the route to {remote} has no address of its own to offer, so the \
             kernel takes one from there. See `ip route get {remote}`; give the route a source address (`src`), or \
             the interface that it leaves by an address",
            interface.name
        ))
    }
}

/// Reads the addresses of a namespace. Needs CAP_SYS_ADMIN, except for the caller's own namespace.
pub fn read_of(netns: &NetNs) -> Result<LocalAddresses, AddressesError> {
    netns.run_inside(read_here)?.map_err(|errno| AddressesError::List(errno.into()))
}

fn read_here() -> nix::Result<LocalAddresses> {
    let address_of = |entry: nix::ifaddrs::InterfaceAddress| {
        let loopback = entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK);
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))?;
        Some((ip, Interface::new(&entry.interface_name, loopback)))
    };
    Ok(nix::ifaddrs::getifaddrs()?.filter_map(address_of).collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::netns::tests::fresh;
    use super::*;

    fn node() -> LocalAddresses {
        let rows = [
            ("lo", true, "127.0.0.1"),
            ("eth0", false, "172.16.4.10"),
            ("kube-ipvs0", false, "172.26.67.31"),
            ("kube-ipvs0", false, "172.26.0.10"),
            ("nodelocaldns", false, "172.26.0.10"),
            ("nodelocaldns", false, "169.254.20.10"),
            ("kube-ipvs0", false, "172.16.4.10"),
        ];
        rows.iter().map(|(name, lo, ip)| (ip.parse().unwrap(), Interface::new(name, *lo))).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    // kubernetes/kubernetes#89898
    #[test]
    fn a_source_on_kube_ipvs0_or_nodelocaldns_is_flagged() {
        let node = node();
        let text = node.wrong_source(ip("172.26.67.31"), ip("172.16.4.143")).unwrap();
        assert!(text.contains("172.26.67.31 is on kube-ipvs0"), "{text}");
        assert!(text.contains("`ip route get 172.16.4.143`"), "{text}");
        let text = node.wrong_source(ip("169.254.20.10"), ip("172.16.4.143")).unwrap();
        assert!(text.contains("nodelocaldns"), "{text}");
        assert_eq!(node.wrong_source(ip("172.16.4.10"), ip("172.16.4.143")), None);
        assert_eq!(node.wrong_source(ip("192.0.2.1"), ip("172.16.4.143")), None);
    }

    #[test]
    fn a_connection_to_itself_has_the_right_source() {
        assert_eq!(node().wrong_source(ip("169.254.20.10"), ip("169.254.20.10")), None);
        assert_eq!(node().wrong_source(ip("172.26.67.31"), ip("127.1.2.3")), None);
    }

    // An external or load balancer address that is the node's own as well: kubernetes/kubernetes#112185
    #[test]
    fn an_address_of_the_node_stays_one() {
        let node = node();
        assert_eq!(node.interfaces_of(ip("172.16.4.10")).count(), 2);
        assert_eq!(node.service_interface(ip("172.16.4.10")), None);
        assert_eq!(node.service_interface(ip("172.26.0.10")).unwrap().name, "kube-ipvs0");
        assert_eq!(node.on(InterfaceKind::NodeLocalDns).count(), 2);
        assert!(node.contains(ip("::ffff:127.0.0.2")) && !node.contains(ip("192.0.2.1")));
        assert!(!LocalAddresses::default().contains(ip("127.0.0.1")));
    }

    #[test]
    fn addresses_of_a_namespace_with_such_an_interface() {
        let Some(netns) = fresh() else { return };
        let commands = "ip link set lo up; ip link add kube-ipvs0 type veth peer name p0 && ip link set kube-ipvs0 up && \
             ip address add 10.96.0.1/32 dev kube-ipvs0 && ip address add fd00::1/128 dev kube-ipvs0 nodad";
        let done = netns.run_inside(|| Command::new("sh").args(["-c", commands]).status()).unwrap();
        if !done.is_ok_and(|status| status.success()) {
            return; // no such interfaces here
        }
        let read = read_of(&netns).unwrap();
        assert_eq!(read.on(InterfaceKind::Loopback).next(), Some(ip("127.0.0.1")));
        let services: Vec<IpAddr> = read.on(InterfaceKind::KubeIpvs).collect();
        assert!(services.contains(&ip("10.96.0.1")) && services.contains(&ip("fd00::1")), "{services:?}");
        assert!(!read_of(&NetNs::own().unwrap()).unwrap().contains(ip("10.96.0.1")));
    }
}
