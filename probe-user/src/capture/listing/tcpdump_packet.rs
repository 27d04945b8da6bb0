//! One packet as tcpdump prints it after its stamp: `IP a.p > b.q: Flags [S], seq …`, and the form before tcpdump 4.0.

use std::net::{IpAddr, SocketAddr};

use super::Refusal;
use super::flows::Printed;
use crate::capture::packet::Flags;

/// What a line says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    Tcp(Tcp),
    /// Somebody says that a TCP port cannot be reached.
    Icmp {
        from: IpAddr,
        to: IpAddr,
        /// Address and port that cannot be reached.
        about: SocketAddr,
    },
    /// A packet of another kind.
    Other,
}

/// A TCP packet as it is printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcp {
    pub(super) printed: Printed,
    pub(super) window: Option<u16>,
    pub(super) timestamp: Option<u32>,
}

const FLAGS: &str = ": Flags [";

/// Whether the text has the form of a TCP packet, whatever its values.
pub(super) fn is_tcp(text: &str) -> bool {
    text.split_once(FLAGS).is_some_and(|(before, _)| before.contains(" > "))
        || arrow(text).is_some_and(|(_, _, rest)| old_flags(rest).is_some())
}

/// Reads a packet.
pub(super) fn body(text: &str) -> Result<Body, Refusal> {
    if let Some((before, rest)) = text.split_once(FLAGS) {
        let (left, right) = before.rsplit_once(" > ").ok_or(Refusal::Cut)?;
        return tcp(last_word(left), right.trim(), rest).map(Body::Tcp);
    }
    let Some((left, right, rest)) = arrow(text) else { return Ok(Body::Other) };
    if let Some(flags) = old_flags(rest) {
        return old_tcp(left, right, flags, rest).map(Body::Tcp);
    }
    let Some(about) = unreachable(rest) else { return Ok(Body::Other) };
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| Refusal::Name);
    let (ip, port) = about;
    let port = port.parse().map_err(|_| Refusal::Name)?;
    Ok(Body::Icmp { from: address(left)?, to: address(right)?, about: SocketAddr::new(address(ip)?, port) })
}

/// Address and port of `ICMP 10.0.0.1 tcp port 80 unreachable`, and of ICMPv6's form.
fn unreachable(text: &str) -> Option<(&str, &str)> {
    let text = match text.strip_prefix("ICMP ") {
        Some(text) => text,
        None => text.strip_prefix("ICMP6, destination unreachable, unreachable port, ")?,
    };
    let (ip, rest) = text.split_once(" tcp port ")?;
    let port = rest.split([' ', ',']).next()?;
    (!ip.contains(' ')).then_some((ip, port))
}

/// Both ends of `a > b: rest`. Hardware addresses before it (`-e`) end with a comma.
fn arrow(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices(" > ").find_map(|(at, arrow)| {
        let left = last_word(text.get(..at)?);
        let after = text.get(at + arrow.len()..)?;
        let (right, rest) = after.split_once(": ")?;
        (!left.is_empty() && !right.contains([' ', ','])).then_some((left, right, rest))
    })
}

/// Both ends, of a packet that was too short to show more: `a.p > b.q:  [|tcp]`.
pub(super) fn ends(text: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (left, right, _) = arrow(text)?;
    Some((endpoint(left).ok()?, endpoint(right).ok()?))
}

fn last_word(text: &str) -> &str {
    text.rsplit(' ').next().unwrap_or_default()
}

fn endpoint(text: &str) -> Result<SocketAddr, Refusal> {
    let (ip, port) = text.rsplit_once('.').ok_or(Refusal::Name)?;
    let ip: IpAddr = ip.parse().map_err(|_| Refusal::Name)?;
    Ok(SocketAddr::new(ip, port.parse().map_err(|_| Refusal::Name)?))
}

