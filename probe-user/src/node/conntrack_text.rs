//! The connection tracking table as people bring it: `conntrack -L`, with any `-o`, `conntrack -E`, and
//! `/proc/net/nf_conntrack`. Rows are read by their words; columns and their order do not matter.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use crate::inputs::lines;
use crate::ipvs::rows::RowLog;
use crate::ipvs::table::Unreadable;
use crate::observation::Nanos;

/// What happened to a connection (`conntrack -E`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `[NEW]`
    New,
    /// `[UPDATE]`
    Update,
    /// `[DESTROY]`
    Destroy,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
}

/// A TCP connection as connection tracking sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConntrackRow {
    /// The event, in `conntrack -E`.
    pub event: Option<Event>,
    /// TCP state, such as `SYN_SENT`; some events do not say it.
    pub state: Option<String>,
    /// Seconds until the entry expires.
    pub expires_s: Option<u64>,
    /// As the connection was begun.
    pub original: Tuple,
    /// As answers are expected: after NAT.
    pub reply: Tuple,
    /// `[UNREPLIED]`: no packet came back.
    pub unreplied: bool,
    /// `[ASSURED]`: traffic in both directions.
    pub assured: bool,
    /// Mark of the connection.
    pub mark: Option<u32>,
    /// When the event was, in `-o timestamp`.
    pub at: Option<Nanos>,
    /// Line from 1.
    pub line: u64,
}

impl ConntrackRow {
    /// Address and port that the connection has on the wire, if source NAT gave it others than its socket's.
    pub fn masqueraded(&self) -> Option<SocketAddr> {
        (self.reply.destination != self.original.source).then_some(self.reply.destination)
    }
}

/// What a table was found to be, after it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Lines.
    pub lines: u64,
    /// TCP connections handed out.
    pub rows: u64,
    /// Rows of other protocols.
    pub other_protocols: u64,
    /// Rows that could not be read, the first of them.
    pub unreadable: Vec<Unreadable>,
    /// Why the rest was not read.
    pub cut: Option<String>,
}

/// Reads a table to its end and hands every TCP connection to `sink`.
pub fn read(input: impl Read, sink: &mut dyn FnMut(ConntrackRow)) -> Account {
    let mut account = Account::default();
    let mut log = RowLog::default();
    let (count, end) = lines::for_each(input, &mut |line, bytes| {
        let text = String::from_utf8_lossy(bytes);
        match Row::of(&text) {
            None if is_remark(&text) => {}
            None => log.push(lines::row_number(line), text.trim().as_bytes(), "it is no row of conntrack"),
            Some(row) if row.protocol != "tcp" => account.other_protocols += 1,
            Some(row) => match row.connection(line) {
                Ok(row) => {
                    account.rows += 1;
                    sink(row);
                }
                Err(reason) => log.push(lines::row_number(line), text.trim().as_bytes(), reason),
            },
        }
    });
    account.lines = count;
    account.unreadable = log.finish();
    account.cut = end.err().map(|error| format!("reading failed after line {count}: {error}"));
    account
}

/// Whether a line, by itself, is a row: for telling kinds of files apart.
pub(crate) fn is_row(line: &str) -> bool {
    Row::of(line).is_some_and(|row| row.words.clone().any(|word| word.starts_with("src=")))
}

/// Empty lines, prompts, and what `conntrack` says at the end.
fn is_remark(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with(['#', '$', '<']) || text.starts_with("conntrack v")
}

/// A row whose beginning was read.
struct Row<'a> {
    event: Option<Event>,
    at: Option<Nanos>,
    protocol: &'a str,
    /// What follows the protocol.
    words: std::str::SplitWhitespace<'a>,
}

