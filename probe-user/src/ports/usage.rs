//! Local ports that sockets hold, per destination. Pure.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::node::port_ranges::PortRanges;
use crate::node::sockets::{Socket, TcpState};

/// Sockets of this node's own connects to one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In TIME-WAIT.
    pub time_wait: u64,
    /// In any other state.
    pub open: u64,
    /// Ports of the range that are taken, of the local address that has taken most: an address and a port can be used
    /// once per destination.
    pub taken: u64,
}

/// Usage per destination. Sockets of connections that came in are no use of an ephemeral port: their local port is one
/// that somebody listens on.
pub fn usage(sockets: &[Socket], usable: Option<&PortRanges>) -> HashMap<SocketAddr, Usage> {
    let listeners: HashSet<(Option<IpAddr>, u16)> = sockets
        .iter()
        .filter(|socket| socket.state == TcpState::Listen)
        .map(|socket| (specified(socket.local.ip()), socket.local.port()))
        .collect();
    let incoming = |local: SocketAddr| {
        listeners.contains(&(None, local.port())) || listeners.contains(&(Some(local.ip()), local.port()))
    };
    let mut found: HashMap<SocketAddr, Usage> = HashMap::new();
    let mut taken: HashMap<(SocketAddr, IpAddr), u64> = HashMap::new();
    for socket in sockets {
        let counts = !matches!(socket.state, TcpState::Listen | TcpState::SynRecv | TcpState::Close);
        if !counts || incoming(socket.local) {
            continue;
        }
        let usage = found.entry(socket.remote).or_default();
        match socket.state {
            TcpState::TimeWait => usage.time_wait += 1,
            _ => usage.open += 1,
        }
        if usable.is_none_or(|usable| usable.contains(socket.local.port())) {
            let taken = taken.entry((socket.remote, socket.local.ip())).or_default();
            *taken += 1;
            usage.taken = usage.taken.max(*taken);
        }
    }
    found
}

fn specified(ip: IpAddr) -> Option<IpAddr> {
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(state: TcpState, local: &str, remote: &str) -> Socket {
        Socket {
            state,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            inode: None,
            users: Vec::new(),
        }
    }

    #[test]
    fn only_the_side_that_connected_uses_an_ephemeral_port() {
        let dns = "169.254.20.10:8080";
        let sockets = [
            socket(TcpState::Listen, "169.254.20.10:8080", "0.0.0.0:0"),
            socket(TcpState::TimeWait, "169.254.20.10:40000", dns),
            socket(TcpState::Established, "169.254.20.10:40002", dns),
            socket(TcpState::Established, dns, "169.254.20.10:40002"),
            socket(TcpState::TimeWait, dns, "169.254.20.10:40004"),
            socket(TcpState::SynRecv, dns, "169.254.20.10:40006"),
        ];
        let found = usage(&sockets, Some(&PortRanges::range(32768, 60999)));
        let expected = Usage { time_wait: 1, open: 1, taken: 2 };
        assert_eq!(found, HashMap::from([(dns.parse().unwrap(), expected)]));
    }

    #[test]
    fn a_port_outside_the_range_takes_nothing_from_it_and_each_local_address_has_its_own() {
        let web = "10.0.0.9:80";
        let sockets = [
            socket(TcpState::TimeWait, "10.0.0.1:40000", web),
            socket(TcpState::TimeWait, "10.0.0.1:40002", web),
            socket(TcpState::TimeWait, "10.0.0.2:40000", web),
            socket(TcpState::TimeWait, "10.0.0.1:700", web),
        ];
        let found = usage(&sockets, Some(&PortRanges::range(32768, 60999)));
        assert_eq!(found[&web.parse().unwrap()], Usage { time_wait: 4, open: 0, taken: 2 });
    }

    #[test]
    fn a_listener_on_every_address_covers_each_of_them() {
        let sockets = [
            socket(TcpState::Listen, "[::]:80", "[::]:0"),
            socket(TcpState::TimeWait, "10.0.0.1:80", "10.0.0.9:40000"),
        ];
        assert_eq!(usage(&sockets, None), HashMap::new());
    }
}
