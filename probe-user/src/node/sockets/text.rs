//! The output of `ss`, `netstat` and `lsof` that people bring: with or without header, with or without `Netid`,
//! through `grep` and `awk`, or only counted (`… | sort | uniq -c`).
//!
//! A row is read by its words from the state on; the width and the number of columns before it do not matter.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::text_fields::{self as fields, AddressError};
use super::{Socket, TcpState};
use crate::ipvs::rows::{self, RowLog};
use crate::ipvs::table::{Unreadable, canonical_ip};

/// Lines that are looked at to tell what a file is.
const RECOGNISED_LINES: usize = 50;
/// Longest row that is looked at; beyond that the processes of a socket are cut off.
const MAX_ROW: usize = 16 * 1024;

/// Which program wrote the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// `ss`
    Ss,
    /// `netstat`
    Netstat,
    /// `lsof -i`
    Lsof,
    /// Numbers per local address, from `uniq -c`.
    Counts,
}

impl Form {
    /// Tells by its first lines whether `bytes` lists sockets. Cheap: it is for telling kinds of files apart.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        rows::lines(bytes).take(RECOGNISED_LINES).find_map(|(_, line)| match Line::of(&shortened(line)) {
            Line::Header(form)
            | Line::Row(form, Ok(_) | Err(RowError::Unresolved(_) | RowError::OtherProtocol)) => Some(form),
            Line::Count(..) => Some(Self::Counts),
            _ => None,
        })
    }
}

/// What a text with sockets says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedSockets {
    /// What wrote the first row or header that could be read; `None` = nothing here lists sockets.
    pub form: Option<Form>,
    /// TCP sockets. An address `*` (any, both families) is `[::]`.
    pub sockets: Vec<Socket>,
    /// Sockets per local address where they were only counted, as in
    /// `ss -tan | grep TIME-WAIT | awk … | sort | uniq -c`. The text does not say in which state: it takes whoever
    /// made it to know that they are those in TIME-WAIT.
    pub counts: BTreeMap<IpAddr, u64>,
    /// Rows with names instead of numbers, each also in `unreadable`.
    pub unresolved: usize,
    /// Rows of sockets that are not TCP.
    pub other_protocols: usize,
    /// Rows that could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// Reads any of the forms, also mixed in one file. Never fails: what cannot be read is listed.
pub fn parse_sockets(bytes: &[u8]) -> ParsedSockets {
    let mut parser = Parser::default();
    let mut number = 0;
    for raw in bytes.split(|byte| *byte == b'\n') {
        number += 1;
        let text = shortened(raw);
        if !text.trim().is_empty() {
            parser.line(number, raw, &text);
        }
    }
    parser.parsed.unreadable = parser.log.finish();
    parser.parsed
}

fn shortened(line: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(line.get(..MAX_ROW).unwrap_or(line))
}

/// Why a row gives no socket.
#[derive(Debug, PartialEq, Eq)]
enum RowError {
    OtherProtocol,
    Unresolved(String),
    Unreadable(String),
}

impl From<&str> for RowError {
    fn from(reason: &str) -> Self {
        Self::Unreadable(reason.to_owned())
    }
}

impl From<AddressError> for RowError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::Name(_) => Self::Unresolved(error.to_string()),
            AddressError::Unreadable(_) | AddressError::MayBeCut(_) => Self::Unreadable(error.to_string()),
        }
    }
}

/// What a line is, by itself.
enum Line {
    Header(Form),
    Row(Form, Result<Socket, RowError>),
    /// A row of a listing filtered by state, which has no column for it.
    WithoutState,
    Count(u64, IpAddr),
    Comment,
    Other,
}

