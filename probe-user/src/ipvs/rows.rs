//! What the parsers of this module share: splitting into lines, numbers and addresses, and putting rows together
//! to a table without losing one.

use std::collections::HashMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::table::{
    Backend, Forward, Protocol, Service, ServiceId, ServiceTable, SharedNames, Unreadable, canonical,
};

/// Bytes of a row that are kept for display.
const SHOWN_BYTES: usize = 200;
/// Most unreadable rows kept one by one; one more entry then says how many followed.
pub const MAX_UNREADABLE: usize = 10_000;

/// Lines without their line end and surrounding blanks, numbered from 1; empty ones are left out.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    text.split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty())
}

/// A line that a person left in: the prompt with the command, or a remark.
pub(super) fn is_remark(line: &[u8]) -> bool {
    line.starts_with(b"#") || line.starts_with(b"$ ")
}

/// The lines that head the tables of `/proc/net/ip_vs` and `ipvsadm -L`.
pub(crate) fn is_table_header(line: &[u8]) -> bool {
    is_remark(line)
        || line.starts_with(b"IP Virtual Server version")
        || line.starts_with(b"Prot LocalAddress:Port")
        || line.starts_with(b"-> RemoteAddress:Port")
}

/// The unreadable rows of one source, bounded.
#[derive(Default)]
pub(crate) struct RowLog {
    rows: Vec<Unreadable>,
    more: usize,
}

impl RowLog {
    pub(crate) fn push(&mut self, line: usize, text: &[u8], reason: impl Into<String>) {
        if self.rows.len() >= MAX_UNREADABLE {
            self.more += 1;
            return;
        }
        self.rows.push(Unreadable { line, text: shown(text), reason: reason.into() });
    }

    pub(crate) fn finish(mut self) -> Vec<Unreadable> {
        self.rows.sort_by_key(|row| row.line);
        if self.more > 0 {
            let reason = format!("{} more rows could not be read", self.more);
            self.rows.push(Unreadable { line: 0, text: String::new(), reason });
        }
        self.rows
    }
}

/// Text for display: cut, and free of control characters that could steer a terminal.
fn shown(text: &[u8]) -> String {
    let cut = text.get(..SHOWN_BYTES).unwrap_or(text);
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut out = String::with_capacity(cut.len());
    for chunk in cut.utf8_chunks() {
        out.extend(chunk.valid().chars().map(printable));
        out.extend(chunk.invalid().iter().map(|_| '?'));
    }
    out
}

/// What a service row says selects its packets. `/proc/net/ip_vs` does not say the family of a mark.
#[derive(Clone, Copy, Debug)]
pub(super) enum RowId {
    Known(ServiceId),
    MarkOfUnknownFamily { mark: u32, hint: Option<bool> },
}

/// A service row that could be read.
#[derive(Clone, Debug)]
pub(super) struct ServiceRow {
    pub(super) id: RowId,
    pub(super) scheduler: Option<String>,
    pub(super) persistent_s: Option<u32>,
    pub(super) one_packet: bool,
}

struct Pending {
    line: usize,
    text: String,
    row: ServiceRow,
    backends: Vec<Backend>,
}

/// Puts service and backend rows together. Each row ends up in the table or among the unreadable ones.
#[derive(Default)]
pub(super) struct TableBuilder {
    services: Vec<Pending>,
    by_id: HashMap<ServiceId, usize>,
    /// The service that backend rows belong to; `None` while there is none that could be read.
    current: Option<usize>,
    log: RowLog,
}

impl TableBuilder {
    pub(super) fn unreadable(&mut self, line: usize, text: &[u8], reason: impl Into<String>) {
        self.log.push(line, text, reason);
    }

    /// Takes a service row; the backends that follow belong to it.
    pub(super) fn service(&mut self, line: usize, text: &[u8], row: Result<ServiceRow, String>) {
        self.current = None;
        let row = match row {
            Ok(row) => row,
            Err(reason) => return self.log.push(line, text, reason),
        };
        let index = self.services.len();
        if let RowId::Known(id) = row.id {
            if self.by_id.contains_key(&id) {
                return self.log.push(line, text, "this service is listed twice");
            }
            self.by_id.insert(id, index);
        }
        self.current = Some(index);
        self.services.push(Pending { line, text: shown(text), row, backends: Vec::new() });
    }

    /// Takes a backend row of the service above it.
    pub(super) fn backend(&mut self, line: usize, text: &[u8], backend: Result<Backend, String>) {
        let service = self.current.and_then(|index| self.services.get_mut(index));
        match (backend, service) {
            (Ok(backend), Some(service)) => {
                let backends = &mut service.backends;
                if backends.len() == backends.capacity() {
                    // Vec's own first step is four, and most services have fewer: there are tens of thousands.
                    backends.reserve_exact((backends.len() / 2).max(1));
                }
                backends.push(backend);
            }
            (Ok(_), None) => self.log.push(line, text, "belongs to no service that could be read"),
            (Err(reason), _) => self.log.push(line, text, reason),
        }
    }

