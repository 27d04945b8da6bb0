//! What a check says besides its numbers.

use std::collections::BTreeSet;

use super::check::{Finding, Judged, Severity, Status};
use super::exhaustion::Prediction;
use super::exposed::{Exposed, NodePorts};
use super::node::{Ipvs, Node};
use super::rate::TIME_WAIT_S;
use super::refused;
use super::search::SearchPosition;
use super::traffic::{Destination, Traffic};
use crate::ipvs::table::Protocol;
use crate::kubernetes::names::{Duplicate, duplicates};
use crate::node::port_ranges::PortRanges;

/// Share of the ports from which on it is said that they run out.
const NEARLY_USED_UP: f64 = 0.8;
/// Names and ports in one sentence.
const MAX_LISTED: usize = 12;

/// Everything, the most important first.
pub(super) fn all(judged: &Judged<'_>, status: Status) -> Vec<Finding> {
    let mut all = judged.node.findings.clone();
    all.push(overlap(judged, status));
    all.extend(ipvs(judged));
    all.extend(kube(judged));
    all.extend(judged.node.refused.iter().take(MAX_LISTED).map(|port| refused::finding(judged.node, port)));
    all.extend(judged.exposed.iter().flat_map(|exposed| services(judged, exposed)));
    all.extend(judged.traffic.iter().flat_map(|traffic| sockets(judged, traffic)));
    all.extend(kernel(judged));
    all.sort_by_key(|finding| finding.severity);
    all
}

/// healthCheckNodePorts of all Services: kube-proxy listens there.
pub(super) fn health_check_ports(node: &Node) -> PortRanges {
    node.services.iter().flatten().filter_map(|service| service.health_check_node_port).collect()
}

fn overlap(judged: &Judged<'_>, status: Status) -> Finding {
    let Some((first, last)) = judged.node_ports.range() else {
        return Finding::new(
            Severity::Warning,
            "the NodePort range is not known: services lie outside Kubernetes' default 30000-32767. Only the ports in use \
             were judged; say --node-port-range, so that those of future Services are too",
        );
    };
    let range = judged.node.ephemeral.value;
    let both = judged.node_ports.ports().intersect(&range.ports()).count();
    let open = judged.overlap_unreserved().count();
    let assumed = match judged.node_ports {
        NodePorts::Default => " (Kubernetes' default; say --node-port-range if the API server has another)",
        _ => "",
    };
    let share = 100.0 * f64::from(open) / f64::from(range.ports().count());
    let ports = |count: u32| counted(count, "port", "ports");
    let range_text = format!("NodePort range {first}-{last}{assumed}");
    match (both, open) {
        (0, _) => Finding::new(
            Severity::Info,
            format!(
                "the {range_text} and the local port range {} to {} do not overlap",
                range.first, range.last
            ),
        ),
        (both, 0) => Finding::new(
            Severity::Info,
            format!(
                "the {range_text} overlaps the local port range by {}, and all of them are reserved",
                ports(both)
            ),
        ),
        (_, open) => Finding::new(
            if judged.without_ipvs() || status == Status::Pass { Severity::Warning } else { Severity::Error },
            format!(
                "the {range_text} overlaps the local port range by {} that nothing reserves, {share:.2}% of it. kube-proxy \
                 does not bind NodePorts (since Kubernetes 1.24), so only ip_local_reserved_ports keeps the kernel from \
                 picking them",
                ports(open)
            ),
        ),
    }
}

