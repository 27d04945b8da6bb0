//! Reads `/proc/net/ip_vs` and `/proc/net/ip_vs_conn` (kernel: `ip_vs_info_seq_show`, `ip_vs_conn_seq_show`).
//!
//! Addresses and ports are hexadecimal in host byte order, so the text is the same on every machine; marks are
//! hexadecimal too. IPv6 services print no `ops` flag. Nothing here allocates more than a small multiple of the
//! text, whose size the caller bounds ([`super::MAX_BYTES`]).

use super::rows::{self, RowId, RowLog, ServiceRow, TableBuilder};
use super::table::{Backend, IpvsConnection, ServiceId, ServiceTable, Unreadable};

/// Jiffies per second that are assumed where the kernel's `CONFIG_HZ` is not known: what Debian and Ubuntu before
/// 24.10 build with, and RHEL's 1000 does not.
pub const ASSUMED_HZ: u32 = 250;

/// What was read from a table of IPVS connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionTable {
    /// Connections, in the order of the source.
    pub rows: Vec<IpvsConnection>,
    /// Persistence templates (client port 0): they remember a client, they are no connection, and are left out.
    pub templates: usize,
    /// Rows that could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// Reads the text of `/proc/net/ip_vs`. A row that cannot be read goes to [`ServiceTable::unreadable`], as do
/// the backends of a service that cannot be.
///
/// The file gives persistence timeouts in jiffies of the kernel that wrote it: `CONFIG_HZ` (100, 250, 300 or 1000),
/// not the 100 of `sysconf(_SC_CLK_TCK)`, and nothing in the file tells which. `hz` is that number where the caller
/// knows it (the kernel's configuration); `None` assumes [`ASSUMED_HZ`].
///
/// It does not say either whether a mark is for IPv4 or IPv6: that is taken from the persistence netmask, else
/// from the backends; a mark without both is IPv4, or IPv6 if the same mark is there for IPv4 already.
pub fn parse_table(text: &[u8], hz: Option<u32>) -> ServiceTable {
    let hz = hz.filter(|hz| *hz > 0).unwrap_or(ASSUMED_HZ);
    let mut builder = TableBuilder::default();
    for (number, line) in rows::lines(text).filter(|(_, line)| !rows::is_table_header(line)) {
        let Ok(row) = std::str::from_utf8(line) else {
            builder.unreadable(number, line, "not text");
            continue;
        };
        match row.strip_prefix("->") {
            Some(rest) => builder.backend(number, line, backend(rest)),
            None => builder.service(number, line, service(row, hz)),
        }
    }
    builder.finish()
}

fn service(row: &str, hz: u32) -> Result<ServiceRow, String> {
    let mut words = row.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default();
    let key = words.next().ok_or("the row ends after its first word")?;
    let mut id = if kind == "FWM" {
        let mark =
            rows::fixed_hex(key, 8).ok_or_else(|| format!("mark `{key}` is not 8 hexadecimal digits"))?;
        RowId::MarkOfUnknownFamily { mark, hint: None }
    } else {
        RowId::Known(ServiceId::Address(rows::protocol(kind)?, rows::hex_address(key)?))
    };
    let scheduler = words.next().ok_or("the row ends before its scheduler")?;
    let (mut persistent_s, mut one_packet) = (None, false);
    // Flags that later kernels add are passed over: the service counts, whatever its flags.
    while let Some(word) = words.next() {
        match word {
            "ops" => one_packet = true,
            "persistent" => {
                let jiffies = rows::number(words.next().unwrap_or_default(), "persistence timeout")?;
                persistent_s = Some(jiffies / hz);
                if let RowId::MarkOfUnknownFamily { hint, .. } = &mut id {
                    *hint = words.next().and_then(netmask_family);
                }
            }
            _ => {}
        }
    }
    // The kernel's word for a service whose scheduler was taken away.
    let scheduler = (scheduler != "none").then(|| scheduler.to_owned());
    Ok(ServiceRow { id, scheduler, persistent_s, one_packet })
}

/// Whether a persistence netmask is IPv6: there it is a prefix length (1 to 128) in swapped bytes on little-endian
/// machines, which no netmask of IPv4 in use looks like.
fn netmask_family(word: &str) -> Option<bool> {
    let mask = rows::fixed_hex(word, 8)?;
    let prefix = if mask > 0xff { mask.swap_bytes() } else { mask };
    Some((1..=128).contains(&prefix))
}

fn backend(rest: &str) -> Result<Backend, String> {
    let mut words = rest.split_ascii_whitespace();
    let address = rows::hex_address(words.next().ok_or("the row ends before its address")?)?;
    let forward = rows::forward(words.next().ok_or("the row ends before its forwarding method")?)?;
    let weight = rows::number(words.next().ok_or("the row ends before its weight")?, "weight")?;
    Ok(Backend { address, forward, weight })
}

/// Reads the text of `/proc/net/ip_vs_conn`. Persistence templates are counted, not kept; the data of a
/// persistence engine at the end of a row is not read.
pub fn parse_connections(text: &[u8]) -> ConnectionTable {
    connection_rows(text, is_connections_header, connection)
}

/// The line that heads the table of `/proc/net/ip_vs_conn`.
pub(crate) fn is_connections_header(line: &[u8]) -> bool {
    line.starts_with(b"Pro FromIP")
}

/// Reads every line but the headers as a connection, each by itself; `read` gives `None` for a template.
pub(super) fn connection_rows(
    text: &[u8],
    is_header: impl Fn(&[u8]) -> bool,
    read: impl Fn(&str) -> Result<Option<IpvsConnection>, String>,
) -> ConnectionTable {
    let mut table = ConnectionTable::default();
    let mut log = RowLog::default();
    for (number, line) in rows::lines(text).filter(|(_, line)| !is_header(line)) {
        match read(&String::from_utf8_lossy(line)) {
            Ok(Some(row)) => table.rows.push(row),
            Ok(None) => table.templates += 1,
            Err(reason) => log.push(number, line, reason),
        }
    }
    table.unreadable = log.finish();
    table
}

/// One row; `None` for a template.
fn connection(row: &str) -> Result<Option<IpvsConnection>, String> {
    let mut words = row.split_ascii_whitespace();
    let mut word = |what: &str| words.next().ok_or_else(|| format!("the row ends before its {what}"));
    let protocol = word("protocol")?;
    let mut address = |what: &str| {
        let (ip, port) = (word(what)?, word(what)?);
        rows::hex_pair(ip, port).ok_or_else(|| format!("{what} `{ip} {port}` is not an address and port"))
    };
    let client = address("client")?;
    let virtual_address = address("virtual address")?;
    let backend = address("backend")?;
    if client.port() == 0 {
        return Ok(None);
    }
    let protocol = rows::protocol(protocol)?;
    let state = word("state")?.to_owned();
    let expires = word("expiry")?;
    let expires_s = expires.parse().map_err(|_| format!("expiry `{expires}` is not a number"))?;
    Ok(Some(IpvsConnection { protocol, client, virtual_address, backend, state, expires_s }))
}

#[cfg(test)]
#[path = "proc_tests.rs"]
mod tests;
