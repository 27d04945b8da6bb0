//! What a port map shows, in lanes and in words.

use crate::analysis::model::{Analysis, PortMap};
use crate::diagnosis::incident::Verdict;
use crate::node::port_ranges::PortRanges;

/// Ports of one kind.
pub(super) struct Lane {
    /// In one or two words.
    pub(super) short: &'static str,
    /// In full, with the numbers.
    pub(super) long: String,
    /// CSS class and sign in a text.
    pub(super) class: &'static str,
    pub(super) sign: char,
    pub(super) ports: PortRanges,
}

pub(super) struct PortFacts {
    pub(super) lanes: Vec<Lane>,
    pub(super) sentences: Vec<String>,
}

/// Ports that a sentence lists; a node can have thousands.
const MAX_LISTED: usize = 24;

impl PortFacts {
    pub(super) fn of(ports: &PortMap, analysis: &Analysis) -> Self {
        let ephemeral = ports.ephemeral.ports();
        let (first, last) = (ports.ephemeral.first, ports.ephemeral.last);
        let hit = hit(analysis);
        let reserved = ports.reserved.clone().unwrap_or_default();
        let exposed = ports.services.intersect(&ephemeral).difference(&reserved);
        let mut lanes = vec![Lane {
            short: "source ports",
            long: format!("source ports the kernel may choose (ip_local_port_range): {first}-{last}"),
            class: "ephemeral",
            sign: '█',
            ports: ephemeral,
        }];
        if let Some(reserved) = ports.reserved.clone().filter(|reserved| !reserved.is_empty()) {
            let long = format!("reserved, never chosen (ip_local_reserved_ports): {}", list(&reserved));
            lanes.push(Lane { short: "reserved", long, class: "reserved", sign: '█', ports: reserved });
        }
        if let Some((from, to)) = ports.node_ports {
            let long = format!("NodePort range of the API server: {from}-{to}");
            lanes.push(Lane {
                short: "NodePort range",
                long,
                class: "nodeports",
                sign: '█',
                ports: PortRanges::range(from, to),
            });
        }
        let long = format!("{} TCP service ports: {}", ports.services.count(), list(&ports.services));
        lanes.push(Lane {
            short: "service ports",
            long,
            class: "services",
            sign: '▲',
            ports: ports.services.clone(),
        });
        if !hit.is_empty() {
            let long = format!("source ports of the collisions: {}", list(&hit));
            lanes.push(Lane { short: "hit by collisions", long, class: "hit", sign: '✗', ports: hit });
        }
        Self { sentences: sentences(ports, &exposed), lanes }
    }
}

fn sentences(ports: &PortMap, exposed: &PortRanges) -> Vec<String> {
    let count = exposed.count();
    let mut all = vec![match (count, ports.services.is_empty()) {
        (_, true) => "No service port is known.".to_owned(),
        (0, false) => "No service port lies among the source ports that the kernel may choose.".to_owned(),
        (1, false) => format!("1 service port can be chosen as a source port: {}.", list(exposed)),
        (count, false) => format!("{count} service ports can be chosen as source ports: {}.", list(exposed)),
    }];
    match &ports.reserved {
        None => all.push(
            "Which ports are reserved is not known from the inputs; reserved ones are never chosen."
                .to_owned(),
        ),
        Some(reserved) if reserved.is_empty() => all.push("No port is reserved.".to_owned()),
        Some(_) => {}
    }
    if ports.node_ports.is_none() {
        all.push("The NodePort range of the API server is not known from the inputs.".to_owned());
    }
    all
}

/// Source ports of collisions.
fn hit(analysis: &Analysis) -> PortRanges {
    let collisions = analysis.incidents.iter().map(|analysed| &analysed.incident);
    let collisions =
        collisions.filter(|incident| matches!(incident.verdict, Verdict::Collision | Verdict::CollisionSnat));
    collisions
        .filter_map(|incident| incident.connection.local.as_deref())
        .filter_map(|local| local.rsplit_once(':')?.1.parse::<u16>().ok())
        .collect()
}

/// The ports as the kernel writes them, and how many more.
fn list(ports: &PortRanges) -> String {
    let shown = PortRanges::from_ranges(ports.ranges().iter().take(MAX_LISTED).copied());
    let hidden = ports.count().saturating_sub(shown.count());
    let text = shown.to_string().replace(',', ", ");
    match (text.is_empty(), hidden) {
        (true, _) => "none".to_owned(),
        (false, 0) => text,
        (false, hidden) => format!("{text} and {hidden} more"),
    }
}
