//! The whole report that is expected.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use serde_json::{Value, json};

use super::super::expected::advice_to_reserve;
use super::super::port_choice::SEED;
use super::node::name_of;
use super::{ADVISED, DNS, STARTS};
use crate::lab::read;
use crate::netns;
use crate::node::NODE;

/// A number that was computed another way.
fn near(value: f64) -> Value {
    json!({"<between>": [value * (1.0 - 1e-9), value * (1.0 + 1e-9)]})
}

pub(super) fn expected_report(counts: &BTreeMap<IpAddr, u32>) -> Result<Value> {
    let netns = netns::inode("node")?;
    let release = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let chance = 7.0 / f64::from(STARTS);
    let per_second = f64::from(counts.values().sum::<u32>()) / 60.0;
    let exposed = [NODE.parse::<IpAddr>()?, DNS.parse()?];
    let at_risk: u32 = exposed.iter().filter_map(|ip| counts.get(ip)).sum();
    let per_hour = f64::from(at_risk) / 60.0 * chance * 3600.0;
    let ports = SEED.map(|port| {
        json!({
            "port": port,
            "addresses": [NODE, DNS],
            "services": name_of(port).into_iter().collect::<Vec<_>>(),
            "hit_by_connect": port % 2 == 0,
        })
    });
    let mut addresses: Vec<IpAddr> = exposed.iter().chain(counts.keys()).copied().collect();
    addresses.sort_unstable();
    addresses.dedup();
    let sources = addresses.iter().map(|ip| {
        let carries = exposed.contains(ip);
        json!({
            "address": ip,
            "exposed_count": if carries { 18 } else { 0 },
            "reachable_count": if carries { 7 } else { 0 },
            "assumed_like": null,
            "chance_per_connect": near(if carries { chance } else { 0.0 }),
            "connects_per_second": near(f64::from(counts.get(ip).copied().unwrap_or_default()) / 60.0),
        })
    });
    Ok(json!({
        "schema": "portclash.check/v1",
        "node": format!("this node, network namespace {netns} (of pid 1)"),
        "status": "fail",
        "ephemeral": {"first": 1024, "last": 65_000, "source": "the running kernel"},
        "reserved": ["10250", "50000-50010"],
        "reserved_source": "the running kernel",
        "ipvs_in_use": true,
        "services_tcp": 37,
        "exposed_ports": ports,
        "exposed_count": 18,
        "reachable_count": 7,
        "node_port_range": {"first": 20_000, "last": 40_000, "source": "--node-port-range"},
        "overlap_count": 20_001,
        "overlap_unreserved": 20_001,
        "chance_per_connect": near(chance),
        "starting_points": STARTS,
        "chances": {
            "connect": near(chance),
            "bind_zero": near(11.0 / f64::from(STARTS)),
            // The search begins in the lower half of the range, where 8 of the 11 are.
            "bind_zero_reuseaddr": near(8.0 / f64::from(STARTS / 2)),
            // Both parities.
            "ip_local_port_range_option": near(18.0 / 63_977.0),
        },
        "sources": sources.collect::<Vec<_>>(),
        "connects_per_second": near(per_second),
        "rate_source": "TIME-WAIT",
        "expected_failures_per_hour": near(per_hour),
        "expected_failures_range": {
            "low": {"<between>": [per_hour / 3.0, per_hour]},
            "high": {"<between>": [per_hour, per_hour * 3.0]},
        },
        "seconds_to_first": near(3600.0 / per_hour),
        "port_search": if known_search(&release) { Some("per_destination") } else { None },
        "to_reserve": ["20000-40000"],
        "advice": [
            advice_to_reserve(ADVISED),
            {
                "setting": "net.ipv4.ip_local_port_range",
                "value": "40001 65000",
                "command": "sysctl -w net.ipv4.ip_local_port_range=\"40001 65000\"",
                "persist": "/etc/sysctl.d/90-portrange.conf: net.ipv4.ip_local_port_range = 40001 65000",
                "why": "<text>",
            },
        ],
        "findings": expected_findings(&release),
        "incomplete": [],
    }))
}

/// 5.10 got the table of search positions in the middle of its life, and Debian's name does not tell when.
fn known_search(release: &str) -> bool {
    !release.starts_with("5.")
}

fn expected_findings(release: &str) -> Value {
    let search = if known_search(release) {
        format!(
            "kernel {release} searches ports from a position per source and destination: connects of other programs to \
             other destinations do not move kubelet's ports"
        )
    } else {
        format!(
            "whether other programs' connects move kubelet's ports on kernel {release} is not known: distributions have \
             ported that change back"
        )
    };
    let findings = [
        (
            "error",
            "the NodePort range 20000-40000 overlaps the local port range by 20001 ports that nothing reserves, 31.26% of \
             it. kube-proxy does not bind NodePorts (since Kubernetes 1.24), so only ip_local_reserved_ports keeps the \
             kernel from picking them",
        ),
        (
            "warning",
            "net.ipv4.ip_local_reserved_ports is 10250,50000-50010 in the kernel, but no sysctl file sets it: it is lost \
             at the next boot, unless what set it does so again",
        ),
        (
            "warning",
            "kube-proxy must be able to listen on healthCheckNodePort 30555, which a connect can take away: reserve it \
             too (it is no IPVS service)",
        ),
        (
            "warning",
            "1 port that a program listens on is not reserved (38001): while such a program restarts, a connect can take \
             its port. Reserve what is fixed",
        ),
        (
            "info",
            "no sysctl file sets net.ipv4.ip_local_port_range, yet it is not the kernel's default 32768 60999: something \
             else sets it, such as a tuning daemon, a DaemonSet or the image's first boot",
        ),
        (
            "info",
            "net.ipv4.ip_local_port_range 1024 65000: the kernel logs \"prefer different parity for start/end values\", \
             because both ends are even. It is advice about speed and has no part in collisions",
        ),
        (
            "info",
            "1 more service has a port in the range, on addresses which no connect starts from (kube-ipvs0, or not of \
             this node): not counted",
        ),
        ("info", search.as_str()),
        ("info", "net.ipv4.vs.conn_reuse_mode is 0: a connect that collides has every reply reset"),
    ];
    findings.iter().map(|(severity, text)| json!({"severity": severity, "text": text})).collect()
}
