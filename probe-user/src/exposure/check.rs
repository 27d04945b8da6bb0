//! The verdict on a node: the data of `portclash check`, plain, rendered by [`crate::report::check`].

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;

use super::estimate::{self, Failures};
use super::exposed::{self, Exposed, NodePorts};
use super::findings;
use super::node::{Ipvs, Node};
use super::rate::{Estimate, mean_seconds};
use super::search::SearchPosition;
use super::traffic::Traffic;
use crate::diagnosis::advice::{self, NodeFacts};
use crate::diagnosis::incident::Advice;
use crate::kubernetes::names::ServiceNames;
use crate::node::port_ranges::PortRanges;

/// Whether a connect can collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// None can, as far as is known.
    Pass,
    /// One can, or will be able to with the next Service; or a port that must be reserved is not.
    Fail,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Wrong now; a check that fails has at least one.
    Error,
    /// Another fault, or one to come.
    Warning,
    /// Good to know.
    Info,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// In words.
    pub text: String,
}

impl Finding {
    /// A finding.
    pub fn new(severity: Severity, text: impl Into<String>) -> Self {
        Self { severity, text: text.into() }
    }
}

/// `net.ipv4.ip_local_port_range`, or the NodePort range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Range {
    /// Lowest port.
    pub first: u16,
    /// Highest port, included.
    pub last: u16,
    /// Where the value comes from.
    pub source: String,
}

/// A service port that the kernel can pick as a source port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ExposedPort {
    /// The port.
    pub port: u16,
    /// Addresses of the node on which it is a service.
    pub addresses: Vec<String>,
    /// Kubernetes names, `namespace/name:port`; empty = not known, several = ambiguous.
    pub services: Vec<String>,
    /// Whether connect() picks it while ports of its preferred parity are free. Otherwise only programs that bind()
    /// to port 0 first do.
    pub hit_by_connect: bool,
}

/// Chance that one connect collides, by how the program gets its port; from the address with the highest.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Chances {
    /// connect() on an unbound socket.
    pub connect: f64,
    /// bind() to port 0, then connect().
    pub bind_zero: f64,
    /// The same with SO_REUSEADDR.
    pub bind_zero_reuseaddr: f64,
    /// IP_LOCAL_PORT_RANGE set to the whole range (kernel 6.8 and later).
    pub ip_local_port_range_option: f64,
}

/// What one source address contributes.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SourceAddress {
    /// The address.
    pub address: String,
    /// Exposed ports on it.
    pub exposed_count: u32,
    /// Of these, the ones that connect() can pick.
    pub reachable_count: u32,
    /// If the table shows no service on it: the address whose ports it is assumed to have.
    pub assumed_like: Option<String>,
    /// Chance per connect().
    pub chance_per_connect: f64,
    /// Connects per second that can collide.
    pub connects_per_second: Option<f64>,
}

/// A range of values, 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Between {
    /// Low end.
    pub low: f64,
    /// High end.
    pub high: f64,
}

/// `portclash.check/v1`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Check {
    /// `portclash.check/v1`
    pub schema: &'static str,
    /// What was looked at.
    pub node: String,
    /// The verdict.
    pub status: Status,
    /// `net.ipv4.ip_local_port_range`
    pub ephemeral: Range,
    /// `net.ipv4.ip_local_reserved_ports`, merged; `null` = not known.
    pub reserved: Option<Vec<String>>,
    /// Where that value comes from.
    pub reserved_source: Option<String>,
    /// Whether the node has an IPVS table: `null` = not known.
    pub ipvs_in_use: Option<bool>,
    /// TCP services in the IPVS table; `null` = not known.
    pub services_tcp: Option<u32>,
    /// Service ports that the kernel can pick; `null` = the table is not known.
    pub exposed_ports: Option<Vec<ExposedPort>>,
    /// How many there are.
    pub exposed_count: Option<u32>,
    /// How many of these connect() picks while ports of its preferred parity are free.
    pub reachable_count: Option<u32>,
    /// `--service-node-port-range` of the API server; `null` = not known.
    pub node_port_range: Option<Range>,
    /// Ports in both ranges.
    pub overlap_count: Option<u32>,
    /// Of these, the ones that are not reserved.
    pub overlap_unreserved: Option<u32>,
    /// Chance that one connect() collides, from the address with the highest; `null` = the table is not known.
    pub chance_per_connect: Option<f64>,
    /// Starting points of the search for a port: the chance is a multiple of one of these.
    pub starting_points: u32,
    /// The same by how the program gets its port.
    pub chances: Option<Chances>,
    /// Per address that connects start from.
    pub sources: Vec<SourceAddress>,
    /// Connects per second that can collide.
    pub connects_per_second: Option<f64>,
    /// What that was taken from: `TIME-WAIT` or `measured`.
    pub rate_source: Option<String>,
    /// Expected failures per hour.
    pub expected_failures_per_hour: Option<f64>,
    /// Where that value lies.
    pub expected_failures_range: Option<Between>,
    /// Mean time until the first failure, seconds; `null` = not known, or never.
    pub seconds_to_first: Option<f64>,
    /// Whether connects of other processes move a program's source ports: `global`, `per_destination`; `null` = not
    /// known.
    pub port_search: Option<String>,
    /// Ports that should be reserved and are not yet all, merged; empty = nothing is to be done.
    pub to_reserve: Vec<String>,
    /// What to set.
    pub advice: Vec<Advice>,
    /// What else was found.
    pub findings: Vec<Finding>,
    /// What could not be read.
    pub incomplete: Vec<String>,
}

