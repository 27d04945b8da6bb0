//! `portclash check` for people: the verdict, the odds, what is exposed, what to type next.

use std::collections::BTreeMap;

use super::text::{TextStyle, advise, grouped};
use super::text_escape::escape_all;
use super::text_page::{BOLD, CYAN, DIM, GREEN, PLAIN, Page, RED, YELLOW};
use crate::exposure::check::{Check, ExposedPort, Finding, Severity, Status};
use crate::node::port_ranges::PortRanges;

/// Column where the texts beside a label begin.
const COLUMN: usize = 16;
/// Exposed ports that are listed; the JSON has all of them.
const MAX_PORTS: usize = 20;

/// The whole report.
pub fn page(check: &Check, style: TextStyle) -> String {
    let mut page = Page::new(style.colour, style.width);
    verdict(&mut page, check);
    page.blank();
    facts(&mut page, check);
    exposed(&mut page, check);
    findings(&mut page, check);
    if !check.advice.is_empty() {
        page.blank();
        page.verbatim(2, BOLD, "What to do");
        for (n, advice) in check.advice.iter().enumerate() {
            if n > 0 {
                page.blank();
                page.verbatim(4, BOLD, "Or, instead of that");
                page.blank();
            }
            advise(&mut page, advice);
        }
    }
    page.finish()
}

fn verdict(page: &mut Page, check: &Check) {
    let (tag, colour) = match check.status {
        Status::Pass => ("PASS", GREEN),
        Status::Fail => ("FAIL", RED),
    };
    page.field(0, (tag, colour), 6, (&headline(check), BOLD));
    page.field(0, ("", PLAIN), 6, (&escape_all(&check.node), DIM));
    if !check.incomplete.is_empty() {
        let text = "what could not be read is listed below; the verdict holds for the rest";
        page.field(0, ("", PLAIN), 6, (text, YELLOW));
    }
}

fn headline(check: &Check) -> String {
    let ports = |count: u32| match count {
        1 => "1 service port".to_owned(),
        count => format!("{} service ports", grouped(count.into())),
    };
    match (check.status, check.exposed_count) {
        (Status::Pass, _) => "No connect of this node can get a service's port as its source port.".to_owned(),
        (Status::Fail, Some(count @ 1..)) => format!(
            "{} can become the source port of a connect; that connect then cannot complete.",
            ports(count)
        ),
        (Status::Fail, _) if check.overlap_unreserved.is_some_and(|open| open > 0) => {
            "The kernel may pick NodePorts as source ports; a connect from a port that is in use as one cannot \
             complete."
                .to_owned()
        }
        (Status::Fail, _) => "Ports that must stay free can become the source port of a connect.".to_owned(),
    }
}

fn facts(page: &mut Page, check: &Check) {
    let mut row = |label: &str, text: &str| page.field(2, (label, BOLD), COLUMN, (text, PLAIN));
    let range = &check.ephemeral;
    row("Local ports", &escape_all(&format!("{} to {} ({})", range.first, range.last, range.source)));
    row("Reserved", &reserved(check));
    row("NodePorts", &node_ports(check));
    row("Services", &services(check));
    if let Some(odds) = odds(check) {
        row("Odds", &odds);
    }
    if check.exposed_count.is_some_and(|count| count > 0) {
        if let Some(rate) = rate(check) {
            row("Connects", &rate);
        }
        row("Expect", &expectation(check));
    }
    if check.status == Status::Fail {
        row(
            "At risk",
            "connects that programs in the node's network (kubelet's probes first) make directly: to pods, to other \
             nodes, to the outside",
        );
        row("Not at risk", "connects to a ClusterIP, and what pods with a network of their own connect to");
    }
}

fn reserved(check: &Check) -> String {
    let source = check.reserved_source.as_deref().unwrap_or_default();
    let text = match &check.reserved {
        None => "not known; judged as if nothing were".to_owned(),
        Some(parts) if parts.is_empty() => format!("nothing ({source})"),
        Some(parts) => {
            const MAX: usize = 12;
            let more =
                if parts.len() > MAX { format!(" and {} more", parts.len() - MAX) } else { String::new() };
            format!("{}{more} ({source})", parts.iter().take(MAX).cloned().collect::<Vec<_>>().join(", "))
        }
    };
    escape_all(&text)
}

