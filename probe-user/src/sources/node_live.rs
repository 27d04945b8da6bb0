//! The node that portclash runs on, as it is now. What cannot be read is said.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::exposure::check::{Finding, Severity};
use crate::exposure::node::{Ipvs, Measured, Node, Sourced};
use crate::ipvs::reader::{ReadError, Way};
use crate::ipvs::table::{ServiceTable, Unreadable};
use crate::node::addresses;
use crate::node::configured;
use crate::node::kernel_info::{KernelInfo, ModuleState};
use crate::node::netns::{self, NetNs, NetnsError, NetnsSpec};
use crate::node::port_ranges::PortRanges;
use crate::node::sockets::diag::{self, States};
use crate::node::sysctl;
use crate::sources::{configuration, table};

pub(super) const KERNEL: &str = "the running kernel";

/// Why the node cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Its network namespace cannot be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Without it nothing can be said.
    #[error(
        "net.ipv4.ip_local_port_range of this node is not known: {0}; or describe the node with --local-port-range"
    )]
    NoRange(String),
    /// `--measure` needs it.
    #[error("the connects cannot be measured: /proc/net/snmp has no ActiveOpens")]
    NoCounter,
}

/// Reads this machine. `measure`: for how long connects are counted. `root`: where the node's file system is; without
/// it, it is looked for.
pub fn read(spec: &NetnsSpec, measure: Option<Duration>, root: Option<&Path>) -> Result<Node, LiveError> {
    let measured = measure.map(|time| count_connects(spec, time)).transpose()?;
    read_with(spec, Known { measured, table: None }, root)
}

/// What is known of the node already.
#[derive(Debug, Default)]
pub struct Known {
    /// Connects that were counted.
    pub measured: Option<Measured>,
    /// Its service table.
    pub table: Option<Sourced<Arc<ServiceTable>>>,
}

/// The same; what is known already is not read again.
pub fn read_with(spec: &NetnsSpec, known: Known, root: Option<&Path>) -> Result<Node, LiveError> {
    let netns = NetNs::open(spec)?;
    let (mut findings, mut incomplete) = (Vec::new(), Vec::new());
    let sysctls = sysctl::read_of(&netns)?;
    let problems: Vec<String> = sysctls.problems.iter().map(ToString::to_string).collect();
    let Some(range) = sysctls.local_port_range else { return Err(LiveError::NoRange(problems.join("; "))) };
    incomplete.extend(problems);
    let said = node_root(root, &netns).map(|root| configured::read_under(&root));
    findings.extend(said.iter().flat_map(|said| configuration::findings(&sysctls, said)));
    let ipvs = match known.table {
        Some(table) => {
            incomplete.extend(unreadable("the IPVS table", &table.value.unreadable));
            Ipvs::Table(table)
        }
        None => read_table(spec, &mut findings, &mut incomplete),
    };
    let kernel = KernelInfo::read(Path::new("/"));
    let addresses = addresses::read_of(&netns);
    let sockets = diag::read_of(&netns, States::ALL);
    let sockets = match sockets {
        Ok(read) => {
            incomplete.extend(read.reading.note);
            incomplete.extend(unreadable("the list of sockets", &read.reading.unreadable));
            Some(Sourced { value: read.sockets, source: KERNEL.to_owned() })
        }
        Err(error) => {
            incomplete.push(error.to_string());
            None
        }
    };
    Ok(Node {
        what: format!("this node, network namespace {} ({spec})", netns.inode),
        live: true,
        ephemeral: Sourced { value: range, source: configuration::range_source(range, said.as_ref()) },
        reserved: sysctls.reserved_ports.map(|value| {
            let source = configuration::reserved_source(&value, said.as_ref());
            Sourced { value, source }
        }),
        node_port_range: said.as_ref().and_then(configuration::node_port_range),
        ipvs,
        addresses: addresses.map_err(|error| incomplete.push(error.to_string())).ok(),
        sockets,
        time_wait_counts: std::collections::BTreeMap::new(),
        services: None,
        refused: Vec::new(),
        extra_ports: PortRanges::default(),
        kernel: kernel.release,
        conn_reuse_mode: sysctls.vs_conn_reuse_mode,
        conntrack: match kernel.conntrack {
            ModuleState::Loaded | ModuleState::BuiltIn => Some(true),
            ModuleState::Absent => Some(false),
            ModuleState::NotKnown => None,
        },
        measured: known.measured,
        findings,
        incomplete,
    })
}