impl Line {
    fn of(text: &str) -> Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [first, rest @ ..] = words.as_slice() else { return Self::Comment };
        let second = rest.first().copied().unwrap_or_default();
        if first.starts_with(['#', '$']) {
            return Self::Comment;
        }
        if let Some(header) = header(text, &words) {
            return header;
        }
        if first.parse::<TcpState>().is_ok() {
            return Self::Row(Form::Ss, ss_row(&words, text));
        }
        if let Some(netid) = netid(first) {
            let glued = first.get(netid.len()..).filter(|state| !state.is_empty());
            let state = glued.unwrap_or(second);
            let form = if state.parse::<TcpState>().is_ok() { Form::Ss } else { Form::Netstat };
            if !netid.starts_with("tcp") {
                return Self::Row(form, Err(RowError::OtherProtocol));
            }
            return match (form, glued) {
                (Form::Ss, None) => Self::Row(form, ss_row(rest, text)),
                (Form::Ss, Some(state)) => {
                    let words: Vec<&str> = std::iter::once(state).chain(rest.iter().copied()).collect();
                    Self::Row(form, ss_row(&words, text))
                }
                _ if is_netstat(&words) => Self::Row(form, netstat_row(&words)),
                _ => Self::Other,
            };
        }
        if let Some(count) = count(first, rest) {
            return count;
        }
        if let [recv, send, local, remote, ..] = words.as_slice() {
            let queues = fields::is_number(recv) && fields::is_number(send);
            if queues && looks_like_address(local) && looks_like_address(remote) {
                return Self::WithoutState;
            }
        }
        lsof_row(&words).map_or(Self::Other, |row| Self::Row(Form::Lsof, row))
    }
}

fn header(text: &str, words: &[&str]) -> Option<Line> {
    if text.contains("Local Address") && text.contains("Recv-Q") {
        let form = if words.first() == Some(&"Proto") { Form::Netstat } else { Form::Ss };
        return Some(Line::Header(form));
    }
    if text.starts_with("Active Internet connections") || text.starts_with("Active UNIX domain sockets") {
        return Some(Line::Header(Form::Netstat));
    }
    (words.first() == Some(&"COMMAND") && words.get(1) == Some(&"PID")).then_some(Line::Header(Form::Lsof))
}

/// The kind of socket that a word begins with, as ss (`Netid`) or netstat (`Proto`) write it. In ss the column is
/// five wide, so that a state may follow without a blank.
fn netid(word: &str) -> Option<&str> {
    const KINDS: [&str; 24] = [
        "tcp6", "tcp", "mptcp", "udplite6", "udplite", "udp6", "udp", "icmp6", "u_str", "u_dgr", "u_seq",
        "unix", "raw6", "raw", "nl", "p_raw", "p_dgr", "sctp", "dccp", "v_str", "v_dgr", "tipc", "xdp", "ti",
    ];
    let kind = KINDS.iter().find(|kind| word.starts_with(**kind))?;
    let (kind, glued) = word.split_at_checked(kind.len())?;
    (glued.is_empty() || glued.parse::<TcpState>().is_ok()).then_some(kind)
}

/// Rows of conntrack also begin with `tcp`, and go on with two numbers and a state.
fn is_netstat(words: &[&str]) -> bool {
    let number = |at: usize| words.get(at).is_some_and(|word| fields::is_number(word));
    let address = |at: usize| words.get(at).is_some_and(|word| looks_like_address(word));
    number(1) && number(2) && address(3) && address(4)
}

fn looks_like_address(word: &str) -> bool {
    !word.contains(['=', '(']) && word.contains(':')
}

/// `words` from the state on.
fn ss_row(words: &[&str], text: &str) -> Result<Socket, RowError> {
    let (state, rest) = words.split_first().ok_or("the row is empty")?;
    let state = state.parse().map_err(|_| "it has no TCP state")?;
    // Recv-Q and Send-Q, where awk has not taken them away.
    let queues = rest.iter().take(2).take_while(|word| fields::is_number(word)).count();
    let mut columns = rest.iter().skip(queues);
    let local = columns.next().ok_or("it has no addresses")?;
    let remote = columns.next().ok_or("it has no remote address: give the columns as ss prints them")?;
    Ok(Socket {
        state,
        local: fields::address(local)?,
        remote: fields::address(remote)?,
        inode: fields::inode(text),
        users: fields::users(text),
    })
}

fn netstat_row(words: &[&str]) -> Result<Socket, RowError> {
    let column = |at: usize| words.get(at).copied().ok_or("the row is cut off");
    let (local, remote) = (column(3)?, column(4)?);
    let state = words.get(5).and_then(|word| word.parse().ok());
    let state = state.ok_or("it has no TCP state: run netstat -tan, or ss -tan without a state filter")?;
    Ok(Socket {
        state,
        local: fields::netstat_address(local)?,
        remote: fields::netstat_address(remote)?,
        inode: None,
        users: fields::netstat_program(words.get(6..).unwrap_or_default()),
    })
}