fn node_ports(check: &Check) -> String {
    let Some(range) = &check.node_port_range else {
        return "range not known; services lie outside Kubernetes' default 30000-32767, so say --node-port-range".to_owned();
    };
    let both = check.overlap_count.unwrap_or(0);
    let open = check.overlap_unreserved.unwrap_or(0);
    let overlap = match (both, open) {
        (0, _) => "no port is in both ranges".to_owned(),
        (both, 0) => format!("{} ports are in both ranges, all reserved", grouped(both.into())),
        (both, open) if both == open => {
            format!("{} ports are in both ranges, none reserved", grouped(both.into()))
        }
        (both, open) => {
            format!(
                "{} ports are in both ranges, {} not reserved",
                grouped(both.into()),
                grouped(open.into())
            )
        }
    };
    escape_all(&format!("{}-{} ({}): {overlap}", range.first, range.last, range.source))
}

fn services(check: &Check) -> String {
    if check.ipvs_in_use == Some(false) {
        return "none: IPVS is not in use on this node".to_owned();
    }
    match (check.services_tcp, check.exposed_count) {
        (Some(services), Some(exposed)) => {
            let reachable = check.reachable_count.unwrap_or(0);
            let hit = if exposed == 0 {
                String::new()
            } else {
                format!(", {} of them hit by connect()", grouped(reachable.into()))
            };
            format!(
                "{} TCP services in IPVS, {} ports exposed{hit}",
                grouped(services.into()),
                grouped(exposed.into())
            )
        }
        _ => "IPVS table not known".to_owned(),
    }
}

fn odds(check: &Check) -> Option<String> {
    let chances = check.chances.as_ref().filter(|_| check.exposed_count.is_some_and(|count| count > 0))?;
    let bind = percent(chances.bind_zero);
    let connect = match check.chance_per_connect {
        Some(chance) if chance > 0.0 => {
            format!("{} per connect ({})", in_starts(chance, check.starting_points), percent(chance))
        }
        _ => "none per connect()".to_owned(),
    };
    Some(format!("{connect}; {bind} for programs that bind() to port 0 before they connect"))
}

/// `7 in 31,988`: the chance is that many starting points of the search.
fn in_starts(chance: f64, starts: u32) -> String {
    let hits = chance * f64::from(starts);
    if (hits - hits.round()).abs() < 1e-6 {
        format!("{hits:.0} in {}", grouped(starts.into()))
    } else {
        format!("1 in {:.0}", 1.0 / chance)
    }
}

fn percent(chance: f64) -> String {
    match chance * 100.0 {
        none if none <= 0.0 => "0%".to_owned(),
        small if small < 1.0 => format!("{small:.3}%"),
        share => format!("{share:.1}%"),
    }
}

fn rate(check: &Check) -> Option<String> {
    let rate = check.connects_per_second?;
    let how = match check.rate_source.as_deref() {
        Some("measured") => "measured; connects to services left out in proportion to TIME-WAIT sockets",
        _ => "at least: from sockets in TIME-WAIT, where each stays 60 s if this side closed first",
    };
    Some(format!("{rate:.2} per second that can collide ({how})"))
}

fn expectation(check: &Check) -> String {
    let Some(per_hour) = check.expected_failures_per_hour else {
        return "not known without a rate of connects: give --sockets, or --measure 10s on the node"
            .to_owned();
    };
    let between = check.expected_failures_range.map_or_else(String::new, |between| {
        format!(", between {} and {}", number(between.low), number(between.high))
    });
    match check.seconds_to_first {
        Some(seconds) => {
            format!(
                "one failed connect every {} on average: {} per hour{between}",
                span(seconds),
                number(per_hour)
            )
        }
        None => format!("no failure{between} per hour"),
    }
}

