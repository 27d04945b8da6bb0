//! The summary line of a packet: `No. Time Source Destination Protocol Length Info`, as Wireshark exports it and as
//! tshark prints it, in any width of its columns.

use std::borrow::Cow;
use std::net::IpAddr;

use super::Refusal;
use super::moment::{self, Stamp};
use crate::capture::packet::Flags;

/// A summary line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) number: u64,
    pub(super) stamp: Option<Stamp>,
    pub(super) source: &'a str,
    pub(super) destination: &'a str,
    pub(super) protocol: &'a str,
    /// What the last column says.
    pub(super) info: &'a str,
}

/// What the last column says about TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) flags: u8,
    pub(super) sequence: Option<u32>,
    pub(super) acknowledgement: Option<u32>,
    pub(super) window: Option<u16>,
    pub(super) payload: Option<u32>,
    pub(super) timestamp: Option<u32>,
}

/// The columns of a line separated by blanks: Wireshark also exports them in quotes, separated by commas.
pub(super) fn columns(line: &str) -> Cow<'_, str> {
    let quoted = line.trim().strip_prefix('"').and_then(|line| line.strip_suffix('"'));
    match quoted {
        Some(inside) if inside.contains("\",\"") => Cow::Owned(inside.replace("\",\"", "\t")),
        _ => Cow::Borrowed(line),
    }
}

/// Whether a line, by itself, is a summary line or the header above it: for telling kinds of files apart.
pub(super) fn is_row(line: &str) -> bool {
    let line = &columns(line);
    is_header(line) || row(line).is_some_and(|row| is_address(row.source) && is_address(row.destination))
}

/// `No. Time Source Destination Protocol Length Info`
pub(super) fn is_header(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("No.") && words.next() == Some("Time") && words.next() == Some("Source")
}

fn is_address(word: &str) -> bool {
    word.parse::<IpAddr>().is_ok()
}

/// Takes a summary line apart. `None`: it is none.
pub(super) fn row(line: &str) -> Option<Row<'_>> {
    let line = line.trim_start();
    let (number, rest) = word(line)?;
    let number = number.parse().ok()?;
    let (stamp, rest) = time(rest)?;
    let (source, rest) = word(rest)?;
    let (next, after) = word(rest)?;
    let (destination, rest) = if matches!(next, "→" | "->") { word(after)? } else { (next, after) };
    let (protocol, rest) = word(rest)?;
    let (length, info) = word(rest).unwrap_or((rest, ""));
    // Where the column of lengths was taken out, the number is a port.
    let is_port = ["→", "->", ">"].iter().any(|arrow| info.trim_start().starts_with(arrow));
    let info = if length.parse::<u32>().is_ok() && !is_port { info } else { rest };
    let is_name = protocol.starts_with(|c: char| c.is_ascii_alphanumeric()) && protocol.len() <= 24;
    is_name.then_some(Row { number, stamp, source, destination, protocol, info: info.trim() })
}

/// The first word and what follows it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end)?;
    (!word.is_empty()).then_some((word, rest))
}

/// A stamp of any kind, or whole seconds: Wireshark can be told to show them.
fn time(text: &str) -> Option<(Option<Stamp>, &str)> {
    if let Some((stamp, rest)) = moment::take(text) {
        return Some((Some(stamp), rest));
    }
    let (first, rest) = word(text)?;
    let seconds = moment::seconds(first)?;
    Some((Some(Stamp::Seconds(seconds)), rest))
}

/// Reads the last column of a TCP packet. `None`: it does not have TCP's form (it is of the protocol above).
pub(super) fn info(text: &str) -> Option<Result<Info, Refusal>> {
    let (before, flags, after) = flags(text)?;
    let ports = before.rsplit(']').next().unwrap_or_default().trim();
    let (source, destination) = ["→", "->", ">"].iter().find_map(|arrow| ports.split_once(arrow))?;
    Some(ports_and_values(source, destination, flags, after))
}

fn ports_and_values(source: &str, destination: &str, flags: u8, after: &str) -> Result<Info, Refusal> {
    let mut info = Info { source: port(source)?, destination: port(destination)?, flags, ..Info::default() };
    for (name, value) in after.split_whitespace().filter_map(|word| word.split_once('=')) {
        let number = || value.parse::<u32>().map_err(|_| Refusal::Number);
        match name {
            "Seq" => info.sequence = Some(number()?),
            "Ack" => info.acknowledgement = Some(number()?),
            // Of other packets Wireshark prints the window as it is scaled, where it saw the option.
            "Win" if flags & Flags::SYN != 0 || value == "0" => info.window = value.parse().ok(),
            "Len" => info.payload = Some(number()?),
            "TSval" => info.timestamp = value.parse().ok(),
            _ => {}
        }
    }
    // `Len` comes last of those in every version: before it, a number may have been cut.
    if info.sequence.is_none() || info.payload.is_none() { Err(Refusal::Cut) } else { Ok(info) }
}

/// `36704`, or `http(80)` where ports have names.
fn port(text: &str) -> Result<u16, Refusal> {
    let text = text.trim();
    let inside = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(text).parse().map_err(|_| Refusal::Name)
}

/// The first bracket that holds flags, with what stands before and after it. Others hold Wireshark's own remarks.
fn flags(text: &str) -> Option<(&str, u8, &str)> {
    text.match_indices('[').find_map(|(at, _)| {
        let (inside, after) = text.get(at + 1..)?.split_once(']')?;
        let mut bits = 0;
        for name in inside.split(", ") {
            bits |= match name {
                "FIN" => Flags::FIN,
                "SYN" => Flags::SYN,
                "RST" => Flags::RST,
                "PSH" => 8,
                "ACK" => Flags::ACK,
                "URG" => 32,
                "ECE" | "ECN" => 64,
                "CWR" => 128,
                "AE" | "NS" | "Reserved" | "<None>" => 0,
                _ => return None,
            };
        }
        Some((text.get(..at)?, bits, after))
    })
}