fn counted(count: u32, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

fn ipvs(judged: &Judged<'_>) -> Vec<Finding> {
    match &judged.node.ipvs {
        Ipvs::NotInUse(how) => vec![Finding::new(
            Severity::Info,
            format!(
                "IPVS is not in use on this node ({how}): kube-proxy works in iptables or nftables mode, or not at all, so no \
                 connect can collide with a service"
            ),
        )],
        Ipvs::Table(table) if table.value.services.is_empty() && table.value.unreadable.is_empty() => {
            vec![Finding::new(
                Severity::Info,
                "the IPVS table is empty: kube-proxy does not work in IPVS mode here, so no connect can collide now",
            )]
        }
        Ipvs::Unknown(why) => vec![Finding::new(
            Severity::Info,
            format!("the IPVS table is not known ({why}): only the ranges were compared"),
        )],
        Ipvs::Table(_) => Vec::new(),
    }
}

fn kube(judged: &Judged<'_>) -> Vec<Finding> {
    let node = judged.node;
    let mut all = Vec::new();
    let candidates = node.candidates();
    let health = health_check_ports(node).intersect(&candidates);
    if !health.is_empty() {
        all.push(Finding::new(
            Severity::Warning,
            format!(
                "kube-proxy must be able to listen on healthCheckNodePort {health}, which a connect can take away: reserve it \
                 too (it is no IPVS service)"
            ),
        ));
    }
    let extra = judged.extra_unreserved();
    if !extra.is_empty() {
        all.push(Finding::new(
            Severity::Error,
            format!(
                "{extra} of --extra-ports can become the source port of a connect, and then the program that wants to listen \
                 there cannot (address already in use)"
            ),
        ));
    }
    all.extend(duplicates(node.services.as_deref().unwrap_or_default()).iter().map(duplicate));
    all
}

fn duplicate(duplicate: &Duplicate) -> Finding {
    let claims: Vec<String> =
        duplicate.claims.iter().map(|claim| format!("{claim} ({})", claim.kind)).collect();
    Finding::new(
        Severity::Warning,
        format!(
            "{} port {} is claimed twice: by {}; one of them cannot work",
            duplicate.protocol,
            duplicate.port,
            claims.join(" and by ")
        ),
    )
}

fn services(judged: &Judged<'_>, exposed: &Exposed) -> Vec<Finding> {
    let mut all = Vec::new();
    if exposed.elsewhere > 0 {
        let why = match judged.node.addresses {
            Some(_) => "which no connect starts from (kube-ipvs0, or not of this node)",
            None => "which carry no NodePort, so they are taken for ClusterIPs",
        };
        all.push(Finding::new(
            Severity::Info,
            format!(
                "{} a port in the range, on addresses {why}: not counted",
                counted(exposed.elsewhere, "more service has", "more services have")
            ),
        ));
    }
    for ip in &exposed.whole_addresses {
        all.push(Finding::new(
            Severity::Error,
            format!(
                "the service {ip}:0 covers every port of the address, so every connect from there collides"
            ),
        ));
    }
    let assumed = judged.failures.iter().flat_map(|failures| &failures.sources);
    for source in assumed.filter(|source| source.like.is_some()) {
        let Some(like) = source.like else { continue };
        all.push(Finding::new(
            Severity::Warning,
            format!(
                "the table shows no service on {}, from which connects start, although kube-proxy puts every NodePort on each \
                 address of the node: the listing seems to be cut off, so the ports of {like} were assumed. The low end of the \
                 expected failures is without this assumption",
                source.ip
            ),
        ));
    }
    all
}

fn sockets(judged: &Judged<'_>, traffic: &Traffic) -> Vec<Finding> {
    let mut all: Vec<Finding> = wrong_sources(judged, traffic);
    all.extend(listen_conflicts(judged, traffic));
    all.extend(unreserved_listeners(judged, traffic));
    all.extend(exhaustion(judged, traffic));
    all
}

/// Connects that start from an address of `kube-ipvs0` or of the DNS cache (kubernetes/kubernetes#89898).
fn wrong_sources(judged: &Judged<'_>, traffic: &Traffic) -> Vec<Finding> {
    let cluster_ips: BTreeSet<_> = judged
        .node
        .services
        .iter()
        .flatten()
        .flat_map(|service| service.cluster_ips.iter().copied())
        .collect();
    let mut all = Vec::new();
    let mut told = BTreeSet::new();
    for socket in judged.node.sockets.iter().flat_map(|sockets| &sockets.value) {
        let source = crate::ipvs::table::canonical_ip(socket.local.ip());
        let remote = crate::ipvs::table::canonical_ip(socket.remote.ip());
        if !traffic.sources.contains_key(&source) || socket.remote.port() == 0 || told.contains(&source) {
            continue;
        }
        let known = judged.node.addresses.as_ref().and_then(|own| own.wrong_source(source, remote));
        let virtual_ip = (judged.node.addresses.is_none() && cluster_ips.contains(&source) && source != remote)
            .then(|| format!("connects start from {source}, which is a ClusterIP (on kube-ipvs0): see `ip route get {remote}`"));
        if let Some(text) = known.or(virtual_ip) {
            told.insert(source);
            all.push(Finding::new(Severity::Warning, text));
        }
    }
    all
}

/// A program that listens where a service is (kubernetes/kubernetes#85418).
fn listen_conflicts(judged: &Judged<'_>, traffic: &Traffic) -> Vec<Finding> {
    let Some(table) = judged.node.table() else { return Vec::new() };
    let mut hit = BTreeSet::new();
    for listener in &traffic.listeners {
        let anywhere = listener.ip().is_unspecified();
        if anywhere {
            let own = judged.exposed.iter().flat_map(|exposed| exposed.by_address.keys());
            let addresses = own.map(|ip| std::net::SocketAddr::new(*ip, listener.port()));
            hit.extend(addresses.filter(|address| is_service(table, *address)));
        } else if is_service(table, *listener) {
            hit.insert(*listener);
        }
    }
    let texts = hit.iter().take(MAX_LISTED).map(|address| {
        format!(
            "a program listens on port {} although {address} is a service: whoever connects to that address reaches a \
             backend of the service instead of the program",
            address.port()
        )
    });
    texts.map(|text| Finding::new(Severity::Warning, text)).collect()
}

fn is_service(table: &crate::ipvs::table::ServiceTable, address: std::net::SocketAddr) -> bool {
    table.services.contains_key(&crate::ipvs::table::ServiceId::Address(Protocol::Tcp, address))
}

/// Listeners whose port a connect can take while they restart (onedr0p/home-ops#11712).
fn unreserved_listeners(judged: &Judged<'_>, traffic: &Traffic) -> Option<Finding> {
    let open = traffic.listening_ports().intersect(&judged.node.candidates());
    let count = open.count();
    (count > 0).then(|| {
        let listed = open.ranges().iter().take(MAX_LISTED);
        let listed: PortRanges = PortRanges::from_ranges(listed.copied());
        let more = if open.ranges().len() > MAX_LISTED { " and more" } else { "" };
        Finding::new(
            Severity::Warning,
            format!(
                "{} not reserved ({listed}{more}): while such a program restarts, a connect can take its port. Reserve what \
                 is fixed",
                counted(count, "port that a program listens on is", "ports that programs listen on are")
            ),
        )
    })
}

/// When ports run out; of which kind is said (kubernetes/kubernetes#115143).
fn exhaustion(judged: &Judged<'_>, traffic: &Traffic) -> Vec<Finding> {
    let available = judged.node.candidates().difference(&traffic.listening_ports()).count();
    let mut all = Vec::new();
    if let Some(Destination { source, remote, ports, time_wait }) = traffic.busiest
        && f64::from(ports) >= NEARLY_USED_UP * f64::from(available)
    {
        all.push(Finding::new(
            Severity::Warning,
            format!(
                "from {source} to {remote}, {ports} of {available} source ports are in use ({time_wait} in TIME-WAIT): connects \
                 there fail (EADDRNOTAVAIL) when none is left"
            ),
        ));
    }
    let total: u64 = traffic.sources.values().map(|count| count.direct + count.through_services).sum();
    let per_second = f64::from(u32::try_from(total).unwrap_or(u32::MAX)) / TIME_WAIT_S;
    let together = Prediction::new(per_second, available);
    if together.used_up_after_s.is_some() {
        let busiest = traffic.busiest.map_or(0, |busy| busy.ports);
        all.push(Finding::new(
            Severity::Warning,
            format!(
                "all connects together ({per_second:.0} per second) keep {total} ports in TIME-WAIT, more than the {available} there \
                 are. Programs that bind() to port 0 before they connect run out of them (EADDRNOTAVAIL); connect() itself \
                 does not, because it uses one port for many destinations: there the limit is per destination, and the \
                 busiest has {busiest}"
            ),
        ));
    }
    all
}

fn kernel(judged: &Judged<'_>) -> Vec<Finding> {
    let mut all = Vec::new();
    let block = judged.exposed.as_ref().map_or(0, Exposed::longest_block);
    let row = judged.search.in_a_row(block);
    if row > 1 {
        all.push(Finding::new(
            Severity::Info,
            format!(
                "{block} exposed ports lie side by side: about {row} connects to one destination can fail one after another"
            ),
        ));
    }
    if let (Some(release), true) = (&judged.node.kernel, judged.exposed.is_some()) {
        all.push(Finding::new(Severity::Info, search_text(release, judged.search)));
    }
    let same = judged.node.ephemeral.value;
    // Of this node it is said with the file that sets the range.
    if !judged.node.live && same.same_parity() && same.first != same.last {
        all.push(Finding::new(
            Severity::Info,
            "both ends of the local port range have the same parity: the kernel logs \"prefer different parity\", which \
             is no fault",
        ));
    }
    all.extend(reuse_mode(judged));
    all
}

/// What a collision looks like here: resets each time, or drops in between (`ip_vs_in`, conn_reuse_mode).
fn reuse_mode(judged: &Judged<'_>) -> Option<Finding> {
    let mode = judged.node.conn_reuse_mode.filter(|_| !judged.without_ipvs())?;
    let text = match (mode, judged.node.conntrack) {
        (0, _) => {
            "net.ipv4.vs.conn_reuse_mode is 0: a connect that collides has every reply reset".to_owned()
        }
        (_, Some(false)) => format!(
            "net.ipv4.vs.conn_reuse_mode is {mode} and nf_conntrack is not loaded: a connect that collides has every \
             reply reset"
        ),
        _ => format!(
            "net.ipv4.vs.conn_reuse_mode is {mode}: a connect that collides sees resets and silent drops in turn, where \
             conntrack follows it"
        ),
    };
    Some(Finding::new(Severity::Info, text))
}

fn search_text(release: &str, search: SearchPosition) -> String {
    match search {
        SearchPosition::Global => format!(
            "kernel {release} searches ports from one position for the whole machine: every connect of any process moves \
             all others on, so a busy program drives kubelet into the service ports sooner"
        ),
        SearchPosition::PerDestination => format!(
            "kernel {release} searches ports from a position per source and destination: connects of other programs to \
             other destinations do not move kubelet's ports"
        ),
        SearchPosition::Unknown => format!(
            "whether other programs' connects move kubelet's ports on kernel {release} is not known: distributions have \
             ported that change back"
        ),
    }
}
