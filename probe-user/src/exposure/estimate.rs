//! Expected failures: the chance of each source address, times its connects.

use std::net::IpAddr;

use super::choice::{Choice, Way};
use super::exposed::Exposed;
use super::node::Node;
use super::rate::{Estimate, TIME_WAIT_S};
use super::traffic::Traffic;
use crate::node::port_ranges::PortRanges;

/// What one source address contributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The address.
    pub ip: IpAddr,
    /// Exposed ports on it.
    pub exposed: PortRanges,
    /// Of these, the ones that connect() can pick.
    pub reachable: PortRanges,
    /// Set if the table shows no service on it and the ports are those of this other address.
    pub like: Option<IpAddr>,
    /// Chance that one connect() from it collides.
    pub chance: f64,
    /// Connects per second that can collide; `None` = not known.
    pub rate: Option<Estimate>,
}

/// The whole estimate.
#[derive(Clone, Debug, PartialEq)]
pub struct Failures {
    /// Every address with exposed ports or connects.
    pub sources: Vec<Source>,
    /// Chance per connect() from the address with the highest, and starting points of the search.
    pub chance: f64,
    /// Denominator of all chances of connect().
    pub starts: u32,
    /// The same for bind() to port 0, then connect().
    pub chance_bind: f64,
    /// The same with SO_REUSEADDR.
    pub chance_bind_reuse: f64,
    /// The same for IP_LOCAL_PORT_RANGE with the whole range (kernel 6.8 and later).
    pub chance_own_range: f64,
    /// Connects per second; `None` = not known.
    pub connects: Option<Estimate>,
    /// Failures per hour; `None` = not known.
    pub per_hour: Option<Estimate>,
    /// What the rate was taken from.
    pub rate_source: Option<&'static str>,
}

/// Estimates from what is known.
pub fn estimate(node: &Node, exposed: &Exposed, traffic: Option<&Traffic>) -> Failures {
    let reserved = node.reserved.as_ref().map(|reserved| reserved.value.clone()).unwrap_or_default();
    let listening = traffic.map(Traffic::listening_ports).unwrap_or_default();
    let unusable = reserved.union(&listening);
    let range = node.ephemeral.value;
    let connect = Choice::of(Way::Connect, range, &unusable);
    let mut sources = sources(node, exposed, traffic);
    for source in &mut sources {
        source.chance = connect.chance(&source.exposed);
        source.reachable = connect.reachable(&source.exposed);
    }
    let worst =
        |choice: &Choice| exposed.by_address.values().map(|ports| choice.chance(ports)).fold(0.0, f64::max);
    let by_way = |way| worst(&Choice::of(way, range, &unusable));
    let chance = worst(&connect);
    let connects = total_rate(node, traffic);
    let per_hour = connects.map(|total| failures(node, traffic, &mut sources, total, chance));
    Failures {
        chance,
        starts: connect.starts(),
        chance_bind: by_way(Way::BindZero),
        chance_bind_reuse: by_way(Way::BindZeroReuse),
        chance_own_range: by_way(Way::OwnRange),
        rate_source: connects.map(|_| if node.measured.is_some() { "measured" } else { "TIME-WAIT" }),
        connects,
        per_hour,
        sources,
    }
}

fn sources(node: &Node, exposed: &Exposed, traffic: Option<&Traffic>) -> Vec<Source> {
    let new = |ip, exposed, like| Source {
        ip,
        exposed,
        reachable: PortRanges::default(),
        like,
        chance: 0.0,
        rate: None,
    };
    let mut all: Vec<Source> =
        exposed.by_address.iter().map(|(ip, ports)| new(*ip, ports.clone(), None)).collect();
    for (ip, count) in traffic.iter().flat_map(|traffic| &traffic.sources) {
        if exposed.by_address.contains_key(ip) || count.direct == 0 {
            continue;
        }
        let model = model_for(node, exposed, *ip);
        let ports = model.and_then(|ip| exposed.by_address.get(&ip)).cloned().unwrap_or_default();
        all.push(new(*ip, ports, model));
    }
    all.sort_by_key(|source| source.ip);
    all
}

/// A listing that people bring may be cut off, while kube-proxy puts every NodePort on each address of the node. So an
/// address of the node without any service in such a listing is taken to be like the one with most.
fn model_for(node: &Node, exposed: &Exposed, ip: IpAddr) -> Option<IpAddr> {
    let in_table = |table: &crate::ipvs::table::ServiceTable| {
        super::exposed::tcp_services(table).any(|(service, _)| service == ip)
    };
    if node.live || ip.is_loopback() || node.table().is_none_or(in_table) {
        return None;
    }
    let same_family = exposed.by_address.iter().filter(|(other, _)| other.is_ipv4() == ip.is_ipv4());
    same_family.max_by_key(|(_, ports)| ports.count()).map(|(other, _)| *other)
}

fn total_rate(node: &Node, traffic: Option<&Traffic>) -> Option<Estimate> {
    let direct = traffic.map(Traffic::direct);
    match node.measured {
        Some(measured) => {
            let all = Estimate::of_count(measured.connects, measured.seconds);
            let through: u64 = traffic
                .iter()
                .flat_map(|traffic| traffic.sources.values())
                .map(|count| count.through_services)
                .sum();
            let direct = direct.unwrap_or(0);
            Some(if direct + through == 0 { all } else { all.times(share(direct, direct + through)) })
        }
        None => direct.map(|direct| Estimate::of_count(direct, TIME_WAIT_S)),
    }
}

#[expect(clippy::cast_precision_loss)] // counts of sockets are far below 2^52
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Spreads the connects over the source addresses and adds up what each fails.
fn failures(
    node: &Node,
    traffic: Option<&Traffic>,
    sources: &mut [Source],
    total: Estimate,
    worst: f64,
) -> Estimate {
    let direct = traffic.map_or(0, Traffic::direct);
    if direct == 0 {
        // Nobody knows from which address: none of them may be exposed, or all.
        let per_hour = total.times(worst * 3600.0);
        return Estimate { low: 0.0, ..per_hour };
    }
    let mut sum = Estimate::ZERO;
    for source in sources {
        let count = traffic.and_then(|traffic| traffic.sources.get(&source.ip));
        let count = count.map_or(0, |count| count.direct);
        let rate = match node.measured {
            Some(_) => total.times(share(count, direct)),
            None => Estimate::of_count(count, TIME_WAIT_S),
        };
        source.rate = Some(rate);
        if count > 0 {
            let per_hour = rate.times(source.chance * 3600.0);
            // If the listing was complete, nothing fails from there.
            let low = if source.like.is_some() { 0.0 } else { per_hour.low };
            sum = sum.plus(Estimate { low, ..per_hour });
        }
    }
    sum
}