/// The configuration is that of process 1's namespace; of another one's, nobody keeps files.
fn node_root(root: Option<&Path>, netns: &NetNs) -> Option<PathBuf> {
    if let Some(root) = root {
        return Some(root.to_owned());
    }
    let first = NetNs::open(&NetnsSpec::default()).ok()?;
    let root = Path::new("/proc/1/root");
    (first.inode == netns.inode)
        .then(|| if root.join("etc").exists() { root } else { Path::new("/") }.to_owned())
}

fn read_table(spec: &NetnsSpec, findings: &mut Vec<Finding>, incomplete: &mut Vec<String>) -> Ipvs {
    let failed = |error: &dyn std::error::Error, incomplete: &mut Vec<String>| {
        incomplete.push(format!("service table: {error}"));
        Ipvs::Unknown(error.to_string())
    };
    match table::read_services_once(spec) {
        Ok(Ok((table, source))) => {
            incomplete.extend(unreadable("the IPVS table", &table.unreadable));
            findings.extend(source.note.map(|note| Finding::new(Severity::Info, note)));
            let source = match source.way {
                Way::File(path) => path.display().to_string(),
                Way::Netlink { because } => format!("netlink ({because})"),
            };
            Ipvs::Table(Sourced { value: Arc::new(table), source })
        }
        Ok(Err(ReadError::NotLoaded(path))) => Ipvs::NotInUse(format!("{} does not exist", path.display())),
        Ok(Err(error)) => failed(&error, incomplete),
        Err(error) => failed(&error, incomplete),
    }
}

fn unreadable(what: &str, rows: &[Unreadable]) -> Option<String> {
    let first = rows.first()?;
    Some(format!(
        "{what}: {} rows could not be read, the first is {}: {}",
        rows.len(),
        first.line,
        first.reason
    ))
}

/// `ActiveOpens` counts every TCP connect of the namespace as it begins, whoever makes it, so nothing is missed that
/// begins and ends between two looks at the sockets. It does not say where to.
fn count_connects(spec: &NetnsSpec, time: Duration) -> Result<Measured, LiveError> {
    let begin = (active_opens(spec)?, Instant::now());
    std::thread::sleep(time);
    let end = (active_opens(spec)?, Instant::now());
    Ok(Measured { connects: end.0.saturating_sub(begin.0), seconds: (end.1 - begin.1).as_secs_f64() })
}

/// TCP connects that were begun in a namespace since it exists (`ActiveOpens`).
pub fn active_opens(spec: &NetnsSpec) -> Result<u64, LiveError> {
    let bytes = netns::read_proc_net(spec, "snmp")?;
    parse_active_opens(&String::from_utf8_lossy(&bytes)).ok_or(LiveError::NoCounter)
}

/// Two lines begin with `Tcp:`, the names and the values (net/ipv4/proc.c, snmp_seq_show_tcp_udp).
fn parse_active_opens(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|name| name == "ActiveOpens")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_opens_is_found_by_its_name() {
        let text =
            "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens\nTcp: 1 -1 4711 5\n";
        assert_eq!(parse_active_opens(text), Some(4711));
        assert_eq!(parse_active_opens("Tcp: RtoAlgorithm\nTcp: 1\n"), None);
        assert_eq!(parse_active_opens(""), None);
    }

    #[test]
    fn a_connect_is_counted() {
        let spec = NetnsSpec::Path("/proc/self/ns/net".into());
        let before = active_opens(&spec).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(active_opens(&spec).unwrap() > before);
    }
}
