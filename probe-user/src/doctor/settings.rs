//! The sysctls that decide whether and how collisions fail.

use super::environment::Environment;
use super::findings::{WITHOUT_IPVS, finding};
use super::needs::present;
use super::{Area, Finding, Status};
use crate::node::port_ranges::PortRanges;
use crate::node::sysctl::NetSysctls;

/// Which source ports the kernel chooses from.
pub(super) fn ports(environment: &Environment) -> Vec<Finding> {
    let sysctls = environment.sysctls.as_ref().ok();
    let range = sysctls.and_then(|read| read.local_port_range);
    let reserved = sysctls.and_then(|read| read.reserved_ports.as_ref());
    vec![
        setting(
            Area::Node,
            "local ports",
            range.map(|range| format!("{} to {}", range.first, range.last)),
            true,
            "net.ipv4.ip_local_port_range: where connect() takes its source ports from; services in it can collide",
            environment,
        ),
        setting(
            Area::Node,
            "reserved ports",
            reserved.map(reserved_text),
            true,
            "net.ipv4.ip_local_reserved_ports: never chosen by connect(); service ports belong here",
            environment,
        ),
    ]
}

fn reserved_text(ports: &PortRanges) -> String {
    const MAX: usize = 60;
    let text = ports.to_string();
    match text.char_indices().nth(MAX) {
        _ if text.is_empty() => "none".to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// How IPVS treats a reply that hits a service.
pub(super) fn ipvs(environment: &Environment) -> Vec<Finding> {
    let loaded = present(environment.kernel.ip_vs);
    let value = |get: fn(&NetSysctls) -> Option<i32>| {
        let value = environment.sysctls.as_ref().ok().and_then(get);
        value.map(|value| value.to_string()).or_else(|| (!loaded).then(|| WITHOUT_IPVS.to_owned()))
    };
    let reuse = value(|read| read.vs_conn_reuse_mode);
    let reuse_why = match reuse.as_deref() {
        Some("0") => "a colliding connect has every SYN-ACK reset",
        Some("1") => "a colliding connect sees resets and silent drops in turn, where IPVS uses conntrack",
        _ => "decides whether a colliding connect is reset each time (0) or sees silent drops in between (1)",
    };
    let row = |name, value, why| setting(Area::Ipvs, name, value, loaded, why, environment);
    vec![
        row(
            "vs.conntrack",
            value(|read| read.vs_conntrack),
            "net.ipv4.vs.conntrack: whether IPVS connections have conntrack entries; kube-proxy sets 1",
        ),
        row("conn_reuse_mode", reuse, &format!("net.ipv4.vs.conn_reuse_mode: {reuse_why}")),
        row(
            "expire_nodest",
            value(|read| read.vs_expire_nodest_conn),
            "net.ipv4.vs.expire_nodest_conn: whether connections to a backend that is gone end at once; kube-proxy \
             sets 1",
        ),
    ]
}

/// A setting that could not be read is a fault only if it should be there.
fn setting(
    area: Area,
    name: &str,
    value: Option<String>,
    expected: bool,
    why: &str,
    environment: &Environment,
) -> Finding {
    let status = if value.is_none() && expected { Status::Reduced } else { Status::Ok };
    let reason = match &environment.sysctls {
        Err(error) => error.clone(),
        Ok(read) if read.problems.is_empty() => "it is not in /proc/sys".to_owned(),
        Ok(read) => read.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    finding(area, name, value, status, why, Some(&format!("/proc/sys must be readable: {reason}")))
}
