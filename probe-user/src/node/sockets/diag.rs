//! The TCP sockets of a network namespace from the kernel, through netlink (`inet_diag`), which gives tens of
//! thousands of sockets in TIME-WAIT in milliseconds; `/proc/net/tcp` only where netlink is refused.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkBuffer};
use netlink_sys::{Socket as NetlinkSocket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

use super::diag_wire::{self, BY_FAMILY, Family};
use super::{Socket, TcpState, proc};
use crate::ipvs::rows::RowLog;
use crate::ipvs::table::Unreadable;
use crate::node::netns::{NetNs, NetnsError};

/// The kernel fills datagrams of a dump up to 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
const TRIES: usize = 3;

/// Why the sockets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The dump failed.
    #[error("reading the TCP sockets by netlink (inet_diag): {0}")]
    Netlink(io::Error),
    /// Neither way works.
    #[error("reading the TCP sockets: netlink (inet_diag) is refused: {refused}; and {path}: {source}")]
    Neither {
        /// Why not by netlink.
        refused: String,
        /// File that was tried then.
        path: PathBuf,
        /// Why not from there.
        source: io::Error,
    },
}

/// A set of TCP states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u32);

impl States {
    /// Every state, listeners included.
    pub const ALL: Self = Self(!0);

    /// These states.
    pub fn of(states: &[TcpState]) -> Self {
        Self(states.iter().fold(0, |mask, state| mask | state.mask()))
    }

    /// True if `state` is one of them.
    pub fn contains(self, state: TcpState) -> bool {
        self.0 & state.mask() != 0
    }
}

/// One socket as it comes from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// State.
    pub state: TcpState,
    /// Local address and port; v4-mapped addresses as IPv4.
    pub local: SocketAddr,
    /// Remote address and port; port 0 for a listener.
    pub remote: SocketAddr,
    /// Inode of the socket; 0 where it has none (TIME-WAIT, an embryonic connection).
    pub inode: u32,
    /// Milliseconds until TIME-WAIT ends (of 60 s, TCP_TIMEWAIT_LEN), or until the kernel gives up a connection in
    /// FIN-WAIT-2 that no process holds any more.
    pub time_wait_left_ms: Option<u32>,
}

impl From<Row> for Socket {
    fn from(row: Row) -> Self {
        let inode = (row.inode != 0).then(|| row.inode.into());
        Self { state: row.state, local: row.local, remote: row.remote, inode, users: Vec::new() }
    }
}

/// Which way the sockets were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Netlink, `inet_diag`.
    Netlink,
    /// `/proc/net/tcp` and `tcp6`.
    Proc {
        /// Why not by netlink.
        refused: String,
    },
}

/// How the reading went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which way.
    pub way: Way,
    /// Set if the kernel said during every try that its table changed.
    pub note: Option<String>,
    /// Rows that could not be read, numbered by message or line.
    pub unreadable: Vec<Unreadable>,
}

/// All sockets that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// The sockets, without the processes that hold them.
    pub sockets: Vec<Socket>,
    /// How the reading went.
    pub reading: Reading,
}

/// Reads the sockets of a namespace that are in one of `states`. It blocks, and belongs on a thread that may.
pub fn read_of(netns: &NetNs, states: States) -> Result<Sockets, SocketsError> {
    let (sockets, reading) = fold(netns, states, Vec::new, |all, row| all.push(row.into()))?;
    Ok(Sockets { sockets, reading })
}

/// Sockets in TIME-WAIT with one local address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeWaits {
    /// All of them: closed here in the last 60 s.
    pub count: u64,
    /// Those that were closed in the last 10 s: a rate that follows a change sooner.
    pub last_10_s: u64,
}

/// Counts the sockets in TIME-WAIT per local address without keeping them. `wanted` may leave some out, such as
/// those of accepted connections, whose local port is a listener's.
pub fn count_time_waits(
    netns: &NetNs,
    wanted: impl Fn(&Row) -> bool + Send,
) -> Result<(BTreeMap<IpAddr, TimeWaits>, Reading), SocketsError> {
    fold(netns, States::of(&[TcpState::TimeWait]), BTreeMap::new, move |counts, row| {
        if wanted(&row) {
            let counts: &mut TimeWaits = counts.entry(row.local.ip()).or_default();
            counts.count += 1;
            counts.last_10_s += u64::from(row.time_wait_left_ms.is_some_and(|left| left > 50_000));
        }
    })
}

/// Gives every socket in one of `states` to `add`, none of which is kept here. `new` makes the value that they are
/// added to; it is made anew if the table has to be read again.
pub fn fold<T: Send>(
    netns: &NetNs,
    states: States,
    new: impl Fn() -> T + Send,
    mut add: impl FnMut(&mut T, Row) + Send,
) -> Result<(T, Reading), SocketsError> {
    netns.run_inside(move || fold_here(states, &new, &mut add))?
}

