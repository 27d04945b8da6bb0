//! Tells by its content which listing of the IPVS table a file is, or what it is instead.

use std::fmt;

use super::text::{self, minutes_and_seconds};
use super::{proc, rows};

/// The forms in which people bring the tables of IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/proc/net/ip_vs`
    Proc,
    /// `/proc/net/ip_vs_conn`
    ProcConnections,
    /// `ipvsadm -Ln`
    Listing,
    /// `ipvsadm -Ln --stats`, `--rate`: no schedulers, no weights.
    Counters,
    /// `ipvsadm -Sn`
    Save,
    /// `ipvsadm -Lnc`
    Connections,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proc => "/proc/net/ip_vs",
            Self::ProcConnections => "/proc/net/ip_vs_conn",
            Self::Listing => "ipvsadm -Ln",
            Self::Counters => "ipvsadm -Ln --stats",
            Self::Save => "ipvsadm -Sn",
            Self::Connections => "ipvsadm -Lnc",
        })
    }
}

impl Form {
    /// The form of `bytes`: by the first line that only one form has.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        rows::lines(bytes).find_map(|(_, line)| std::str::from_utf8(line).ok().and_then(Self::of_line))
    }

    fn of_line(line: &str) -> Option<Self> {
        if proc::is_connections_header(line.as_bytes()) {
            return Some(Self::ProcConnections);
        }
        if text::is_connections_header(line.as_bytes()) {
            return Some(Self::Connections);
        }
        if let Some(columns) = line.strip_prefix("Prot LocalAddress:Port") {
            // With "Scheduler Flags" the next line of the header tells which of two forms it is.
            return (!columns.contains("Scheduler")).then_some(Self::Counters);
        }
        if let Some(columns) = line.strip_prefix("-> RemoteAddress:Port") {
            // ipvsadm pads this column, the kernel does not.
            return Some(if columns.starts_with(" Forward") { Self::Proc } else { Self::Listing });
        }
        let mut words = line.split_ascii_whitespace();
        match words.next()? {
            "TCP" | "UDP" | "SCTP" => Self::of_row(words.next()?, words.next()),
            "FWM" => {
                let mark = words.next()?;
                let padded = rows::fixed_hex(mark, 8).is_some();
                let decimal = mark.parse::<u32>().is_ok();
                (padded || decimal).then_some(if padded { Self::Proc } else { Self::Listing })
            }
            "-A" | "-a" | "--add-service" | "--add-server" => Self::of_command(words.next()?),
            command if command.ends_with("ipvsadm") => {
                matches!(words.next()?, "-A" | "-a" | "--add-service" | "--add-server").then_some(Self::Save)
            }
            _ => None,
        }
    }

    /// A row without its header; `second` and `third` are its words after the protocol.
    fn of_row(second: &str, third: Option<&str>) -> Option<Self> {
        let third = third?;
        let number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        if rows::hex_address(second).is_ok() && !second.contains("::") {
            Some(Self::Proc)
        } else if rows::hex_pair(second, third).is_some() {
            Some(Self::ProcConnections)
        } else if minutes_and_seconds(second).is_some() && !number(third) {
            Some(Self::Connections)
        } else if second.contains(':') {
            Some(if number(third) { Self::Counters } else { Self::Listing })
        } else {
            None
        }
    }

    /// iptables-save also begins its lines with `-A`, but then names a chain.
    fn of_command(second: &str) -> Option<Self> {
        let options =
            ["-t", "-u", "-f", "--tcp-service", "--udp-service", "--sctp-service", "--fwmark-service"];
        let option = second.split_once('=').map_or(second, |(option, _)| option);
        options.contains(&option).then_some(Self::Save)
    }
}

/// What content that is no IPVS table looks like, for the error message.
pub(crate) fn looks_like(bytes: &[u8]) -> &'static str {
    const MAGIC: [(&[u8], &str); 11] = [
        (b"\x0a\x0d\x0d\x0a", "a packet capture (pcapng)"),
        (b"\xd4\xc3\xb2\xa1", "a packet capture (pcap)"),
        (b"\xa1\xb2\xc3\xd4", "a packet capture (pcap)"),
        (b"\x4d\x3c\xb2\xa1", "a packet capture (pcap)"),
        (b"\xa1\xb2\x3c\x4d", "a packet capture (pcap)"),
        (b"\x1f\x8b", "a gzip archive: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it first"),
        (b"\xfd7zXZ", "an xz archive: unpack it first"),
        (b"BZh", "a bzip2 archive: unpack it first"),
        (b"PK\x03\x04", "a zip archive: unpack it first"),
        (b"\x7fELF", "a program"),
    ];
    const WORDS: [(&str, &str); 11] = [
        ("apiVersion:", "a Kubernetes manifest"),
        ("Netid", "the output of ss"),
        ("State ", "the output of ss"),
        ("tcp ", "the output of conntrack -L or netstat"),
        ("*nat", "the output of iptables-save"),
        ("*filter", "the output of iptables-save"),
        ("*mangle", "the output of iptables-save"),
        (":INPUT", "the output of iptables-save"),
        ("-A ", "the output of iptables-save"),
        ("table ", "an nftables rule set"),
        ("Chain ", "the output of iptables -L"),
    ];
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return name;
    }
    let head = bytes.get(..4096).unwrap_or(bytes);
    if head.contains(&0) {
        return "binary data";
    }
    let text = head.trim_ascii_start();
    if text.starts_with(b"{") || text.starts_with(b"[") {
        return "JSON";
    }
    let word = |line: &[u8]| WORDS.iter().find(|(start, _)| line.starts_with(start.as_bytes()));
    rows::lines(head).find_map(|(_, line)| word(line)).map_or("text of another kind", |(_, name)| name)
}
