//! What the node's sockets say about its connects.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::node::Node;
use crate::ipvs::table::{Protocol, ServiceId, canonical, canonical_ip};
use crate::node::port_ranges::PortRanges;
use crate::node::sockets::TcpState;

/// Connects of one source address, counted by the sockets that they left in TIME-WAIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCount {
    /// To anything but a service: these can collide.
    pub direct: u64,
    /// To an IPVS service, which are safe: IPVS knows their replies.
    pub through_services: u64,
}

/// Connects towards one address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// From which address.
    pub source: IpAddr,
    /// Where to.
    pub remote: SocketAddr,
    /// Source ports that are in use, in any state.
    pub ports: u32,
    /// Of these in TIME-WAIT.
    pub time_wait: u32,
}

/// The sockets, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// By source address.
    pub sources: BTreeMap<IpAddr, SourceCount>,
    /// Addresses and ports that programs listen on.
    pub listeners: Vec<SocketAddr>,
    /// The destination with most source ports in use.
    pub busiest: Option<Destination>,
}

impl Traffic {
    /// Counts the sockets of `node`; `None` if they are not known.
    ///
    /// A socket in TIME-WAIT does not say who opened the connection. It counts as a connect of this node if its local
    /// port is one that the kernel may pick and no listener's.
    pub fn of(node: &Node) -> Option<Self> {
        let none = Vec::new();
        let sockets = match &node.sockets {
            Some(sockets) => &sockets.value,
            None if node.time_wait_counts.is_empty() => return None,
            None => &none,
        };
        let listening = |socket: &&crate::node::sockets::Socket| socket.state == TcpState::Listen;
        let listeners: Vec<SocketAddr> =
            sockets.iter().filter(listening).map(|socket| canonical(socket.local)).collect();
        let exact: HashSet<SocketAddr> = listeners.iter().copied().collect();
        let anywhere: PortRanges =
            listeners.iter().filter(|local| local.ip().is_unspecified()).map(SocketAddr::port).collect();
        let candidates = node.candidates();
        let table = node.table();
        let mut sources: BTreeMap<IpAddr, SourceCount> = BTreeMap::new();
        let mut destinations: HashMap<(IpAddr, SocketAddr), (u32, u32)> = HashMap::new();
        for socket in sockets {
            let (local, remote) = (canonical(socket.local), canonical(socket.remote));
            let accepted = anywhere.contains(local.port()) || exact.contains(&local);
            if remote.port() == 0 || accepted || !candidates.contains(local.port()) {
                continue;
            }
            let time_wait = socket.state == TcpState::TimeWait;
            let counts = destinations.entry((local.ip(), remote)).or_default();
            *counts = (counts.0 + 1, counts.1 + u32::from(time_wait));
            if time_wait {
                let id = ServiceId::Address(Protocol::Tcp, remote);
                let count = sources.entry(local.ip()).or_default();
                match table.is_some_and(|table| table.services.contains_key(&id)) {
                    true => count.through_services += 1,
                    false => count.direct += 1,
                }
            }
        }
        for (ip, count) in &node.time_wait_counts {
            sources.entry(canonical_ip(*ip)).or_default().direct += count;
        }
        let busiest = destinations.into_iter().map(|((source, remote), (ports, time_wait))| Destination {
            source,
            remote,
            ports,
            time_wait,
        });
        // The address decides between equals, so that the answer is always the same.
        let busiest = busiest.max_by_key(|busy| (busy.ports, busy.source, busy.remote));
        Some(Self { sources, listeners, busiest })
    }

    /// Ports that a listener holds, on whatever address: the kernel does not pick them for connect().
    pub fn listening_ports(&self) -> PortRanges {
        self.listeners.iter().map(SocketAddr::port).collect()
    }

    /// Connects of the last 60 s that can collide.
    pub fn direct(&self) -> u64 {
        self.sources.values().map(|count| count.direct).sum()
    }
}
