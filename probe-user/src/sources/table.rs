//! The node's service table, kept fresh: re-read on the kernel's trigger and by polling, differences handed on.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::ipvs::reader::{
    ReadError, TableSource, Way, read_connections, read_node_services, read_node_table,
};
use crate::ipvs::table::{IpvsConnection, ServiceTable};
use crate::ipvs::{Content, netlink, parse_services};
use crate::node::netns::{NetNs, NetnsError, NetnsSpec};
use crate::observation::Nanos;
use crate::sources::clock::processor_time;

/// Why the table could not be read at the start.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file that the user gave cannot be opened.
    #[error("read services from {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file that the user gave is of another kind.
    #[error("read services from {path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
}

/// One reading of the table.
#[derive(Debug)]
pub struct TableRead {
    /// The table; `None` = it could not be read, the one of before stays in force.
    pub table: Option<Arc<ServiceTable>>,
    /// What was read, for people.
    pub source: String,
    /// What the reading could not do, for the list of what is incomplete.
    pub trouble: Option<String>,
    /// Processor time that reading took, as far as it is known.
    pub cost: Duration,
}

impl TableRead {
    /// A reading that brought nothing.
    pub fn failed(reason: impl Display) -> Self {
        let trouble = Some(format!("service table: {reason}"));
        Self { table: None, source: "IPVS table".into(), trouble, cost: Duration::ZERO }
    }
}

/// Reads the table, as often as it is told.
#[derive(Clone, Debug)]
pub struct TableReader {
    file: Option<PathBuf>,
    netns: NetnsSpec,
}

impl TableReader {
    /// From a file of the user's, else the IPVS table of the namespace.
    pub const fn new(file: Option<PathBuf>, netns: NetnsSpec) -> Self {
        Self { file, netns }
    }

    /// Reads the table. Only a file of the user's can fail, see [`Self::read_node`].
    pub fn read(&self) -> Result<TableRead, TableError> {
        let Some(file) = &self.file else { return Ok(self.read_node()) };
        let source = format!("service table {}", file.display());
        let table = Some(Arc::new(read_services(file)?));
        Ok(TableRead { table, source, trouble: None, cost: Duration::ZERO })
    }

    /// Reads the IPVS table: a node without IPVS has an empty one, and one that cannot be read now is tried again and
    /// said.
    pub fn read_node(&self) -> TableRead {
        let read = in_namespace(&self.netns, |proc_net| {
            let begun = processor_time();
            let read = read_node_table(proc_net, None, netlink::read_table);
            (read, processor_time().saturating_sub(begun))
        });
        let (read, cost) = match read {
            Ok(read) => read,
            Err(error) => return TableRead::failed(error),
        };
        match read {
            Ok((table, source)) => {
                let way = match source.way {
                    Way::File(path) => format!("IPVS table {}", path.display()),
                    Way::Netlink { because } => format!("IPVS table by netlink ({because})"),
                };
                TableRead { table: Some(Arc::new(table)), source: way, trouble: source.note, cost }
            }
            Err(ReadError::NotLoaded(_)) => {
                TableRead { table: Some(Arc::default()), source: "no IPVS".into(), trouble: None, cost }
            }
            Err(error) => TableRead { cost, ..TableRead::failed(error) },
        }
    }

    /// Rows of the IPVS connection table; empty where there is none.
    pub fn connections(&self) -> Vec<IpvsConnection> {
        match in_namespace(&self.netns, read_connections) {
            Ok(Ok(table)) => table.rows,
            _ => Vec::new(),
        }
    }

    /// True if the table is the user's file, which nothing watches.
    pub const fn is_file(&self) -> bool {
        self.file.is_some()
    }
}

/// Runs `read` with the `/proc/<pid>/net` of a namespace, in a thread inside it where no process shows it.
fn in_namespace<T: Send>(netns: &NetnsSpec, read: impl FnOnce(&Path) -> T + Send) -> Result<T, NetnsError> {
    match netns {
        NetnsSpec::Pid(pid) => Ok(read(Path::new(&format!("/proc/{pid}/net")))),
        NetnsSpec::Path(_) => NetNs::open(netns)?.run_inside(|| read(Path::new("/proc/thread-self/net"))),
    }
}

/// Reads the IPVS table of a namespace once, and says why it could not; `hz`: see [`crate::ipvs::proc::parse_table`].
pub fn read_once(netns: &NetnsSpec) -> Result<Result<(ServiceTable, TableSource), ReadError>, NetnsError> {
    in_namespace(netns, |proc_net| read_node_table(proc_net, None, netlink::read_table))
}

/// Reads the services of a namespace once, without their backends, the fastest way that works.
pub fn read_services_once(
    netns: &NetnsSpec,
) -> Result<Result<(ServiceTable, TableSource), ReadError>, NetnsError> {
    let proc_net = match netns {
        NetnsSpec::Pid(pid) => PathBuf::from(format!("/proc/{pid}/net")),
        NetnsSpec::Path(_) => PathBuf::from("/proc/thread-self/net"),
    };
    let inside = NetNs::open(netns)
        .and_then(|netns| netns.run_inside(|| read_node_services(&proc_net, netlink::read_services)));
    match inside {
        Ok(Ok(Some(read))) => Ok(Ok(read)),
        Ok(Err(error @ ReadError::NotLoaded(_))) => Ok(Err(error)),
        // Whatever is wrong, the file may still tell, or says better what.
        Ok(Ok(None) | Err(_)) | Err(_) => read_once(netns),
    }
}

/// Several times the table of 200,000 services. A device that never ends must not fill the memory.
const MAX_FILE: u64 = 256 << 20;

fn read_services(path: &Path) -> Result<ServiceTable, TableError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    read.map_err(|source| TableError::File { path: path.to_owned(), source })?;
    let content = |reason: String| TableError::Content { path: path.to_owned(), reason };
    match parse_services(&bytes).map_err(|error| content(error.to_string()))?.content {
        Content::Services(table) => Ok(table),
        Content::Connections(_) => {
            Err(content("this is the IPVS connection table; give the services (`ipvsadm -Ln`)".into()))
        }
    }
}

/// The table as it is known now.
#[derive(Debug, Default)]
pub struct CurrentTable {
    table: Arc<ServiceTable>,
    /// What it was read from, for people.
    source: Arc<str>,
    /// How often the table was read.
    pub reads: u64,
    /// When it was read last; `None` = never.
    pub read_at: Option<Nanos>,
    /// How often the table could not be read.
    failures: u64,
    trouble: Option<String>,
}

impl CurrentTable {
    /// The table.
    pub fn current(&self) -> &ServiceTable {
        &self.table
    }

    /// The table, to share.
    pub fn shared(&self) -> Arc<ServiceTable> {
        Arc::clone(&self.table)
    }

    /// What it was read from, for people.
    pub fn source(&self) -> Arc<str> {
        Arc::clone(&self.source)
    }

    /// Takes what was read at `now`.
    pub fn take(&mut self, read: TableRead, now: Nanos) {
        match (read.table, read.trouble) {
            (Some(table), trouble) => {
                self.reads += 1;
                self.read_at = Some(now);
                self.table = table;
                self.source = read.source.into();
                self.trouble = trouble;
            }
            (None, trouble) => self.failed(trouble.unwrap_or_default()),
        }
    }

    /// It could not be read: the table of before stays in force.
    fn failed(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!("{trouble}");
        }
        self.trouble = Some(trouble);
        self.failures += 1;
    }

    /// How often the table could not be read.
    pub const fn failures(&self) -> u64 {
        self.failures
    }

    /// What the last reading could not do, one sentence.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}
