//! What to set so that it stops: complete, safe to paste, and honest about what it does not fix. Pure.

use std::net::SocketAddr;

use super::incident::{Advice, Verdict};
use crate::node::port_ranges::PortRanges;

const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";
const RANGE: &str = "net.ipv4.ip_local_port_range";
/// Where the reservation is kept.
const RESERVED_FILE: &str = "/etc/sysctl.d/90-nodeports.conf";
const RANGE_FILE: &str = "/etc/sysctl.d/90-portrange.conf";
/// `--service-node-port-range` of the API server where nobody sets it.
const DEFAULT_NODE_PORTS: (u16, u16) = (30_000, 32_767);

/// A range with fewer ports is no advice.
const MIN_RANGE: u32 = 4096;

/// What is known about the node's ports. Unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `net.ipv4.ip_local_reserved_ports` as the kernel prints it; empty = nothing is reserved.
    pub reserved: Option<String>,
    /// `net.ipv4.ip_local_port_range`: first and last.
    pub local_port_range: Option<(u16, u16)>,
    /// `--service-node-port-range` of the API server: first and last.
    pub node_port_range: Option<(u16, u16)>,
    /// Ports of the node's TCP services.
    pub service_ports: Vec<u16>,
}

/// What the advice is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The verdict of the incident.
    pub verdict: Verdict,
    /// Local address and port of the connect.
    pub local: Option<SocketAddr>,
    /// Where it wanted to go.
    pub remote: Option<SocketAddr>,
}

/// The advice for one incident; empty where there is nothing to set.
pub fn advise(node: &NodeFacts, cause: &Cause) -> Vec<Advice> {
    match cause.verdict {
        Verdict::Collision => match cause.local {
            Some(local) if bound_on_purpose(node, local.port()) => vec![stop_binding(node, local.port())],
            local => reserve(node, local.map(|local| local.port())).into_iter().collect(),
        },
        Verdict::CollisionSnat => vec![masquerade(node, cause.local)],
        Verdict::ListenConflict => reserve(node, cause.local.map(|local| local.port())).into_iter().collect(),
        Verdict::ReuseDelay => vec![reuse()],
        Verdict::Exhaustion => exhaustion(node, cause.remote),
        Verdict::OtherReset | Verdict::None => Vec::new(),
    }
}

/// The port that the advice depends on. `None` = for each service port of the node it is the same.
pub(super) fn own_port(node: &NodeFacts, cause: &Cause) -> Option<u16> {
    let port = cause.local?.port();
    let same = match cause.verdict {
        Verdict::Collision => !bound_on_purpose(node, port) && node.service_ports.contains(&port),
        verdict => verdict == Verdict::ReuseDelay,
    };
    (!same).then_some(port)
}

/// Masquerading picks its ports by itself: from the socket's own port, else from the whole range of its rule.
fn masquerade(node: &NodeFacts, local: Option<SocketAddr>) -> Advice {
    let (first, last) = node.node_port_range.unwrap_or(DEFAULT_NODE_PORTS);
    let ports = PortRanges::range(first, last).union(&node.service_ports.iter().copied().collect());
    let clear = PortRanges::range(1024, u16::MAX).difference(&ports);
    let longest = clear.ranges().iter().max_by_key(|(from, to)| to - from);
    let to = longest.map_or_else(String::new, |(from, to)| format!(", such as --to-ports {from}-{to}"));
    let port = local.map_or_else(String::new, |local| format!(" {}", local.port()));
    Advice {
        setting: "the rule that masquerades (iptables -t nat, CNI plug-in, ip-masq-agent)".to_owned(),
        value: None,
        command: None,
        persist: None,
        why: format!(
            "The socket has another source port; masquerading put{port} on the wire. It knows nothing of \
             ip_local_reserved_ports and ip_local_port_range. Give the rule a range of ports that is clear of the service \
             ports{to} (for TCP and UDP), and leave out --random-fully, which makes such a choice more likely."
        ),
    }
}

/// Why the first SYN to a port that was used before is dropped: `ip_vs_in_hook` in net/netfilter/ipvs/ip_vs_core.c.
fn reuse() -> Advice {
    Advice {
        setting: "net.ipv4.vs.conn_reuse_mode".to_owned(),
        value: None,
        command: Some("sysctl net.ipv4.vs.conn_reuse_mode net.ipv4.vs.conntrack; uname -r".to_owned()),
        persist: None,
        why: "Where IPVS still knows an earlier connection with the same addresses and ports, it drops the first SYN to forget it; \
              the client's second SYN, a second later, comes through. Kernels before 5.9 do so for every reused port where \
              conntrack is on: use 5.9 or later. Setting conn_reuse_mode to 0 there avoids the second, but then connections \
              from reused ports also go to backends that are being taken out of service. Fewer short connections to the \
              service (keep-alive) help on every kernel."
            .to_owned(),
    }
}

