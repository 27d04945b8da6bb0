//! Reads the tables of a network namespace from its `/proc/<pid>/net`, with another way where that is hidden.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::netlink::{NetlinkError, NetlinkTable};
use super::proc::{self, ConnectionTable};
use super::table::ServiceTable;
use super::{Form, MAX_BYTES};

/// How often a table that keeps changing is read.
const TRIES: usize = 5;

/// How a table was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSource {
    /// By which way.
    pub way: Way,
    /// What the reader should know: the table kept changing.
    pub note: Option<String>,
}

/// The ways to read a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// From this file.
    File(PathBuf),
    /// By generic netlink.
    Netlink {
        /// Why not from the file.
        because: String,
    },
}

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The namespace is there, IPVS is not.
    #[error(
        "{0} does not exist: IPVS is not in use (kube-proxy in iptables or nftables mode?), so no service port can \
         collide"
    )]
    NotLoaded(PathBuf),
    /// The directory of the namespace is gone.
    #[error("{0} does not exist: the process has ended, or /proc is not mounted (a container needs hostPID)")]
    NoNamespace(PathBuf),
    /// The file is there but cannot be read.
    #[error("reading {path}: {source}; run as root")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there but holds something else.
    #[error("{0} holds no IPVS table: it is masked by a mount; run outside that container")]
    Masked(PathBuf),
    /// Neither way worked.
    #[error("{file}; then {netlink}")]
    NoWay {
        /// Why not from the file.
        file: String,
        /// Why not by netlink.
        netlink: NetlinkError,
    },
}

/// Reads the service table of the namespace whose `/proc/<pid>/net` is `proc_net`.
///
/// The kernel hands the file out in pieces between which it may change, so it is read until two reads agree, at most
/// five times; then the last one is taken and the note says so. Where the file is hidden or cannot be read,
/// `netlink` is called, usually [`super::netlink::read_table`]: it must run in that network namespace (netlink reads
/// the namespace of the thread that opens the socket). A file that is missing is [`ReadError::NotLoaded`], and
/// `netlink` is not called: it would load the module. `hz`: see [`proc::parse_table`].
pub fn read_node_table(
    proc_net: &Path,
    hz: Option<u32>,
    netlink: impl FnOnce() -> Result<NetlinkTable, NetlinkError>,
) -> Result<(ServiceTable, TableSource), ReadError> {
    let path = proc_net.join("ip_vs");
    match settle(|| read_file(proc_net, &path, Form::Proc).map(|bytes| proc::parse_table(&bytes, hz))) {
        Ok((table, note)) => Ok((table, TableSource { way: Way::File(path), note })),
        Err(error @ (ReadError::NotLoaded(_) | ReadError::NoNamespace(_))) => Err(error),
        Err(error) => match netlink() {
            Ok(read) => {
                let way = Way::Netlink { because: error.to_string() };
                Ok((read.table, TableSource { way, note: read.note }))
            }
            Err(netlink) => Err(ReadError::NoWay { file: error.to_string(), netlink }),
        },
    }
}

/// Reads the services of the namespace whose `/proc/<pid>/net` is `proc_net`, without their backends, by `netlink`:
/// usually [`super::netlink::read_services`], with the same need as for [`read_node_table`]. `None` if that fails.
///
/// For whoever needs no backends this is much faster: the kernel looks for the place to go on from the beginning of the
/// table, for each 4 KiB of the file (`ip_vs_info_array`), and for each 32 KiB of netlink.
pub fn read_node_services(
    proc_net: &Path,
    netlink: impl FnOnce() -> Result<NetlinkTable, NetlinkError>,
) -> Result<Option<(ServiceTable, TableSource)>, ReadError> {
    // Asked without the module, netlink would load it.
    open(proc_net, &proc_net.join("ip_vs"))?;
    Ok(netlink().ok().map(|read| {
        let way = Way::Netlink { because: "the services alone".to_owned() };
        (read.table, TableSource { way, note: read.note })
    }))
}

/// Reads the connections that IPVS made, from `ip_vs_conn` in `proc_net`. It changes all the time: it is read once,
/// and a row may be missing or come twice.
pub fn read_connections(proc_net: &Path) -> Result<ConnectionTable, ReadError> {
    let path = proc_net.join("ip_vs_conn");
    read_file(proc_net, &path, Form::ProcConnections).map(|bytes| proc::parse_connections(&bytes))
}

/// Reads until two reads in a row agree; else the last read, with a note.
fn settle(
    mut read: impl FnMut() -> Result<ServiceTable, ReadError>,
) -> Result<(ServiceTable, Option<String>), ReadError> {
    let mut last = read()?;
    for _ in 1..TRIES {
        let next = read()?;
        if next == last {
            return Ok((next, None));
        }
        last = next;
    }
    Ok((last, Some(format!("the table changed between {TRIES} reads in a row; the last one is shown"))))
}

fn open(proc_net: &Path, path: &Path) -> Result<File, ReadError> {
    let unreadable = |source| ReadError::Unreadable { path: path.to_owned(), source };
    File::open(path).map_err(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            return unreadable(error);
        }
        match proc_net.try_exists() {
            Ok(true) => ReadError::NotLoaded(path.to_owned()),
            Ok(false) => ReadError::NoNamespace(proc_net.to_owned()),
            Err(error) => unreadable(error),
        }
    })
}

fn read_file(proc_net: &Path, path: &Path, form: Form) -> Result<Vec<u8>, ReadError> {
    let unreadable = |source| ReadError::Unreadable { path: path.to_owned(), source };
    let file = open(proc_net, path)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_BYTES {
        return Err(unreadable(io::Error::other(format!("larger than {MAX_BYTES} bytes"))));
    }
    // The kernel always prints a header.
    if Form::of(&bytes) != Some(form) {
        return Err(ReadError::Masked(path.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
