//! Reads what `ipvsadm` prints: `-Ln`, `-Ln --stats` and `--rate`, `-Sn` (and scripts of that form), `-Lnc`.
//!
//! Without `-n` ipvsadm prints host and service names instead of addresses; such rows are unreadable, never guessed.

use super::proc::{ConnectionTable, connection_rows};
use super::rows::{self, RowId, ServiceRow, TableBuilder};
use super::table::{Backend, Forward, IpvsConnection, Protocol, ServiceId, ServiceTable};

/// ipvsadm's timeout for `-p` without a number, seconds.
const DEFAULT_PERSISTENCE_S: u32 = 360;

/// What follows the addresses in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// `ipvsadm -Ln`: scheduler and flags; forwarding method and weight.
    Scheduler,
    /// `--stats`, `--rate` and other listings of numbers: these are no schedulers and no weights. The backends get
    /// [`Forward::NotSaid`] and weight 1.
    Counters,
}

/// Reads a listing of `ipvsadm -Ln`, with or without its header.
pub fn parse_listing(text: &[u8], columns: Columns) -> ServiceTable {
    let mut builder = TableBuilder::default();
    for (number, line) in rows::lines(text).filter(|(_, line)| !rows::is_table_header(line)) {
        let Ok(row) = std::str::from_utf8(line) else {
            builder.unreadable(number, line, "not text");
            continue;
        };
        match row.strip_prefix("->") {
            Some(rest) => builder.backend(number, line, listed_backend(rest, columns)),
            None => builder.service(number, line, listed_service(row, columns)),
        }
    }
    builder.finish()
}

fn listed_service(row: &str, columns: Columns) -> Result<ServiceRow, String> {
    let mut words = row.split_ascii_whitespace().peekable();
    let kind = words.next().unwrap_or_default();
    let key = words.next().ok_or("the row ends after its first word")?;
    let id = if kind == "FWM" {
        let mark = rows::number(key, "mark")?;
        let ipv6 = words.next_if_eq(&"IPv6").is_some();
        ServiceId::Mark { mark, ipv6 }
    } else {
        ServiceId::Address(rows::protocol(kind)?, rows::decimal_address(key)?)
    };
    let mut service =
        ServiceRow { id: RowId::Known(id), scheduler: None, persistent_s: None, one_packet: false };
    if columns == Columns::Counters {
        return Ok(service);
    }
    let scheduler = words.next().ok_or("the row ends before its scheduler")?;
    service.scheduler = (scheduler != "none").then(|| scheduler.to_owned());
    // Netmask, persistence engine and scheduler flags do not matter here.
    while let Some(word) = words.next() {
        match word {
            "ops" => service.one_packet = true,
            "persistent" => {
                let timeout = rows::number(words.next().unwrap_or_default(), "persistence timeout")?;
                service.persistent_s = Some(timeout);
            }
            _ => {}
        }
    }
    Ok(service)
}

fn listed_backend(rest: &str, columns: Columns) -> Result<Backend, String> {
    let mut words = rest.split_ascii_whitespace();
    let address = rows::decimal_address(words.next().ok_or("the row ends before its address")?)?;
    if columns == Columns::Counters {
        return Ok(Backend { address, forward: Forward::NotSaid, weight: 1 });
    }
    let forward = rows::forward(words.next().ok_or("the row ends before its forwarding method")?)?;
    let weight = rows::number(words.next().ok_or("the row ends before its weight")?, "weight")?;
    Ok(Backend { address, forward, weight })
}

/// Reads the commands of `ipvsadm -Sn`: one `-A` per service, one `-a` per backend. Lines that begin with `#` are
/// comments. ` ops` (old) and `-o`, `--ops` (new) mean the same.
pub fn parse_save(text: &[u8]) -> ServiceTable {
    let mut builder = TableBuilder::default();
    for (number, line) in rows::lines(text).filter(|(_, line)| !line.starts_with(b"#")) {
        let Ok(row) = std::str::from_utf8(line) else {
            builder.unreadable(number, line, "not text");
            continue;
        };
        let command = Command::parse(row);
        match command.and_then(|command| Ok((command.adds_backend, command.id()?, command))) {
            Ok((false, id, command)) => builder.service(number, line, Ok(command.service(id))),
            Ok((true, id, command)) => {
                builder.select(id);
                builder.backend(number, line, command.backend(id));
            }
            Err(reason) => builder.unreadable(number, line, reason),
        }
    }
    builder.finish()
}

/// One line of `ipvsadm -Sn`.
#[derive(Default)]
struct Command<'a> {
    adds_backend: bool,
    address: Option<(Protocol, &'a str)>,
    mark: Option<&'a str>,
    ipv6: bool,
    scheduler: Option<&'a str>,
    persistent_s: Option<u32>,
    one_packet: bool,
    server: Option<&'a str>,
    forward: Option<Forward>,
    weight: Option<u32>,
}