/// The kernel never picks such a port by itself, so the program asked for it.
fn bound_on_purpose(node: &NodeFacts, port: u16) -> bool {
    let outside = node.local_port_range.is_some_and(|(first, last)| port < first || port > last);
    let reserved = node.reserved.as_deref().and_then(|text| text.parse::<PortRanges>().ok());
    outside || reserved.is_some_and(|reserved| reserved.contains(port))
}

fn stop_binding(node: &NodeFacts, port: u16) -> Advice {
    let reason = match node.local_port_range {
        Some((first, last)) if port < first || port > last => {
            format!("outside {RANGE} ({first} to {last})")
        }
        _ => format!("already in {RESERVED}"),
    };
    Advice {
        setting: "the program's own source port".to_owned(),
        value: None,
        command: None,
        persist: None,
        why: format!(
            "Source port {port} is {reason}, so the kernel did not pick it: the program binds it explicitly before it connects. \
             Reserving ports does not help against that. Let the program bind port 0 or not bind at all, or use a port that is no \
             service port."
        ),
    }
}

fn reserve(node: &NodeFacts, colliding: Option<u16>) -> Option<Advice> {
    let (wanted, what) = wanted_ports(node, colliding)?;
    Some(reserve_ports(node, &wanted, &what))
}

fn reserve_ports(node: &NodeFacts, wanted: &PortRanges, what: &str) -> Advice {
    let not_fixed = "It does not cover an explicit bind() to one of these ports, nor source ports that SNAT or masquerading \
                     picks: both ignore this setting.";
    let Some(reserved) = node.reserved.as_deref().and_then(|text| text.parse::<PortRanges>().ok()) else {
        // What is reserved now is unknown and must not be lost: the shell asks at the moment of the change.
        return Advice {
            setting: RESERVED.to_owned(),
            value: None,
            command: Some(format!(
                "r=$(sysctl -n {RESERVED}) && sysctl -w {RESERVED}=\"${{r:+$r,}}{wanted}\""
            )),
            persist: None,
            why: format!(
                "This reserves {what}, so that the kernel no longer picks source ports from there. What is reserved now could not be read; \
                 the command keeps it. Write the line it prints to {RESERVED_FILE} to keep it after a reboot. {not_fixed}"
            ),
        };
    };
    let keeps = if reserved.is_empty() { "" } else { " What is reserved already stays reserved." };
    let value = reserved.union(wanted).to_string();
    Advice {
        setting: RESERVED.to_owned(),
        command: Some(format!("sysctl -w {RESERVED}={value}")),
        persist: Some(format!("{RESERVED_FILE}: {RESERVED} = {value}")),
        value: Some(value),
        why: format!(
            "This reserves {what}, so that the kernel no longer picks source ports from there.{keeps} {not_fixed}"
        ),
    }
}

/// The ports that must not become source ports, and what they are in words. `more` must be kept free as well (health
/// checks, listeners), although they are no services.
pub fn must_reserve(node: &NodeFacts, more: &PortRanges) -> Option<(PortRanges, String)> {
    let (wanted, mut what) = wanted_ports(node, None).unwrap_or_default();
    let others = more.difference(&wanted);
    if !others.is_empty() {
        let joint = if wanted.is_empty() { "" } else { ", and " };
        what += &format!("{joint}{others}, which programs listen on");
    }
    let all = wanted.union(&others);
    (!all.is_empty()).then_some((all, what))
}

/// What keeps a node from colliding at all, the best first: reserving, another local port range, another NodePort range.
pub fn prevent(node: &NodeFacts, more: &PortRanges) -> Vec<Advice> {
    let Some((wanted, what)) = must_reserve(node, more) else { return Vec::new() };
    let reserve = reserve_ports(node, &wanted, &what);
    [Some(reserve), move_range(node, &wanted), move_node_ports(node)].into_iter().flatten().collect()
}

/// The longest piece of the present range that is clear of `wanted`: no program that listens elsewhere is disturbed.
fn move_range(node: &NodeFacts, wanted: &PortRanges) -> Option<Advice> {
    let (first, last) = node.local_port_range?;
    let clear = PortRanges::range(first, last).difference(wanted);
    let &(from, to) = clear.ranges().iter().max_by_key(|(from, to)| to - from)?;
    // Ends of different parity, as the kernel prefers.
    let to = if from % 2 == to % 2 && to > from { to - 1 } else { to };
    let (before, after) = (u32::from(last - first) + 1, u32::from(to - from) + 1);
    if after < MIN_RANGE {
        return None;
    }
    let value = format!("{from} {to}");
    Some(Advice {
        setting: RANGE.to_owned(),
        command: Some(format!("sysctl -w {RANGE}=\"{value}\"")),
        persist: Some(format!("{RANGE_FILE}: {RANGE} = {value}")),
        value: Some(value),
        why: format!(
            "Instead of reserving: the longest part of the range that is clear of these ports. It leaves {after} source ports \
             instead of {before}, so fewer connects to one destination fit at a time. Do not write this range in quotes, in \
             whatever file it is set now. It does not cover an explicit bind() nor SNAT either."
        ),
    })
}