fn number(value: f64) -> String {
    match value {
        none if none <= 0.0 => "0".to_owned(),
        small if small < 0.1 => format!("{small:.3}"),
        value if value < 100.0 => format!("{value:.1}"),
        large => format!("{large:.0}"),
    }
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} seconds"),
        s if s < 7200.0 => format!("{:.1} minutes", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} hours", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

fn exposed(page: &mut Page, check: &Check) {
    let Some(ports) = check.exposed_ports.as_deref().filter(|ports| !ports.is_empty()) else { return };
    page.blank();
    page.verbatim(2, BOLD, "Exposed ports");
    let (hit, rest): (Vec<&ExposedPort>, Vec<&ExposedPort>) =
        ports.iter().partition(|port| port.hit_by_connect);
    let (named_ones, nameless): (Vec<&ExposedPort>, Vec<&ExposedPort>) =
        hit.into_iter().partition(|port| !port.services.is_empty());
    for port in named_ones.iter().take(MAX_PORTS) {
        page.field(4, (&port.port.to_string(), CYAN), COLUMN, (&named(port), PLAIN));
    }
    let hidden = named_ones.len().saturating_sub(MAX_PORTS);
    if hidden > 0 {
        page.paragraph(COLUMN, &format!("… and {} more, see the JSON output", grouped(hidden as u64)));
    }
    let mut by_address: BTreeMap<&[String], Vec<u16>> = BTreeMap::new();
    for port in nameless {
        by_address.entry(&port.addresses).or_default().push(port.port);
    }
    for (addresses, ports) in by_address.into_iter().take(MAX_PORTS) {
        let text = escape_all(&format!("on {}: {}", listed_addresses(addresses), listed_ports(&ports)));
        page.field(4, (&counted(ports.len()), CYAN), COLUMN, (&text, PLAIN));
    }
    if !rest.is_empty() {
        let ports: Vec<u16> = rest.iter().map(|port| port.port).collect();
        let text = format!(
            "only for programs that bind() to port 0 first, or when the others are used up: {}",
            listed_ports(&ports)
        );
        page.field(4, (&counted(rest.len()), CYAN), COLUMN, (&text, PLAIN));
    }
}

fn counted(ports: usize) -> String {
    if ports == 1 { "1 port".to_owned() } else { format!("{} ports", grouped(ports as u64)) }
}

fn listed_ports(ports: &[u16]) -> String {
    let all: PortRanges = ports.iter().copied().collect();
    let shown = PortRanges::from_ranges(all.ranges().iter().take(MAX_PORTS).copied());
    let more = if all.ranges().len() > MAX_PORTS { " and more, see the JSON output" } else { "" };
    format!("{}{more}", shown.to_string().replace(',', ", "))
}

fn listed_addresses(addresses: &[String]) -> String {
    const MAX: usize = 4;
    let more = addresses.len().saturating_sub(MAX);
    let more = if more > 0 { format!(" and {more} more addresses") } else { String::new() };
    format!("{}{more}", addresses.iter().take(MAX).cloned().collect::<Vec<_>>().join(", "))
}

fn named(port: &ExposedPort) -> String {
    let on = listed_addresses(&port.addresses);
    escape_all(&match port.services.as_slice() {
        [one] => format!("{one} on {on}"),
        several => format!("ambiguous: {} on {on}", several.join(" or ")),
    })
}

fn findings(page: &mut Page, check: &Check) {
    let Check { findings, incomplete, .. } = check;
    if findings.is_empty() && incomplete.is_empty() {
        return;
    }
    page.blank();
    page.verbatim(2, BOLD, "Found");
    for Finding { severity, text } in findings {
        let (label, style) = match severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
            Severity::Info => ("note", DIM),
        };
        page.field(4, (label, style), COLUMN, (&escape_all(text), PLAIN));
    }
    for text in incomplete {
        page.field(4, ("incomplete", YELLOW), COLUMN, (&escape_all(text), PLAIN));
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