impl<'a> Command<'a> {
    fn parse(row: &'a str) -> Result<Self, String> {
        let mut words = row
            .split_ascii_whitespace()
            .flat_map(|word| match word.split_once('=') {
                Some((option, value)) if option.starts_with("--") => [Some(option), Some(value)],
                _ => [Some(word), None],
            })
            .flatten()
            .peekable();
        let mut command = Self::default();
        let mut first = words.next();
        if first.is_some_and(|word| word.ends_with("ipvsadm")) {
            first = words.next();
        }
        match first {
            Some("-A" | "--add-service") => {}
            Some("-a" | "--add-server") => command.adds_backend = true,
            other => return Err(format!("`{}` adds no service and no backend", other.unwrap_or_default())),
        }
        while let Some(option) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("`{option}` lacks its value"));
            match option {
                "-t" | "--tcp-service" => command.address = Some((Protocol::Tcp, value()?)),
                "-u" | "--udp-service" => command.address = Some((Protocol::Udp, value()?)),
                "--sctp-service" => command.address = Some((Protocol::Sctp, value()?)),
                "-f" | "--fwmark-service" => command.mark = Some(value()?),
                "-6" | "--ipv6" => command.ipv6 = true,
                "-s" | "--scheduler" => command.scheduler = Some(value()?),
                "-o" | "--ops" | "ops" => command.one_packet = true,
                "-r" | "--real-server" => command.server = Some(value()?),
                "-m" | "--masquerading" => command.forward = Some(Forward::Masq),
                "-g" | "--gatewaying" => command.forward = Some(Forward::Route),
                "-i" | "--ipip" => command.forward = Some(Forward::Tunnel),
                "-w" | "--weight" => command.weight = Some(rows::number(value()?, "weight")?),
                "-p" | "--persistent" => {
                    let timeout =
                        words.next_if(|word| !word.starts_with('-') && *word != "ops" && *word != "pe");
                    let seconds =
                        timeout.map(|word| rows::number(word, "persistence timeout")).transpose()?;
                    command.persistent_s = Some(seconds.unwrap_or(DEFAULT_PERSISTENCE_S));
                }
                // Netmasks, thresholds, tunnel types, persistence engines, and what later versions add. A value of
                // theirs is passed over as an unknown word in its turn.
                _ => {}
            }
        }
        Ok(command)
    }

    fn id(&self) -> Result<ServiceId, String> {
        match (self.address, self.mark) {
            (Some((protocol, address)), _) => {
                Ok(ServiceId::Address(protocol, rows::decimal_address(address)?))
            }
            (None, Some(mark)) => Ok(ServiceId::Mark { mark: rows::number(mark, "mark")?, ipv6: self.ipv6 }),
            (None, None) => Err("names no service (-t, -u, --sctp-service or -f)".to_owned()),
        }
    }

    fn service(self, id: ServiceId) -> ServiceRow {
        ServiceRow {
            id: RowId::Known(id),
            scheduler: self.scheduler.filter(|name| *name != "none").map(str::to_owned),
            persistent_s: self.persistent_s,
            one_packet: self.one_packet,
        }
    }

    fn backend(&self, id: ServiceId) -> Result<Backend, String> {
        let server = self.server.ok_or("names no backend (-r)")?;
        // ipvsadm takes the port of the service where a backend names none.
        let address = match (server.parse(), id) {
            (Ok(ip), ServiceId::Address(_, service)) => std::net::SocketAddr::new(ip, service.port()),
            _ => rows::decimal_address(server)?,
        };
        let forward = self.forward.unwrap_or(Forward::Route);
        Ok(Backend { address, forward, weight: self.weight.unwrap_or(1) })
    }
}

/// Reads `ipvsadm -Lnc`. Persistence templates are counted, not kept.
pub fn parse_connections(text: &[u8]) -> ConnectionTable {
    connection_rows(text, is_connections_header, connection)
}

/// The lines that head the table of `ipvsadm -Lnc`.
pub(crate) fn is_connections_header(line: &[u8]) -> bool {
    line.starts_with(b"IPVS connection entries") || line.starts_with(b"pro expire")
}

/// One row; `None` for a template.
fn connection(row: &str) -> Result<Option<IpvsConnection>, String> {
    let mut words = row.split_ascii_whitespace();
    let mut word = |what: &str| words.next().ok_or_else(|| format!("the row ends before its {what}"));
    let protocol = word("protocol")?;
    let expires = word("expiry")?;
    let expires_s = minutes_and_seconds(expires)
        .ok_or_else(|| format!("expiry `{expires}` is not minutes and seconds"))?;
    let state = word("state")?.to_owned();
    let client = rows::decimal_address(word("source")?)?;
    let virtual_address = rows::decimal_address(word("virtual address")?)?;
    let backend = rows::decimal_address(word("destination")?)?;
    if client.port() == 0 {
        return Ok(None);
    }
    let protocol = rows::protocol(protocol)?;
    Ok(Some(IpvsConnection { protocol, client, virtual_address, backend, state, expires_s }))
}

/// `MM:SS`; the minutes have as many digits as they need.
pub(super) fn minutes_and_seconds(word: &str) -> Option<u64> {
    let (minutes, seconds) = word.split_once(':')?;
    minutes.parse::<u64>().ok()?.checked_mul(60)?.checked_add(seconds.parse().ok()?)
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
