//! The IPVS service table as a value: services, their backends, and what a reader could not read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// How IPVS sends to a backend, its "packet forwarding method" (kernel: `IP_VS_CONN_F_FWD_MASK`, ip_vs.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forward {
    /// With addresses translated; what kube-proxy uses.
    Masq,
    /// To the backend's link address.
    Route,
    /// In a tunnel.
    Tunnel,
    /// The backend is this node.
    Local,
    /// Past IPVS.
    Bypass,
    /// The source has no such column.
    NotSaid,
}

impl Forward {
    /// As the tables print it; `unknown` where they do not.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Masq => "Masq",
            Self::Route => "Route",
            Self::Tunnel => "Tunnel",
            Self::Local => "Local",
            Self::Bypass => "Bypass",
            Self::NotSaid => "unknown",
        }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What selects the packets of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceId {
    /// Protocol, address and port. Port 0 covers every port of the address (persistent services).
    Address(Protocol, SocketAddr),
    /// A firewall mark, once per address family (kernel: `ip_vs_service.af`). It never matches a socket.
    Mark {
        /// Value of the mark.
        mark: u32,
        /// True for the IPv6 service with this mark.
        ipv6: bool,
    },
}

/// A real server of a service (IPVS "destination").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Address and port that IPVS sends to.
    pub address: SocketAddr,
    /// How it is sent.
    pub forward: Forward,
    /// Scheduling weight; 0 receives nothing new.
    pub weight: u32,
}

/// One IPVS virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What selects its packets.
    pub id: ServiceId,
    /// Name of the scheduler, such as `rr`; `None` where the source does not say. The services of a table share it.
    pub scheduler: Option<Arc<str>>,
    /// Persistence timeout in seconds; `None` = not persistent.
    pub persistent_s: Option<u32>,
    /// One-packet scheduling (UDP).
    pub one_packet: bool,
    /// Its backends, in the order of the source.
    pub backends: Vec<Backend>,
}

/// A row that could not be read. It hides no other row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Line number from 1, or message number for netlink.
    pub line: usize,
    /// The row, cut to 200 bytes.
    pub text: String,
    /// Why it could not be read.
    pub reason: String,
}

/// All services of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTable {
    /// Services by identity.
    pub services: BTreeMap<ServiceId, Service>,
    /// Rows that could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// One name for the thousands of services that have the same.
#[derive(Default)]
pub(super) struct SharedNames(BTreeSet<Arc<str>>);

impl SharedNames {
    pub(super) fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.0.insert(Arc::clone(&new));
        new
    }
}

impl ServiceTable {
    /// The TCP service that a socket bound to `local` collides with: the exact one, else the one for all ports
    /// of the address. v4-mapped IPv6 addresses count as IPv4 (kernel: `ip_vs_service_find`, ip_vs_ctl.c).
    pub fn tcp_service_at(&self, local: SocketAddr) -> Option<&Service> {
        let local = canonical(local);
        self.services
            .get(&ServiceId::Address(Protocol::Tcp, local))
            .or_else(|| self.services.get(&ServiceId::Address(Protocol::Tcp, SocketAddr::new(local.ip(), 0))))
    }
}

/// The address with v4-mapped IPv6 written as IPv4, and without flow label and scope.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(address.ip()), address.port())
}

/// The address with v4-mapped IPv6 written as IPv4.
pub fn canonical_ip(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// One row of `/proc/net/ip_vs_conn` or `ipvsadm -Lnc`: a connection that IPVS made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpvsConnection {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Who sent the first packet. In a hijack this is the *server* that the node connected to.
    pub client: SocketAddr,
    /// Address of the service. In a hijack this is the node's own address and source port.
    pub virtual_address: SocketAddr,
    /// The backend that was chosen.
    pub backend: SocketAddr,
    /// State as printed, such as `SYN_RECV`.
    pub state: String,
    /// Seconds until the entry expires.
    pub expires_s: u64,
}
