//! A node as files and options describe it. Nothing is taken from this machine.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::exposure::check::{Finding, Severity};
use crate::exposure::node::{Ipvs, Node, Sourced};
use crate::ipvs::table::{ServiceTable, Unreadable};
use crate::ipvs::{self, Content};
use crate::kubernetes::kube_proxy_log::{self, RefusedPort};
use crate::kubernetes::list;
use crate::kubernetes::service::KubeService;
use crate::node::addresses::{Interface, LocalAddresses};
use crate::node::port_ranges::PortRanges;
use crate::node::sockets::text::{self, ParsedSockets};
use crate::node::sysctl::EphemeralRange;

/// Most bytes of one file.
const MAX_FILE: u64 = 512 << 20;
/// Rows that are shown of those that could not be read.
const SHOWN_ROWS: usize = 3;

/// Why a file is no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("read {what} from {}: {source}", name(path))]
    Read {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("read {what} from {}: {reason}", name(path))]
    Content {
        /// What should be in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What describes a node.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// `--local-port-range`
    pub local_port_range: Option<EphemeralRange>,
    /// `--reserved-ports`
    pub reserved_ports: Option<PortRanges>,
    /// `--ipvs`
    pub ipvs: Option<PathBuf>,
    /// `--sockets`
    pub sockets: Option<PathBuf>,
    /// `--local-address`
    pub local_addresses: Vec<IpAddr>,
    /// `--kernel`
    pub kernel: Option<String>,
}

impl Description {
    /// True if nothing was given: then this machine is meant.
    pub const fn is_empty(&self) -> bool {
        self.local_port_range.is_none()
            && self.reserved_ports.is_none()
            && self.ipvs.is_none()
            && self.sockets.is_none()
            && self.local_addresses.is_empty()
            && self.kernel.is_none()
    }
}

/// What was read of the cluster's Services, and what is to be known about it.
#[derive(Debug, Default)]
pub struct ClusterServices {
    /// The Services.
    pub services: Option<Vec<KubeService>>,
    /// Remarks of the reader.
    pub findings: Vec<Finding>,
    /// Rows that could not be read.
    pub incomplete: Vec<String>,
}

/// Reads the node that `given` describes, with `range` as its local port range.
pub fn read(given: &Description, range: EphemeralRange) -> Result<Node, FileError> {
    let (mut findings, mut incomplete) = (Vec::new(), Vec::new());
    let ipvs = match &given.ipvs {
        None => Ipvs::Unknown("no --ipvs".to_owned()),
        Some(path) => {
            let (table, notes) = read_table(path)?;
            findings.extend(
                notes.into_iter().map(|note| Finding::new(Severity::Info, format!("{}: {note}", name(path)))),
            );
            incomplete.extend(rows(path, &table.unreadable));
            Ipvs::Table(Sourced { value: Arc::new(table), source: name(path) })
        }
    };
    let parsed =
        given.sockets.as_deref().map(|path| read_sockets(path).map(|parsed| (path, parsed))).transpose()?;
    let (mut sockets, mut time_wait_counts) = (None, std::collections::BTreeMap::new());
    if let Some((path, parsed)) = parsed {
        incomplete.extend(rows(path, &parsed.unreadable));
        time_wait_counts = parsed.counts;
        let only_counted = parsed.sockets.is_empty() && !time_wait_counts.is_empty();
        sockets = (!only_counted).then(|| Sourced { value: parsed.sockets, source: name(path) });
    }
    if given.reserved_ports.is_none() {
        findings.push(Finding::new(
            Severity::Warning,
            "what is reserved on that node is not known; it was judged as if nothing were. Give --reserved-ports \
             \"$(sysctl -n net.ipv4.ip_local_reserved_ports)\" from there",
        ));
    }
    let addresses = (!given.local_addresses.is_empty()).then(|| {
        given
            .local_addresses
            .iter()
            .map(|ip| (*ip, Interface::new("", ip.is_loopback())))
            .collect::<LocalAddresses>()
    });
    Ok(Node {
        what: "a node as the options and files describe it; nothing was read from this machine".to_owned(),
        live: false,
        ephemeral: Sourced { value: range, source: "--local-port-range".to_owned() },
        reserved: given
            .reserved_ports
            .clone()
            .map(|value| Sourced { value, source: "--reserved-ports".to_owned() }),
        node_port_range: None,
        ipvs,
        addresses,
        sockets,
        time_wait_counts,
        services: None,
        refused: Vec::new(),
        extra_ports: PortRanges::default(),
        kernel: given.kernel.clone(),
        conn_reuse_mode: None,
        conntrack: None,
        measured: None,
        findings,
        incomplete,
    })
}