/// Where the present local port range leaves room for NodePorts.
fn move_node_ports(node: &NodeFacts) -> Option<Advice> {
    let (first, last) = node.local_port_range?;
    let (from, to) = node.node_port_range.unwrap_or(DEFAULT_NODE_PORTS);
    let free = PortRanges::range(1024, u16::MAX).difference(&PortRanges::range(first, last));
    let size = to.saturating_sub(from).min(DEFAULT_NODE_PORTS.1 - DEFAULT_NODE_PORTS.0);
    let &(low, high) =
        free.ranges().iter().filter(|(low, high)| high - low >= size).max_by_key(|(low, high)| high - low)?;
    // Growing downwards from the local port range keeps clear of the ports of known programs.
    let (low, high) = if high < first {
        (low.max(high.saturating_sub(size)), high)
    } else {
        (low, low.saturating_add(size).min(high))
    };
    let value = format!("{low}-{high}");
    Some(Advice {
        setting: "--service-node-port-range of the API server".to_owned(),
        command: None,
        persist: Some(format!("kube-apiserver manifest: --service-node-port-range={value}")),
        value: Some(value),
        why: "Instead of reserving, for the whole cluster: NodePorts outside the local port range. Services that exist keep \
              the NodePorts they have until they are created anew; load balancers and firewalls that name NodePorts must \
              follow, and the API server restarts. Until then the ports in use stay exposed."
            .to_owned(),
    })
}

fn all_default(ports: &PortRanges) -> bool {
    ports.difference(&PortRanges::from_ranges([DEFAULT_NODE_PORTS])).is_empty()
}

/// The ports to reserve, and what they are in words.
fn wanted_ports(node: &NodeFacts, colliding: Option<u16>) -> Option<(PortRanges, String)> {
    let (first, last) = node.local_port_range.unwrap_or((0, u16::MAX));
    let services = node.service_ports.iter().copied().chain(colliding);
    let exposed: PortRanges = services.filter(|port| (first..=last).contains(port) && *port != 0).collect();
    let (wanted, what) = match node.node_port_range {
        Some((from, to)) if from <= to => {
            let range = PortRanges::range(from, to);
            (exposed.union(&range), format!("the NodePort range {from}-{to}"))
        }
        _ if exposed.count() >= 2 && all_default(&exposed) => {
            let (from, to) = DEFAULT_NODE_PORTS;
            let what = format!(
                "the ports {from}-{to} (the default NodePort range, assumed because all service ports in question lie in it)"
            );
            (PortRanges::from_ranges([DEFAULT_NODE_PORTS]), what)
        }
        _ => {
            let what = match exposed.count() {
                1 => "this service port".to_owned(),
                count => format!(
                    "the {count} service ports that are in use now (new Services can get others: reserve the API server's \
                     --service-node-port-range, if you know it)"
                ),
            };
            (exposed, what)
        }
    };
    (!wanted.is_empty()).then_some((wanted, what))
}

fn exhaustion(node: &NodeFacts, remote: Option<SocketAddr>) -> Vec<Advice> {
    let towards = remote.map_or_else(|| "one destination".to_owned(), |remote| remote.to_string());
    let check = remote.map(|remote| {
        format!(
            "ss -Htan dst {} dport = :{} | awk '{{print $1}}' | sort | uniq -c",
            ip_filter(remote),
            remote.port()
        )
    });
    let reuse = Advice {
        setting: "connection reuse in the program".to_owned(),
        value: None,
        command: check,
        persist: None,
        why: format!(
            "Every connection to {towards} uses up one source port, and a closed one blocks it for 60 s more (TIME-WAIT). The \
             command shows how many are in which state. Keep connections open and reuse them, or open fewer per second."
        ),
    };
    std::iter::once(reuse).chain(widen(node)).collect()
}

fn ip_filter(remote: SocketAddr) -> String {
    match remote {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

/// The larger side of the NodePorts, if that is more than there is now.
fn widen(node: &NodeFacts) -> Option<Advice> {
    let (first, last) = node.local_port_range?;
    let (from, to) = node.node_port_range.unwrap_or(DEFAULT_NODE_PORTS);
    let below = (1024, from.saturating_sub(1));
    let above = (to.saturating_add(1), u16::MAX);
    let size = |(a, b): (u16, u16)| b.saturating_sub(a);
    let best = if size(below) > size(above) { below } else { above };
    let other = if node.node_port_range.is_some() { "" } else { ", assumed to be the default" };
    if size(best) <= size((first, last)) {
        return None;
    }
    let value = format!("{} {}", best.0, best.1);
    Some(Advice {
        setting: RANGE.to_owned(),
        command: Some(format!("sysctl -w {RANGE}=\"{value}\"")),
        persist: Some(format!("{RANGE_FILE}: {RANGE} = {value}")),
        value: Some(value),
        why: format!(
            "The range is {first} to {last} now. This is the widest one that stays clear of the NodePorts ({from}-{to}{other}). \
             Check first that no program on this node listens on a port in the new part."
        ),
    })
}

#[cfg(test)]
#[path = "advice_tests.rs"]
mod tests;
