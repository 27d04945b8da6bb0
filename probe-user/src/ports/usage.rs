//! Local ports that sockets hold, per destination. Pure.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use crate::node::port_ranges::PortRanges;
use crate::node::sockets::TcpState;

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

/// Adds sockets up per destination. Sockets of connections that came in are no use of an ephemeral port: their local
/// port is one that somebody listens on.
#[derive(Clone, Debug, Default)]
pub struct Tally<'a> {
    listeners: HashSet<(Option<IpAddr>, u16)>,
    usable: Option<&'a PortRanges>,
    found: HashMap<SocketAddr, Usage>,
    taken: HashMap<(SocketAddr, IpAddr), u64>,
}

impl<'a> Tally<'a> {
    /// With the addresses that are listened on, and the ports that the kernel may choose from.
    pub fn new(listeners: impl IntoIterator<Item = SocketAddr>, usable: Option<&'a PortRanges>) -> Self {
        let listeners = listeners.into_iter().map(|local| (specified(local.ip()), local.port())).collect();
        Self { listeners, usable, ..Self::default() }
    }

    /// Adds one socket.
    pub fn add(&mut self, state: TcpState, local: SocketAddr, remote: SocketAddr) {
        let counts = !matches!(state, TcpState::Listen | TcpState::SynRecv | TcpState::Close);
        if !counts || self.came_in(local) {
            return;
        }
        let usage = self.found.entry(remote).or_default();
        match state {
            TcpState::TimeWait => usage.time_wait += 1,
            _ => usage.open += 1,
        }
        if self.usable.is_none_or(|usable| usable.contains(local.port())) {
            let taken = self.taken.entry((remote, local.ip())).or_default();
            *taken += 1;
            usage.taken = usage.taken.max(*taken);
        }
    }

    fn came_in(&self, local: SocketAddr) -> bool {
        let listens = |ip| self.listeners.contains(&(ip, local.port()));
        listens(None) || listens(Some(local.ip()))
    }

    /// Usage per destination.
    pub fn finish(self) -> HashMap<SocketAddr, Usage> {
        self.found
    }
}

fn specified(ip: IpAddr) -> Option<IpAddr> {
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(sockets: &[(TcpState, &str, &str)], usable: Option<&PortRanges>) -> HashMap<SocketAddr, Usage> {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listeners = sockets.iter().filter(|(state, ..)| *state == TcpState::Listen);
        let mut tally = Tally::new(listeners.map(|(_, local, _)| address(local)), usable);
        for (state, local, remote) in sockets {
            tally.add(*state, address(local), address(remote));
        }
        tally.finish()
    }

    #[test]
    fn only_the_side_that_connected_uses_an_ephemeral_port() {
        let dns = "169.254.20.10:8080";
        let sockets = [
            (TcpState::Listen, "169.254.20.10:8080", "0.0.0.0:0"),
            (TcpState::TimeWait, "169.254.20.10:40000", dns),
            (TcpState::Established, "169.254.20.10:40002", dns),
            (TcpState::Established, dns, "169.254.20.10:40002"),
            (TcpState::TimeWait, dns, "169.254.20.10:40004"),
            (TcpState::SynRecv, dns, "169.254.20.10:40006"),
        ];
        let found = usage(&sockets, Some(&PortRanges::range(32768, 60999)));
        let expected = Usage { time_wait: 1, open: 1, taken: 2 };
        assert_eq!(found, HashMap::from([(dns.parse().unwrap(), expected)]));
    }

    #[test]
    fn a_port_outside_the_range_takes_nothing_from_it_and_each_local_address_has_its_own() {
        let web = "10.0.0.9:80";
        let sockets = [
            (TcpState::TimeWait, "10.0.0.1:40000", web),
            (TcpState::TimeWait, "10.0.0.1:40002", web),
            (TcpState::TimeWait, "10.0.0.2:40000", web),
            (TcpState::TimeWait, "10.0.0.1:700", web),
        ];
        let found = usage(&sockets, Some(&PortRanges::range(32768, 60999)));
        assert_eq!(found[&web.parse().unwrap()], Usage { time_wait: 4, open: 0, taken: 2 });
    }

    #[test]
    fn a_listener_on_every_address_covers_each_of_them() {
        let sockets =
            [(TcpState::Listen, "[::]:80", "[::]:0"), (TcpState::TimeWait, "10.0.0.1:80", "10.0.0.9:40000")];
        assert_eq!(usage(&sockets, None), HashMap::new());
    }
}