    /// Makes the service `id` the one that the next backend row belongs to.
    pub(super) fn select(&mut self, id: ServiceId) {
        self.current = self.by_id.get(&id).copied();
    }

    pub(super) fn finish(mut self) -> ServiceTable {
        let mut table = ServiceTable::default();
        let mut schedulers = SharedNames::default();
        // Rows that say their family first, so that the others take what is left.
        self.services.sort_by_key(|pending| (family_rank(pending), pending.line));
        for pending in self.services {
            let id = match pending.row.id {
                RowId::Known(id) => id,
                RowId::MarkOfUnknownFamily { mark, .. } => {
                    let ipv6 = mark_family(&pending).unwrap_or_else(|| {
                        table.services.contains_key(&ServiceId::Mark { mark, ipv6: false })
                    });
                    ServiceId::Mark { mark, ipv6 }
                }
            };
            match table.services.entry(id) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Service {
                        id,
                        scheduler: pending.row.scheduler.map(|name| schedulers.share(&name)),
                        persistent_s: pending.row.persistent_s,
                        one_packet: pending.row.one_packet,
                        backends: pending.backends,
                    });
                }
                Entry::Occupied(_) => {
                    self.log.push(pending.line, pending.text.as_bytes(), "this service is listed twice");
                    for backend in pending.backends {
                        let text = format!("-> {}", backend.address);
                        self.log.push(
                            pending.line,
                            text.as_bytes(),
                            "belongs to a service that is listed twice",
                        );
                    }
                }
            }
        }
        table.unreadable = self.log.finish();
        table
    }
}

fn family_rank(pending: &Pending) -> u8 {
    match pending.row.id {
        RowId::Known(_) => 0,
        RowId::MarkOfUnknownFamily { .. } if mark_family(pending).is_some() => 1,
        RowId::MarkOfUnknownFamily { .. } => 2,
    }
}

/// The family of a mark as its netmask says, else as its backends do: those that are not tunnelled have the
/// family of their service (kernel: `ip_vs_genl_set_cmd`).
fn mark_family(pending: &Pending) -> Option<bool> {
    let RowId::MarkOfUnknownFamily { hint, .. } = pending.row.id else { return None };
    let plain = pending.backends.iter().find(|backend| backend.forward != Forward::Tunnel);
    hint.or_else(|| plain.or(pending.backends.first()).map(|backend| backend.address.is_ipv6()))
}

/// Protocol as the tables print it.
pub(super) fn protocol(word: &str) -> Result<Protocol, String> {
    match word {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(format!("unknown protocol `{other}`")),
    }
}

/// A number that the kernel keeps in 32 bits and may print as signed.
pub(super) fn number(word: &str, what: &str) -> Result<u32, String> {
    word.parse::<u32>()
        .or_else(|_| word.parse::<i32>().map(i32::cast_unsigned))
        .map_err(|_| format!("{what} `{word}` is not a number"))
}

/// `10.0.0.1:443` or `[fd00::1]:443`, as ipvsadm prints them with -n.
pub(super) fn decimal_address(word: &str) -> Result<SocketAddr, String> {
    word.parse::<SocketAddr>().map(canonical).map_err(|_| {
        if word.contains(':') && word.contains(|c: char| c.is_ascii_alphabetic()) && !word.contains('[') {
            format!("`{word}` is a name: run ipvsadm with -n, so that it prints addresses and port numbers")
        } else {
            format!("`{word}` is not an address and port")
        }
    })
}

/// `0A000001:01BB` or `[fd00:0000:…:0001]:01BB`, as `/proc/net/ip_vs` prints them: IPv4 as a number in host byte
/// order, ports in four hexadecimal digits.
pub(super) fn hex_address(word: &str) -> Result<SocketAddr, String> {
    let parsed = match word.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").and_then(|(ip, port)| hex_pair(ip, port)),
        None => word.split_once(':').and_then(|(ip, port)| hex_pair(ip, port)),
    };
    parsed.ok_or_else(|| format!("`{word}` is not an address and port in hexadecimal"))
}

/// The same, as two words and without brackets (`/proc/net/ip_vs_conn`).
pub(super) fn hex_pair(ip: &str, port: &str) -> Option<SocketAddr> {
    let ip = if ip.contains(':') {
        IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?)
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(fixed_hex(ip, 8)?))
    };
    let port = u16::try_from(fixed_hex(port, 4)?).ok()?;
    Some(canonical(SocketAddr::new(ip, port)))
}

/// A hexadecimal number of exactly `digits` digits: a shorter one was cut off.
pub(super) fn fixed_hex(word: &str, digits: usize) -> Option<u32> {
    let all_hex = word.len() == digits && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    all_hex.then(|| u32::from_str_radix(word, 16).ok()).flatten()
}

/// How a backend is reached, as the tables print it.
pub(super) fn forward(word: &str) -> Result<Forward, String> {
    use Forward::{Bypass, Local, Masq, Route, Tunnel};
    let known = [Masq, Route, Tunnel, Local, Bypass].into_iter().find(|forward| forward.as_str() == word);
    known.ok_or_else(|| format!("unknown forwarding method `{word}`"))
}
