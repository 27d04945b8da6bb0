//! What is known about a node, wherever it was read. Unknown is `None`, never a default.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::check::Finding;
use crate::ipvs::table::ServiceTable;
use crate::kubernetes::kube_proxy_log::RefusedPort;
use crate::kubernetes::service::KubeService;
use crate::node::addresses::LocalAddresses;
use crate::node::port_ranges::PortRanges;
use crate::node::sockets::Socket;
use crate::node::sysctl::EphemeralRange;

/// A value and where it comes from, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// `--local-port-range`, `the running kernel`, `ss.txt`.
    pub source: String,
}

/// The IPVS table of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ipvs {
    /// It was read.
    Table(Sourced<Arc<ServiceTable>>),
    /// The node has none: kube-proxy works in another mode.
    NotInUse(String),
    /// Nobody said, or it could not be read; why.
    Unknown(String),
}

/// Connects that were counted while portclash looked on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// How many (`ActiveOpens` of /proc/net/snmp): all TCP connects of the namespace, to whatever destination.
    pub connects: u64,
    /// In how many seconds.
    pub seconds: f64,
}

/// Everything that is known about a node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What was looked at, in words.
    pub what: String,
    /// True if it is the running kernel of this machine: its tables are complete.
    pub live: bool,
    /// `net.ipv4.ip_local_port_range`
    pub ephemeral: Sourced<EphemeralRange>,
    /// `net.ipv4.ip_local_reserved_ports`
    pub reserved: Option<Sourced<PortRanges>>,
    /// `--service-node-port-range` of the API server, if somebody said it.
    pub node_port_range: Option<Sourced<(u16, u16)>>,
    /// Service table.
    pub ipvs: Ipvs,
    /// Addresses of the node.
    pub addresses: Option<LocalAddresses>,
    /// Its TCP sockets.
    pub sockets: Option<Sourced<Vec<Socket>>>,
    /// Sockets in TIME-WAIT per local address, where they were only counted.
    pub time_wait_counts: BTreeMap<IpAddr, u64>,
    /// Kubernetes Services of the cluster.
    pub services: Option<Vec<KubeService>>,
    /// Ports that kube-proxy could not listen on, by its log.
    pub refused: Vec<RefusedPort>,
    /// Further ports that must not become source ports.
    pub extra_ports: PortRanges,
    /// As `uname -r` prints it.
    pub kernel: Option<String>,
    /// `net.ipv4.vs.conn_reuse_mode`
    pub conn_reuse_mode: Option<i32>,
    /// Whether the kernel tracks connections (nf_conntrack).
    pub conntrack: Option<bool>,
    /// Connects counted live.
    pub measured: Option<Measured>,
    /// What reading showed.
    pub findings: Vec<Finding>,
    /// What could not be read.
    pub incomplete: Vec<String>,
}

impl Node {
    /// The service table, if there is one.
    pub fn table(&self) -> Option<&ServiceTable> {
        match &self.ipvs {
            Ipvs::Table(table) => Some(&table.value),
            Ipvs::NotInUse(_) | Ipvs::Unknown(_) => None,
        }
    }

    /// Ports that the kernel may pick: the range without what is reserved (nothing, if that is not known).
    pub fn candidates(&self) -> PortRanges {
        let range = self.ephemeral.value.ports();
        self.reserved.as_ref().map_or_else(|| range.clone(), |reserved| range.difference(&reserved.value))
    }
}