fn fold_here<T>(
    states: States,
    new: &dyn Fn() -> T,
    add: &mut dyn FnMut(&mut T, Row),
) -> Result<(T, Reading), SocketsError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let (mut value, mut log) = (new(), RowLog::default());
        match dump_both(states, &mut log, &mut |row| add(&mut value, row)) {
            Ok(Complete::No) if tries < TRIES => {}
            Ok(complete) => {
                let note = (complete == Complete::No)
                    .then(|| format!("the sockets changed while they were read, {TRIES} times in a row"));
                return Ok((value, Reading { way: Way::Netlink, note, unreadable: log.finish() }));
            }
            Err(error) if is_refusal(&error) => return fold_proc(states, new, add, error.to_string()),
            Err(error) => return Err(SocketsError::Netlink(error)),
        }
    }
}

/// True where the kernel or a filter of system calls does not offer inet_diag, rather than failing in it.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EPERM
                | libc::EACCES
                | libc::ENOSYS
                | libc::ENOENT
                | libc::EPROTONOSUPPORT
                | libc::EAFNOSUPPORT
                | libc::EOPNOTSUPP
                | libc::EINVAL
        )
    )
}

fn fold_proc<T>(
    states: States,
    new: &dyn Fn() -> T,
    add: &mut dyn FnMut(&mut T, Row),
    refused: String,
) -> Result<(T, Reading), SocketsError> {
    let (mut value, mut log) = (new(), RowLog::default());
    for name in ["tcp", "tcp6"] {
        // Not /proc/net: that shows the namespace of the process, not of this thread.
        let path = Path::new("/proc/thread-self/net").join(name);
        match proc::read(&path, states, &mut log, &mut |row| add(&mut value, row)) {
            Ok(()) => {}
            // A kernel without IPv6.
            Err(error) if name == "tcp6" && error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SocketsError::Neither { refused, path, source }),
        }
    }
    Ok((value, Reading { way: Way::Proc { refused }, note: None, unreadable: log.finish() }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Complete {
    Yes,
    /// The kernel says that the table changed in between.
    No,
}

fn dump_both(states: States, log: &mut RowLog, take: &mut dyn FnMut(Row)) -> io::Result<Complete> {
    let mut socket = NetlinkSocket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    let mut dump = Dump { sequence: 0, interrupted: false, number: 0, log, take };
    for family in [Family::V4, Family::V6] {
        dump.sequence += 1;
        socket.send(&diag_wire::request(family, states.0, dump.sequence), 0)?;
        let mut buffer: Vec<u8> = Vec::with_capacity(RECEIVE_BYTES);
        loop {
            buffer.clear();
            match socket.recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                result => result?,
            };
            if dump.datagram(&buffer)? {
                break;
            }
        }
    }
    Ok(if dump.interrupted { Complete::No } else { Complete::Yes })
}

/// The answers to one request after the other.
struct Dump<'a> {
    sequence: u32,
    interrupted: bool,
    number: usize,
    log: &'a mut RowLog,
    take: &'a mut dyn FnMut(Row),
}

impl Dump<'_> {
    /// Takes the rows of one datagram; true at the end of the dump.
    fn datagram(&mut self, mut rest: &[u8]) -> io::Result<bool> {
        while !rest.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(rest) else {
                // Without the end of the dump in it the reader might wait for ever.
                self.log.push(self.number, b"", "the rest of the answer is no netlink message");
                return Ok(true);
            };
            let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
            let next = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            rest = next;
            if message.sequence_number() != self.sequence {
                continue;
            }
            self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                NLMSG_DONE | NLMSG_ERROR => return end(message.payload()).map(|()| true),
                NLMSG_OVERRUN => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                BY_FAMILY => self.row(message.payload()),
                _ => {}
            }
        }
        Ok(false)
    }

    fn row(&mut self, payload: &[u8]) {
        self.number += 1;
        match diag_wire::row(payload) {
            Ok(row) => (self.take)(row),
            Err(reason) => self.log.push(self.number, b"", reason),
        }
    }
}

/// The error number, negative, that ends a dump; 0 = no error.
fn end(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes)) {
        code if code < 0 => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => Ok(()),
    }
}

/// Reads one datagram as the answer to the first request: for tests with bytes from anywhere.
pub(crate) fn parse_datagram(bytes: &[u8]) -> io::Result<(usize, usize)> {
    let (mut rows, mut log) = (0, RowLog::default());
    let mut take = |_| rows += 1;
    let mut dump = Dump { sequence: 1, interrupted: false, number: 0, log: &mut log, take: &mut take };
    dump.datagram(bytes)?;
    Ok((rows, log.finish().len()))
}

#[cfg(test)]
#[path = "diag_tests.rs"]
mod tests;