/// `kubelet 5621 root 10u IPv4 123 0t0 TCP 192.0.2.1:10254->192.0.2.2:2379 (ESTABLISHED)`; only the name, the
/// protocol and what follows it are needed.
fn lsof_row(words: &[&str]) -> Option<Result<Socket, RowError>> {
    let at = words.iter().position(|word| matches!(*word, "TCP" | "UDP")).filter(|at| *at > 0)?;
    let [protocol, name, rest @ ..] = words.get(at..)? else { return None };
    let state = rest.first().and_then(|word| word.strip_prefix('(')?.strip_suffix(')'));
    if *protocol == "UDP" {
        return looks_like_address(name).then_some(Err(RowError::OtherProtocol));
    }
    let state: TcpState = state?.parse().ok()?;
    let (local, remote) = name.split_once("->").unwrap_or((name, "*:*"));
    let read = || -> Result<Socket, RowError> {
        let (local, remote) = (fields::address(local)?, fields::address(remote)?);
        let pid = words.get(1).and_then(|pid| pid.parse().ok());
        let comm = words.first().map(|comm| (*comm).to_owned());
        let users = pid.zip(comm).map(|(pid, comm)| super::SocketUser { comm, pid });
        Ok(Socket { state, local, remote, inode: None, users: users.into_iter().collect() })
    };
    Some(read())
}

/// `849 10.23.77.129 # comment`
fn count(first: &str, rest: &[&str]) -> Option<Line> {
    let number = first.parse().ok()?;
    let [address, after @ ..] = rest else { return None };
    if after.first().is_some_and(|word| !word.starts_with('#')) {
        return None;
    }
    let with_port = || address.parse::<SocketAddr>().ok().map(|address| address.ip());
    let ip = fields::bare_ip(address).or_else(with_port)?;
    Some(Line::Count(number, canonical_ip(ip)))
}

#[derive(Default)]
struct Parser {
    parsed: ParsedSockets,
    log: RowLog,
    /// What the line before was, for continuation lines.
    after_row: After,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum After {
    #[default]
    Nothing,
    /// A socket, the last in the list.
    Socket,
    /// A row that gave none.
    OtherRow,
}

impl Parser {
    fn line(&mut self, number: usize, raw: &[u8], text: &str) {
        let text = text.trim_end();
        let form = match Line::of(text.trim_start()) {
            Line::Comment => return,
            Line::Header(form) => {
                self.after_row = After::Nothing;
                form
            }
            Line::Row(form, row) => {
                self.row(number, raw, row);
                form
            }
            Line::Count(count, address) => {
                let total = self.parsed.counts.entry(address).or_default();
                *total = total.saturating_add(count);
                self.after_row = After::OtherRow;
                Form::Counts
            }
            Line::WithoutState if text.contains("timer:(timewait,") => {
                let words: Vec<&str> = std::iter::once("TIME-WAIT").chain(text.split_whitespace()).collect();
                self.row(number, raw, ss_row(&words, text));
                Form::Ss
            }
            Line::WithoutState => {
                let reason = "ss leaves the state out when it filters by it: run ss -tan without `state …`";
                self.row(number, raw, Err(reason.into()));
                Form::Ss
            }
            Line::Other => {
                self.other(number, raw, text);
                return;
            }
        };
        self.parsed.form.get_or_insert(form);
    }

    fn row(&mut self, number: usize, raw: &[u8], row: Result<Socket, RowError>) {
        self.after_row = After::OtherRow;
        match row {
            Ok(socket) => {
                self.parsed.sockets.push(socket);
                self.after_row = After::Socket;
            }
            Err(RowError::OtherProtocol) => self.parsed.other_protocols += 1,
            Err(RowError::Unresolved(reason)) => {
                self.parsed.unresolved += 1;
                self.log.push(number, raw.trim_ascii(), reason);
            }
            Err(RowError::Unreadable(reason)) => self.log.push(number, raw.trim_ascii(), reason),
        }
    }

    /// A line that is no row: the indented second line of one (`ss -i`, or a long row of an old ss), or unreadable.
    fn other(&mut self, number: usize, raw: &[u8], text: &str) {
        if !text.starts_with([' ', '\t']) || self.after_row == After::Nothing {
            self.after_row = After::Nothing;
            self.log.push(number, raw.trim_ascii(), "it is no row of ss -tan, netstat -tan or lsof -nP -i");
            return;
        }
        let last = self.parsed.sockets.last_mut().filter(|_| self.after_row == After::Socket);
        if let Some(socket) = last {
            let users = fields::users(text);
            socket.users.extend(users);
            socket.inode = socket.inode.or_else(|| fields::inode(text));
        }
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
