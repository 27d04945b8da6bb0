//! The prefix that journalctl and syslog daemons print: `Jul 17 20:31:39 node-a kubelet[1234]: text`, with or without the
//! pid, with the time in any of journalctl's forms.

use std::borrow::Cow;

use super::time;
use super::wrapping::{Layer, Stream, Wrapping};
use crate::observation::Nanos;

/// The name of the program comes within so many bytes.
const MAX_PREFIX: usize = 512;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Takes the prefix off. `None` if there is none.
pub(super) fn unwrap(line: &[u8]) -> Option<Layer<'_>> {
    let (prefix, text) = split(line)?;
    let at = prefix.split(' ').next().and_then(absolute);
    Some(Layer { wrapping: Wrapping::Syslog, at, text: unescaped(text), goes_on: false, stream: Stream::Err })
}

/// The program that wrote the line.
pub(super) fn program(line: &[u8]) -> Option<&str> {
    let (prefix, _) = split(line)?;
    let name = prefix.rsplit(' ').next()?;
    Some(name.split('[').next().unwrap_or(name))
}

fn split(line: &[u8]) -> Option<(&str, &[u8])> {
    let line = without_priority(line);
    let head = line.get(..MAX_PREFIX.min(line.len()))?;
    let end = memchr::memmem::find(head, b": ").or_else(|| {
        // A line without text.
        head.strip_suffix(b":").map(<[u8]>::len)
    })?;
    let prefix = std::str::from_utf8(line.get(..end)?).ok()?;
    let mut words = prefix.split(' ').filter(|word| !word.is_empty());
    let first = words.next()?;
    let is_time = MONTHS.contains(&first) || DAYS.contains(&first) || absolute(first).is_some() || iso(first);
    // At least a time, a host and a program.
    if !is_time || words.count() < 2 || !is_program(prefix.rsplit(' ').next()?) {
        return None;
    }
    Some((prefix, line.get(end + 2..).unwrap_or_default()))
}

/// `name` or `name[pid]`.
fn is_program(word: &str) -> bool {
    let name = word
        .strip_suffix(']')
        .and_then(|word| word.rsplit_once('['))
        .map_or(Some(word), |(name, pid)| pid.bytes().all(|byte| byte.is_ascii_digit()).then_some(name));
    name.is_some_and(|name| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./@()".contains(&byte))
    })
}

/// `<30>`, as it goes over the wire.
fn without_priority(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(b"<") else { return line };
    match memchr::memchr(b'>', rest.get(..4.min(rest.len())).unwrap_or_default()) {
        Some(end) if end > 0 => rest.get(end + 1..).unwrap_or_default(),
        _ => line,
    }
}

/// `2022-09-15T19:09:04+0000` and seconds since 1970 (`-o short-unix`) have year and zone; the rest has not.
fn absolute(word: &str) -> Option<Nanos> {
    if let Some((seconds, micros)) = word.split_once('.')
        && seconds.len() >= 9
        && micros.len() == 6
    {
        let seconds: Nanos = seconds.parse().ok()?;
        let micros: Nanos = micros.parse().ok()?;
        return seconds.checked_mul(1_000_000)?.checked_add(micros)?.checked_mul(1000);
    }
    if iso(word) { time::rfc3339(word) } else { None }
}

fn iso(word: &str) -> bool {
    word.len() >= 19 && word.as_bytes().get(4) == Some(&b'-') && word.as_bytes().get(10) == Some(&b'T')
}

/// rsyslog writes a tab as `#011`.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    match text.strip_prefix(b"#011") {
        Some(rest) => Cow::Owned([b"\t", rest].concat()),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str) -> Option<String> {
        unwrap(line.as_bytes()).map(|layer| String::from_utf8_lossy(&layer.text).into_owned())
    }

    #[test]
    fn every_way_journalctl_and_syslog_print_the_time() {
        for prefix in [
            "Jul 17 20:31:39 node-a kubelet: ",
            "Jul  7 20:31:39 node-a kubelet[1234]: ",
            "Jul 05 17:47:52.807876 node-a hyperkube[1495]: ",
            "2022-09-15T19:09:04+0000 node-a kubelet[607529]: ",
            "2022-09-15T19:09:04.534948+00:00 node-a kubelet[607529]: ",
            "Thu 2022-09-15 19:09:04 UTC node-a k3s[607529]: ",
            "1663268944.534948 node-a kubelet[607529]: ",
            "<30>Jul 17 20:31:39 node-a kubelet[1]: ",
            "Jul 17 20:31:39 node-a snap.kubelet-eks.daemon[1]: ",
        ] {
            assert_eq!(text(&format!("{prefix}I0717 x: y")).as_deref(), Some("I0717 x: y"), "{prefix}");
        }
    }

    #[test]
    fn a_time_with_year_and_zone_is_taken() {
        let at = |prefix: &str| unwrap(format!("{prefix} node-a kubelet[1]: x").as_bytes()).unwrap().at;
        assert_eq!(at("2022-09-15T19:09:04+0000"), Some(1_663_268_944_000_000_000));
        assert_eq!(at("2022-09-15T21:09:04.534948+02:00"), Some(1_663_268_944_534_948_000));
        assert_eq!(at("1663268944.534948"), Some(1_663_268_944_534_948_000));
        assert_eq!(at("Sep 15 19:09:04"), None);
    }

    #[test]
    fn other_lines_have_no_prefix() {
        for line in [
            "I0717 20:31:39.569363   23774 prober.go:106] Readiness probe: x",
            "node-a kubelet: x",
            "Jul 17: x",
            "Jul 17 20:31:39 node-a no program here [x]: y",
            "\tGet \"http://10.0.0.1:80/\": dial tcp",
            "",
        ] {
            assert_eq!(text(line), None, "{line}");
        }
    }

    #[test]
    fn a_tab_that_rsyslog_escaped() {
        assert_eq!(text("Jul 17 20:31:39 node-a kubelet[1]: #011Get").as_deref(), Some("\tGet"));
    }

    #[test]
    fn the_program_is_named() {
        assert_eq!(program(b"Jul 17 20:31:39 node-a k3s[1]: x"), Some("k3s"));
        assert_eq!(program(b"Jul 17 20:31:39 node-a kubelet: x"), Some("kubelet"));
    }
}
