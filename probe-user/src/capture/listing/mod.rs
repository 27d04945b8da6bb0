//! Packets as text: what `tcpdump -nn` and Wireshark print. Read line by line; memory is bounded by what is remembered
//! of open connections, not by the file.

mod flows;
mod moment;
mod tcpdump;
mod tcpdump_packet;
mod wireshark;
mod wireshark_row;

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

pub use moment::ListedTime;

use super::packet::{Decoded, Segment, Unreachable};
use crate::inputs::lines;
use crate::ipvs::rows::RowLog;
use crate::ipvs::table::Unreadable;

/// Which program printed the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListingForm {
    /// `tcpdump -nn`
    Tcpdump,
    /// Wireshark's text export, or what `tshark` prints: a summary line per packet, with or without the details.
    Wireshark,
}

impl fmt::Display for ListingForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcpdump => "tcpdump listing",
            Self::Wireshark => "Wireshark listing",
        })
    }
}

impl ListingForm {
    /// Whether a line, by itself, is one that only this form has.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        if tcpdump::is_packet(line) {
            Some(Self::Tcpdump)
        } else {
            (wireshark_row::is_row(line) || wireshark::is_frame(line)).then_some(Self::Wireshark)
        }
    }
}

/// A packet of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// When, as far as the listing says.
    pub time: ListedTime,
    /// What it is.
    pub packet: ListedPacket,
    /// Whether the sequence and acknowledgement numbers are those of the wire. If not, they count from the beginning
    /// of the connection (Wireshark's SYN has 0 then), or are not told.
    pub absolute: bool,
    /// Interface, where the listing names it (`-i any`).
    pub interface: Option<Arc<str>>,
    /// Number of the packet in the capture, where the listing has one.
    pub number: Option<u64>,
    /// Line from 1.
    pub line: u64,
}

/// What is in a listed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedPacket {
    /// TCP. `ip_id` and `timestamp` are set where the listing shows them.
    Tcp(Segment),
    /// ICMP destination unreachable about TCP. The sender's port and the sequence number are 0 where the listing does
    /// not show them (tcpdump without -v).
    Unreachable(Unreachable),
}

impl From<ListedPacket> for Decoded {
    fn from(packet: ListedPacket) -> Self {
        match packet {
            ListedPacket::Tcp(segment) => Self::Tcp(segment),
            ListedPacket::Unreachable(unreachable) => Self::Unreachable(unreachable),
        }
    }
}

/// What a listing was found to be, after it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Lines.
    pub lines: u64,
    /// Packets handed out.
    pub packets: u64,
    /// Packets that are neither TCP nor ICMP about TCP.
    pub other: u64,
    /// Rows with names instead of addresses and ports, each also in `unreadable`.
    pub unresolved: u64,
    /// Packets that could not be read, the first of them.
    pub unreadable: Vec<Unreadable>,
    /// What the reader should know.
    pub notes: Vec<String>,
    /// Why the rest was not read.
    pub cut: Option<String>,
}

/// Reads a listing to its end and hands every packet to `sink`.
pub fn read(input: impl Read, form: ListingForm, sink: &mut dyn FnMut(Listed)) -> Account {
    let mut out = Out { sink, account: Account::default(), log: RowLog::default() };
    let (count, end) = match form {
        ListingForm::Tcpdump => {
            let mut parser = tcpdump::Parser::default();
            let end = each_line(input, &mut out, &mut |number, line, out| parser.line(number, line, out));
            parser.finish(&mut out);
            end
        }
        ListingForm::Wireshark => {
            let mut parser = wireshark::Parser::default();
            let end = each_line(input, &mut out, &mut |number, line, out| parser.line(number, line, out));
            parser.finish(&mut out);
            end
        }
    };
    let Out { mut account, log, .. } = out;
    account.lines = count;
    account.unreadable = log.finish();
    account.cut = end.err().map(|error| format!("reading failed after line {count}: {error}"));
    if account.unresolved > 0 {
        account.notes.push(format!(
            "{} packets are shown with names: print them with `tcpdump -nn -r` (or Wireshark without name resolution)",
            account.unresolved
        ));
    }
    account
}

fn each_line(
    input: impl Read,
    out: &mut Out<'_>,
    parse: &mut dyn FnMut(u64, &str, &mut Out<'_>),
) -> (u64, io::Result<()>) {
    lines::for_each(input, &mut |number, line| parse(number, &String::from_utf8_lossy(line), out))
}

/// Where a parser puts what it finds.
struct Out<'a> {
    sink: &'a mut dyn FnMut(Listed),
    account: Account,
    log: RowLog,
}

impl Out<'_> {
    fn packet(&mut self, listed: Listed) {
        self.account.packets += 1;
        (self.sink)(listed);
    }

    fn refuse(&mut self, line: u64, text: &str, refusal: Refusal) {
        if refusal == Refusal::Name {
            self.account.unresolved += 1;
        }
        self.log.push(lines::row_number(line), text.trim().as_bytes(), refusal.reason());
    }
}

/// Why a packet could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// A name where an address or port should be.
    Name,
    /// The line ends too early.
    Cut,
    /// A number that is none.
    Number,
}

impl Refusal {
    const fn reason(self) -> &'static str {
        match self {
            Self::Name => "it has names instead of addresses and port numbers: print it with -nn",
            Self::Cut => "the line is cut off",
            Self::Number => "a number in it cannot be read",
        }
    }
}

#[cfg(test)]
mod tests;