impl<'a> Row<'a> {
    /// `[1663268942.533940] [NEW] ipv4 2 tcp 6 …`
    fn of(text: &'a str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (mut event, mut at) = (None, None);
        let mut word = words.next()?;
        while let Some(inside) = bracketed(word) {
            match inside {
                "NEW" => event = Some(Event::New),
                "UPDATE" => event = Some(Event::Update),
                "DESTROY" => event = Some(Event::Destroy),
                _ => at = Some(seconds(inside)?),
            }
            word = words.next()?;
        }
        if matches!(word, "ipv4" | "ipv6") {
            words.next()?.parse::<u8>().ok()?;
            word = words.next()?;
        }
        let is_name =
            word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        // The protocol's number tells it from rows of netstat, where two queues and addresses follow.
        words.next()?.parse::<u8>().ok()?;
        let is_row = words.clone().any(|word| word.contains('='));
        (is_name && is_row).then_some(Self { event, at, protocol: word, words })
    }

    fn connection(self, line: u64) -> Result<ConntrackRow, &'static str> {
        let Self { event, at, words, .. } = self;
        let mut tuples = [Half::default(); 2];
        let (mut state, mut expires_s, mut mark) = (None, None, None);
        let (mut unreplied, mut assured) = (false, false);
        for word in words {
            match word.split_once('=') {
                Some((name @ ("src" | "dst" | "sport" | "dport"), value)) => {
                    let [original, reply] = &mut tuples;
                    // Each name comes once per direction; a third time it is another program's row.
                    if !original.take(name, value)? && !reply.take(name, value)? {
                        return Err("it has more than two directions");
                    }
                }
                Some(("mark", value)) => mark = value.parse().ok(),
                Some(_) => {}
                None => match word {
                    "[UNREPLIED]" => unreplied = true,
                    "[ASSURED]" => assured = true,
                    _ if word.bytes().all(|byte| byte.is_ascii_digit()) => expires_s = word.parse().ok(),
                    _ if !word.starts_with('[') => state = Some(word.chars().take(32).collect()),
                    _ => {}
                },
            }
        }
        let [original, reply] = tuples.map(Half::tuple);
        let original = original.ok_or("it has no addresses and ports")?;
        let reply = reply.ok_or("it ends before the reply's addresses")?;
        Ok(ConntrackRow { event, state, expires_s, original, reply, unreplied, assured, mark, at, line })
    }
}

fn bracketed(word: &str) -> Option<&str> {
    word.strip_prefix('[')?.strip_suffix(']')
}

/// Seconds since the epoch with a fraction.
fn seconds(text: &str) -> Option<Nanos> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: Nanos = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    whole.parse::<Nanos>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction)
}

/// What is known of one direction.
#[derive(Clone, Copy, Default)]
struct Half {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

impl Half {
    /// Takes a value; false if this direction has it already.
    fn take(&mut self, name: &str, value: &str) -> Result<bool, &'static str> {
        const ADDRESS: &str = "an address in it cannot be read";
        const PORT: &str = "a port in it cannot be read";
        let ip = || value.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| ADDRESS);
        let port = || value.parse::<u16>().map_err(|_| PORT);
        Ok(match name {
            "src" => set(&mut self.source, ip()?),
            "dst" => set(&mut self.destination, ip()?),
            "sport" => set(&mut self.source_port, port()?),
            _ => set(&mut self.destination_port, port()?),
        })
    }

    fn tuple(self) -> Option<Tuple> {
        Some(Tuple {
            source: SocketAddr::new(self.source?, self.source_port?),
            destination: SocketAddr::new(self.destination?, self.destination_port?),
        })
    }
}