/// Reads `kubectl get svc` in any form.
pub fn read_services(path: &Path) -> Result<ClusterServices, FileError> {
    const WHAT: &str = "Services";
    let bytes = read_bytes(WHAT, path)?;
    let list = list::parse_services(&bytes).map_err(|error| content(WHAT, path, error.to_string()))?;
    let mut incomplete = rows(path, &list.unreadable);
    incomplete.extend(list.cut_short.iter().map(|reason| format!("{}: {reason}", name(path))));
    let note = |note: &String| Finding::new(Severity::Info, format!("{}: {note}", name(path)));
    Ok(ClusterServices {
        findings: list.left_out(&["Pod"]).iter().chain(&list.notes).map(note).collect(),
        services: Some(list.items),
        incomplete,
    })
}

/// Ports that kube-proxy could not listen on, and what of its log could not be read.
pub fn read_kube_proxy_log(path: &Path) -> Result<(Vec<RefusedPort>, Vec<String>), FileError> {
    let read = kube_proxy_log::parse(&read_bytes("kube-proxy's log", path)?);
    let lines = read.unreadable.iter().take(SHOWN_ROWS).map(usize::to_string).collect::<Vec<_>>().join(", ");
    let unreadable = (!read.unreadable.is_empty()).then(|| {
        let count = read.unreadable.len();
        format!(
            "{}: {count} lines about ports that could not be opened were not understood (line {lines})",
            name(path)
        )
    });
    Ok((read.ports, unreadable.into_iter().collect()))
}

fn read_table(path: &Path) -> Result<(ServiceTable, Vec<String>), FileError> {
    const WHAT: &str = "the IPVS table";
    let bytes = read_bytes(WHAT, path)?;
    let parsed = ipvs::parse_services(&bytes).map_err(|error| content(WHAT, path, error.to_string()))?;
    match parsed.content {
        Content::Services(table) => Ok((table, parsed.notes)),
        Content::Connections(_) => Err(content(
            WHAT,
            path,
            "this is the table of connections; give the services (`ipvsadm -Ln`)".to_owned(),
        )),
    }
}

fn read_sockets(path: &Path) -> Result<ParsedSockets, FileError> {
    const WHAT: &str = "sockets";
    let bytes = read_bytes(WHAT, path)?;
    let parsed = text::parse_sockets(&bytes);
    if parsed.form.is_none() {
        let reason = "nothing in it lists sockets; give the output of `ss -tan` or `netstat -tan`".to_owned();
        return Err(content(WHAT, path, reason));
    }
    Ok(parsed)
}

fn content(what: &'static str, path: &Path, reason: String) -> FileError {
    FileError::Content { what, path: path.to_owned(), reason }
}

fn read_bytes(what: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let read = if is_stdin(path) {
        io::stdin().lock().take(MAX_FILE).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => Err(FileError::Read { what, path: path.to_owned(), source }),
    }
}

/// `-`
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// The first rows that could not be read, with file and line, and how many more there are.
fn rows(path: &Path, unreadable: &[Unreadable]) -> Vec<String> {
    let name = name(path);
    let shown = unreadable.iter().take(SHOWN_ROWS);
    let mut texts: Vec<String> =
        shown.map(|row| format!("{name}, line {}: {}: \"{}\"", row.line, row.reason, row.text)).collect();
    let more = unreadable.len().saturating_sub(SHOWN_ROWS);
    if more > 0 {
        texts.push(format!("{name}: {more} more rows could not be read"));
    }
    texts
}