/// `rest` begins after `Flags [`.
fn tcp(left: &str, right: &str, rest: &str) -> Result<Tcp, Refusal> {
    let (source, destination) = (endpoint(left)?, endpoint(right)?);
    let (flags, rest) = rest.split_once(']').ok_or(Refusal::Cut)?;
    let flags = if flags == "none" { Flags(0) } else { flag_letters(flags).ok_or(Refusal::Number)? };
    let mut found = Fields::default();
    for field in rest.split(", ").skip(1) {
        if !found.take(field.trim())? {
            break;
        }
    }
    // Every packet ends with its length, unless it was snapped. A line that was cut may end within a number.
    if found.payload.is_none() && !rest.contains("[|tcp") {
        return Err(Refusal::Cut);
    }
    let Fields { sequence, acknowledgement, window, timestamp, payload } = found;
    let payload = payload.unwrap_or(0);
    let printed = Printed { source, destination, flags, sequence, acknowledgement, payload };
    Ok(Tcp { printed, window, timestamp })
}

fn flag_letters(text: &str) -> Option<Flags> {
    let bit = |letter| match letter {
        'F' => Some(Flags::FIN),
        'S' => Some(Flags::SYN),
        'R' => Some(Flags::RST),
        'P' => Some(8),
        '.' => Some(Flags::ACK),
        'U' => Some(32),
        'E' => Some(64),
        'W' => Some(128),
        // Accurate ECN's bit is not among the eight.
        'e' => Some(0),
        _ => None,
    };
    text.chars().try_fold(0, |bits, letter| Some(bits | bit(letter)?)).map(Flags)
}

#[derive(Default)]
struct Fields {
    sequence: Option<u32>,
    acknowledgement: Option<u32>,
    window: Option<u16>,
    timestamp: Option<u32>,
    payload: Option<u32>,
}

impl Fields {
    /// Takes one field; false after the last one, behind which only payload follows.
    fn take(&mut self, field: &str) -> Result<bool, Refusal> {
        let Some((name, value)) = field.split_once(' ') else { return Ok(true) };
        match name {
            "seq" => {
                let first = value.split(':').next().unwrap_or_default();
                self.sequence = Some(number(first)?);
            }
            "ack" => self.acknowledgement = Some(number(value)?),
            "win" => self.window = value.parse().ok(),
            "options" => {
                self.timestamp = value.split_once("TS val ").and_then(|(_, rest)| leading(rest));
            }
            "length" => {
                self.payload = leading(value);
                return Ok(false);
            }
            _ => {}
        }
        Ok(true)
    }
}

fn number(text: &str) -> Result<u32, Refusal> {
    text.parse().map_err(|_| Refusal::Number)
}

/// The number that a text begins with.
fn leading(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// `S 1:1(0) win 5`, `. ack 1 win 5`: flags of the form before tcpdump 4.0, from what follows the addresses.
fn old_flags(rest: &str) -> Option<Flags> {
    let (word, after) = rest.split_once(' ')?;
    let flags = flag_letters(word)?;
    let sequence = after.split(' ').next().is_some_and(|word| word.contains(':') && word.ends_with(')'));
    // Without ACK's own sign: it is the word that follows.
    let ack = if after.contains("ack ") { Flags::ACK } else { 0 };
    (sequence || after.starts_with("ack ")).then_some(Flags(flags.0 & !Flags::ACK | ack))
}

fn old_tcp(left: &str, right: &str, flags: Flags, rest: &str) -> Result<Tcp, Refusal> {
    let (source, destination) = (endpoint(left)?, endpoint(right)?);
    let mut words = rest.split(' ').skip(1).peekable();
    let mut found = Fields::default();
    if let Some((first, last)) = words.peek().and_then(|word| word.split_once(':')) {
        let (_, length) = last.split_once('(').ok_or(Refusal::Cut)?;
        found.sequence = Some(number(first)?);
        found.payload = Some(number(length.trim_end_matches(')'))?);
    }
    while let Some(word) = words.next() {
        match word {
            "ack" => found.acknowledgement = Some(number(words.peek().ok_or(Refusal::Cut)?)?),
            "win" => found.window = words.peek().ok_or(Refusal::Cut)?.parse().ok(),
            _ => {}
        }
    }
    if found.window.is_none() {
        return Err(Refusal::Cut);
    }
    let payload = found.payload.unwrap_or(0);
    let Fields { sequence, acknowledgement, window, .. } = found;
    let printed = Printed { source, destination, flags, sequence, acknowledgement, payload };
    Ok(Tcp { printed, window, timestamp: None })
}