fn set<T>(slot: &mut Option<T>, value: T) -> bool {
    let free = slot.is_none();
    if free {
        *slot = Some(value);
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> (Vec<ConntrackRow>, Account) {
        let mut rows = Vec::new();
        let account = read(text.as_bytes(), &mut |row| rows.push(row));
        (rows, account)
    }

    const NEW: &str = "    [NEW] tcp      6 120 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=46128 dport=80 [UNREPLIED] src=10.0.0.2 \
                       dst=10.0.0.1 sport=80 dport=46128";

    // projectcalico/felix#1490, kellyjonbrazil/jc#646
    #[test]
    fn every_layout_gives_the_same_connection() {
        for (line, event, at, expires) in [
            (NEW.to_owned(), Some(Event::New), None, Some(120)),
            (NEW.replace("[NEW] ", ""), None, None, Some(120)),
            (NEW.replace("    [NEW] ", "ipv4     2 "), None, None, Some(120)),
            (
                format!("[1663268942.533940]\t{NEW}"),
                Some(Event::New),
                Some(1_663_268_942_533_940_000),
                Some(120),
            ),
            (
                NEW.replace("[NEW] tcp      6 120 SYN_SENT", "[DESTROY] tcp      6"),
                Some(Event::Destroy),
                None,
                None,
            ),
            (
                NEW.replace("[UNREPLIED]", "packets=1 bytes=60 [UNREPLIED]")
                    + " packets=0 bytes=0 mark=7 use=1 id=99",
                Some(Event::New),
                None,
                Some(120),
            ),
        ] {
            let (rows, account) = read_all(&line);
            assert_eq!(account.unreadable, [], "{line}");
            let [row] = rows.as_slice() else { panic!("{line}") };
            assert_eq!(
                (row.event, row.at, row.expires_s, row.unreplied),
                (event, at, expires, true),
                "{line}"
            );
            let address = |text: &str| text.parse().unwrap();
            assert_eq!(
                row.original,
                Tuple { source: address("10.0.0.1:46128"), destination: address("10.0.0.2:80") }
            );
            assert_eq!(
                row.reply,
                Tuple { source: address("10.0.0.2:80"), destination: address("10.0.0.1:46128") }
            );
            assert_eq!(row.masqueraded(), None);
            assert!(is_row(&line));
        }
    }

    // kubernetes/kubernetes#90258
    #[test]
    fn the_masqueraded_port_is_the_reply_s_destination() {
        let line = "tcp      6 86399 ESTABLISHED src=192.0.2.10 dst=10.96.0.1 sport=64922 dport=443 src=192.0.2.50 dst=192.0.2.10 \
                    sport=6443 dport=16796 [ASSURED] mark=16384 use=1";
        let (rows, _) = read_all(line);
        assert_eq!(rows[0].masqueraded(), Some("192.0.2.10:16796".parse().unwrap()));
        assert_eq!(
            (rows[0].assured, rows[0].mark, rows[0].state.as_deref()),
            (true, Some(16384), Some("ESTABLISHED"))
        );
        assert_eq!(rows[0].original.source.port(), 64922);
    }

    // kellyjonbrazil/jc#646
    #[test]
    fn other_protocols_are_counted_without_complaint() {
        let text = "icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=7 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=7 mark=0 use=1\n\
                    ipv6     10 udp      17 29 src=fd00::1 dst=fd00::2 sport=5 dport=53 src=fd00::2 dst=fd00::1 sport=53 dport=5 mark=0 use=1\n\
                    unknown  2 500 src=10.0.0.1 dst=224.0.0.1 [UNREPLIED] src=224.0.0.1 dst=10.0.0.1 mark=0 use=1\n\
                    conntrack v1.4.7 (conntrack-tools): 3 flow entries have been shown.\n";
        let (rows, account) = read_all(text);
        assert_eq!((rows.len(), account.other_protocols), (0, 3));
        assert_eq!(account.unreadable, []);
    }

    #[test]
    fn bad_rows_are_listed_and_hide_no_others() {
        let text = format!(
            "tcp      6 120 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=46128 dport=80 [UNREPLIED] src=10.\n{NEW}\nhello\n\
                            tcp 6 120 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=4 dport=80 [UNREPLIED] src=10.0.0.2\n"
        );
        let (rows, account) = read_all(&text);
        assert_eq!((rows.len(), rows[0].line), (1, 2));
        assert_eq!(account.unreadable.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 3, 4]);
        for line in ["tcp 0 0 10.0.0.1:5 10.0.0.2:80 ESTABLISHED", "TCP 10.0.0.1:443 rr", "tcp 6"] {
            assert!(!is_row(line), "{line}");
        }
    }
}