/// What follows from a node, before it is put into words.
pub(super) struct Judged<'a> {
    pub(super) node: &'a Node,
    pub(super) traffic: Option<Traffic>,
    pub(super) exposed: Option<Exposed>,
    pub(super) node_ports: NodePorts,
    pub(super) failures: Option<Failures>,
    pub(super) search: SearchPosition,
    pub(super) names: ServiceNames,
}

impl Judged<'_> {
    /// NodePorts that the kernel may pick.
    pub(super) fn overlap_unreserved(&self) -> PortRanges {
        self.node_ports.ports().intersect(&self.node.candidates())
    }

    /// `--extra-ports` that the kernel may pick.
    pub(super) fn extra_unreserved(&self) -> PortRanges {
        self.node.extra_ports.intersect(&self.node.candidates())
    }

    /// True if nobody makes IPVS services here: then NodePorts are no services either.
    pub(super) fn without_ipvs(&self) -> bool {
        match &self.node.ipvs {
            Ipvs::NotInUse(_) => true,
            Ipvs::Table(table) => table.value.services.is_empty() && table.value.unreadable.is_empty(),
            Ipvs::Unknown(_) => false,
        }
    }

    fn status(&self) -> Status {
        let exposed = self.exposed.as_ref().is_some_and(|exposed| !exposed.by_address.is_empty());
        let to_come = !self.without_ipvs() && !self.overlap_unreserved().is_empty();
        match exposed || to_come || !self.extra_unreserved().is_empty() {
            true => Status::Fail,
            false => Status::Pass,
        }
    }
}

/// Judges a node.
pub fn judge(node: &Node) -> Check {
    let traffic = Traffic::of(node);
    let exposed = node.table().map(|table| exposed::find(node, table, traffic.as_ref()));
    let failures = exposed.as_ref().map(|exposed| estimate::estimate(node, exposed, traffic.as_ref()));
    let judged = Judged {
        node,
        node_ports: exposed::node_ports(node),
        search: node.kernel.as_deref().map_or(SearchPosition::Unknown, SearchPosition::of_release),
        names: ServiceNames::new(node.services.as_deref().unwrap_or_default()),
        traffic,
        exposed,
        failures,
    };
    report(&judged)
}

fn report(judged: &Judged<'_>) -> Check {
    let Judged { node, exposed, failures, search, .. } = judged;
    let status = judged.status();
    let table = node.table();
    let per_hour = failures.as_ref().and_then(|failures| failures.per_hour);
    let (facts, more) = node_facts(judged);
    let to_reserve = advice::must_reserve(&facts, &more).filter(|_| status == Status::Fail);
    let per_second = failures.as_ref().and_then(|failures| failures.connects);
    Check {
        schema: "portclash.check/v1",
        node: node.what.clone(),
        status,
        ephemeral: Range {
            first: node.ephemeral.value.first,
            last: node.ephemeral.value.last,
            source: node.ephemeral.source.clone(),
        },
        reserved: node.reserved.as_ref().map(|reserved| parts(&reserved.value)),
        reserved_source: node.reserved.as_ref().map(|reserved| reserved.source.clone()),
        ipvs_in_use: match node.ipvs {
            Ipvs::Table(_) => Some(true),
            Ipvs::NotInUse(_) => Some(false),
            Ipvs::Unknown(_) => None,
        },
        services_tcp: table.map(|table| count(exposed::tcp_services(table).count())),
        exposed_ports: exposed.as_ref().map(|exposed| exposed_ports(judged, exposed)),
        exposed_count: exposed.as_ref().map(|exposed| exposed.all().count()),
        reachable_count: failures.as_ref().map(|failures| reachable(failures).count()),
        node_port_range: node_port_range(judged),
        overlap_count: overlap(judged, &node.ephemeral.value.ports()),
        overlap_unreserved: overlap(judged, &node.candidates()),
        chance_per_connect: failures.as_ref().map(|failures| failures.chance),
        starting_points: node.ephemeral.value.first_choices(),
        chances: failures.as_ref().map(chances),
        sources: failures.iter().flat_map(|failures| &failures.sources).map(source).collect(),
        connects_per_second: per_second.map(|rate| rate.value),
        rate_source: failures.as_ref().and_then(|failures| failures.rate_source).map(str::to_owned),
        expected_failures_per_hour: per_hour.map(|rate| rate.value),
        expected_failures_range: per_hour.map(|Estimate { low, high, .. }| Between { low, high }),
        seconds_to_first: per_hour.and_then(|rate| mean_seconds(rate.value)),
        port_search: match search {
            SearchPosition::Global => Some("global".to_owned()),
            SearchPosition::PerDestination => Some("per_destination".to_owned()),
            SearchPosition::Unknown => None,
        },
        to_reserve: to_reserve.map(|(ports, _)| parts(&ports)).unwrap_or_default(),
        advice: if status == Status::Fail { advice::prevent(&facts, &more) } else { Vec::new() },
        findings: findings::all(judged, status),
        incomplete: node.incomplete.clone(),
    }
}

fn parts(ports: &PortRanges) -> Vec<String> {
    ports.to_string().split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn overlap(judged: &Judged<'_>, with: &PortRanges) -> Option<u32> {
    judged.node_ports.range().map(|_| judged.node_ports.ports().intersect(with).count())
}

/// Ports that connect() picks, from whatever address.
pub(super) fn reachable(failures: &Failures) -> PortRanges {
    let own = failures.sources.iter().filter(|source| source.like.is_none());
    own.fold(PortRanges::default(), |all, source| all.union(&source.reachable))
}

fn node_port_range(judged: &Judged<'_>) -> Option<Range> {
    let (first, last) = judged.node_ports.range()?;
    let given = judged.node.node_port_range.as_ref().map(|range| range.source.clone());
    let source = given.unwrap_or_else(|| "Kubernetes' default, assumed".to_owned());
    Some(Range { first, last, source })
}

fn exposed_ports(judged: &Judged<'_>, exposed: &Exposed) -> Vec<ExposedPort> {
    let reachable = judged.failures.as_ref().map(reachable).unwrap_or_default();
    let named = |port: u16, addresses: &BTreeSet<std::net::IpAddr>| ExposedPort {
        port,
        addresses: addresses.iter().map(ToString::to_string).collect(),
        services: exposed::names_of(&judged.names, port, addresses),
        hit_by_connect: reachable.contains(port),
    };
    exposed.ports.iter().map(|(port, addresses)| named(*port, addresses)).collect()
}

fn chances(failures: &Failures) -> Chances {
    Chances {
        connect: failures.chance,
        bind_zero: failures.chance_bind,
        bind_zero_reuseaddr: failures.chance_bind_reuse,
        ip_local_port_range_option: failures.chance_own_range,
    }
}

fn source(source: &estimate::Source) -> SourceAddress {
    SourceAddress {
        address: source.ip.to_string(),
        exposed_count: source.exposed.count(),
        reachable_count: source.reachable.count(),
        assumed_like: source.like.map(|like| like.to_string()),
        chance_per_connect: source.chance,
        connects_per_second: source.rate.map(|rate| rate.value),
    }
}

/// What the advice needs: the ports in use, and those that must be kept free besides.
fn node_facts(judged: &Judged<'_>) -> (NodeFacts, PortRanges) {
    let node = judged.node;
    let range = node.ephemeral.value;
    let exposed = judged.exposed.as_ref().map(Exposed::all).unwrap_or_default();
    let facts = NodeFacts {
        reserved: node.reserved.as_ref().map(|reserved| reserved.value.to_string()),
        local_port_range: Some((range.first, range.last)),
        node_port_range: judged.node_ports.range(),
        service_ports: exposed.ports().collect(),
    };
    let health = findings::health_check_ports(node);
    (facts, health.union(&node.extra_ports).intersect(&range.ports()))
}
