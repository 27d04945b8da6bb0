//! What a probe's output says: where it connected to, and how that ended.
//!
//! Only the texts that the kubelet's own probers write count (pkg/probe/{http,tcp,grpc} of kubernetes); anything else is
//! the output of a command in the container, whatever addresses it has in it.

use std::net::{IpAddr, SocketAddr};

use super::FailureClass;
use crate::observation::Nanos;

/// What was read out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) class: FailureClass,
    pub(super) target: Option<SocketAddr>,
    pub(super) source: Option<SocketAddr>,
    pub(super) timeout_ns: Option<Nanos>,
}

impl Said {
    const fn only(class: FailureClass) -> Self {
        Self { class, target: None, source: None, timeout_ns: None }
    }
}

/// The output is not there.
pub(super) const fn cut() -> Said {
    Said::only(FailureClass::Cut)
}

/// The output of a probe that failed.
pub(super) fn failed(output: &str) -> Said {
    let output = output.trim();
    if output.is_empty() {
        return Said::only(FailureClass::Empty);
    }
    http(output).or_else(|| tcp(output)).or_else(|| grpc(output)).unwrap_or(Said::only(FailureClass::Exec))
}

/// The error of a probe that could not be made. Only commands meet such errors once they run.
pub(super) fn errored(error: &str) -> Said {
    let exec = ["rpc error", "command \"", "timed out", "exec", "container"];
    if error.trim().is_empty() {
        Said::only(FailureClass::Empty)
    } else if exec.iter().any(|word| error.contains(word)) {
        Said::only(FailureClass::Exec)
    } else {
        Said::only(FailureClass::Other)
    }
}

/// `Get "URL": error`, without quotes before 1.20, or `HTTP probe failed with statuscode: 503`.
fn http(output: &str) -> Option<Said> {
    if let Some(status) = output.strip_prefix("HTTP probe failed with statuscode: ") {
        let digits: String = status.chars().take_while(char::is_ascii_digit).collect();
        let class = digits.parse().map_or(FailureClass::Other, FailureClass::HttpStatus);
        return Some(Said::only(class));
    }
    let rest = output.strip_prefix("Get ")?;
    let (url, error) = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
        None => rest.split_once(": ").unwrap_or((rest, "")),
    };
    let scheme_end = url.find("://")?;
    let by_error = addresses(error);
    let target = by_error.1.or_else(|| url_target(url.get(..scheme_end)?, url.get(scheme_end + 3..)?));
    Some(Said { class: class(error), target, source: by_error.0, timeout_ns: None })
}

/// `dial tcp 10.0.0.1:80: connect: connection refused`
fn tcp(output: &str) -> Option<Said> {
    let started = output.starts_with("dial tcp");
    let (source, target) = addresses(output);
    started.then(|| Said { class: class(output), target, source, timeout_ns: None })
}

/// The built-in gRPC prober. grpc_health_probe, which runs in the container, says nearly the same, but not why.
fn grpc(output: &str) -> Option<Said> {
    const TIMEOUT: &str = "timeout: failed to connect service \"";
    const ERROR: &str = "error: failed to connect service at \"";
    if let Some(rest) = output.strip_prefix(TIMEOUT).or_else(|| output.strip_prefix(ERROR)) {
        let (address, rest) = rest.split_once('"')?;
        let (within, error) = rest.split_once(": ")?;
        let target: SocketAddr = address.parse().ok()?;
        // A pod is never probed over loopback; a command in it does that.
        if target.ip().is_loopback() || target.ip().is_unspecified() {
            return None;
        }
        let timeout_ns = within.trim().strip_prefix("within ").and_then(go_duration);
        return Some(Said { class: class(error), target: Some(target), source: None, timeout_ns });
    }
    if let Some(rest) = output.strip_prefix("timeout: health rpc did not complete within ") {
        let timeout_ns = go_duration(rest.trim());
        return Some(Said { timeout_ns, ..Said::only(FailureClass::Timeout) });
    }
    None
}

/// How it ended, by the words of Go's network errors.
fn class(error: &str) -> FailureClass {
    let has = |words: &[&str]| words.iter().any(|word| error.contains(word));
    if has(&["cannot assign requested address"]) {
        FailureClass::OutOfPorts
    } else if has(&["connection refused"]) {
        FailureClass::Refused
    } else if has(&["connection reset by peer", "broken pipe"]) {
        FailureClass::Reset
    } else if has(&["network is unreachable", "no route to host", "host is down"]) {
        FailureClass::Unreachable
    } else if has(&[
        "deadline exceeded",
        "timeout",
        "Timeout",
        "timed out",
        "request canceled",
        "context canceled",
    ]) {
        FailureClass::Timeout
    } else if error.is_empty() {
        FailureClass::Cut
    } else {
        FailureClass::Other
    }
}

/// Source and target of Go's `dial tcp B`, `read tcp A->B`, `write tcp A->B`.
fn addresses(error: &str) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let start = ["dial tcp ", "read tcp ", "write tcp "]
        .iter()
        .filter_map(|word| error.find(word).map(|at| at + word.len()));
    let Some(rest) = start.min().and_then(|at| error.get(at..)) else { return (None, None) };
    let token = rest.split(": ").next().unwrap_or(rest).split_whitespace().next().unwrap_or_default();
    match token.split_once("->") {
        Some((source, target)) => (source.parse().ok(), target.parse().ok()),
        None => (None, token.parse().ok()),
    }
}

/// Address and port of a URL whose host is an address.
fn url_target(scheme: &str, rest: &str) -> Option<SocketAddr> {
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    if let Ok(address) = authority.parse() {
        return Some(address);
    }
    let ip: IpAddr = authority.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Go's `1s`, `1.5s`, `500ms`, `1m30s`, in nanoseconds.
fn go_duration(text: &str) -> Option<Nanos> {
    let mut total: Nanos = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit: Nanos = match unit {
            "ns" => 1,
            "us" | "µs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let fraction: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        let fraction: Nanos = fraction.parse().ok()?;
        let part = whole.parse::<Nanos>().ok()?.checked_mul(unit)?;
        total = total
            .checked_add(part)?
            .checked_add(fraction.checked_mul(unit.min(1_000_000_000))? / 1_000_000_000)?;
        rest = after;
    }
    (total > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    #[test]
    fn urls_with_and_without_port_quotes_and_brackets() {
        for (output, target) in [
            ("Get \"http://10.0.0.1:8080/health\": EOF", "10.0.0.1:8080"),
            ("Get http://10.0.0.1:8080/health: net/http: request canceled", "10.0.0.1:8080"),
            ("Get \"http://10.0.0.1/\": EOF", "10.0.0.1:80"),
            ("Get \"https://10.0.0.1/x?y=1:2\": EOF", "10.0.0.1:443"),
            ("Get \"https://[fd00::1]/\": EOF", "[fd00::1]:443"),
            ("Get \"https://[fd00::1]:6443/\": EOF", "[fd00::1]:6443"),
            ("Get \"http://user:pw@10.0.0.1:81/\": EOF", "10.0.0.1:81"),
            ("Get \"http://web.local:80/\": dial tcp 10.0.0.7:80: i/o timeout", "10.0.0.7:80"),
        ] {
            assert_eq!(failed(output).target, addr(target), "{output}");
        }
        assert_eq!(
            failed("Get \"http://web.local:80/\": dial tcp: lookup web.local: no such host").target,
            None
        );
        assert_eq!(failed("Get \"http://10.0.0.1:99999/\": EOF").target, None);
    }

    #[test]
    fn the_source_port_of_a_connection_that_was_open() {
        let said = failed(
            "Get \"http://10.0.0.1:80/\": read tcp 10.0.0.9:36704->10.0.0.1:80: read: connection reset by peer",
        );
        assert_eq!(
            (said.class, said.source, said.target),
            (FailureClass::Reset, addr("10.0.0.9:36704"), addr("10.0.0.1:80"))
        );
        let said = failed("dial tcp [fd00::9]:36704->[fd00::1]:80: i/o timeout");
        assert_eq!(
            (said.class, said.source, said.target),
            (FailureClass::Timeout, addr("[fd00::9]:36704"), addr("[fd00::1]:80"))
        );
    }

    #[test]
    fn classes_by_the_words_of_go() {
        for (error, class) in [
            ("dial tcp 10.0.0.1:80: connect: connection refused", FailureClass::Refused),
            ("dial tcp 10.0.0.1:80: getsockopt: connection refused", FailureClass::Refused),
            ("dial tcp 10.0.0.1:80: connect: cannot assign requested address", FailureClass::OutOfPorts),
            ("dial tcp 10.0.0.1:80: connect: no route to host", FailureClass::Unreachable),
            ("dial tcp 10.0.0.1:80: connect: connection timed out", FailureClass::Timeout),
            ("net/http: TLS handshake timeout", FailureClass::Timeout),
            (
                "net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
                FailureClass::Timeout,
            ),
            ("context deadline exceeded", FailureClass::Timeout),
            ("EOF", FailureClass::Other),
        ] {
            assert_eq!(failed(&format!("Get \"http://10.0.0.1:80/\": {error}")).class, class, "{error}");
        }
        assert_eq!(failed("HTTP probe failed with statuscode: 503").class, FailureClass::HttpStatus(503));
        assert_eq!(failed("HTTP probe failed with statuscode: x").class, FailureClass::Other);
    }

    #[test]
    fn addresses_in_the_output_of_a_command_are_no_target() {
        for output in [
            "Error: dial tcp 10.0.0.1:80: connect: connection refused",
            "wget: can't connect to remote host (10.0.0.1): Connection refused",
            "timeout: failed to connect service \":8080\" within 1s",
            "timeout: failed to connect service \"10.0.0.1:8080\" within 1s",
            "timeout: failed to connect service \"127.0.0.1:8080\" within 1s: context deadline exceeded",
        ] {
            assert_eq!(failed(output), Said::only(FailureClass::Exec), "{output}");
        }
    }

    #[test]
    fn the_built_in_grpc_prober_names_target_and_timeout() {
        let said = failed(
            "timeout: failed to connect service \"10.0.0.1:8080\" within 1s: context deadline exceeded",
        );
        assert_eq!(
            (said.class, said.target, said.timeout_ns),
            (FailureClass::Timeout, addr("10.0.0.1:8080"), Some(1_000_000_000))
        );
        let said = failed(
            "error: failed to connect service at \"[fd00::1]:8080\": connection error: connection refused",
        );
        assert_eq!(
            (said.class, said.target, said.timeout_ns),
            (FailureClass::Refused, addr("[fd00::1]:8080"), None)
        );
        let said = failed("timeout: health rpc did not complete within 1.5s");
        assert_eq!(
            (said.class, said.target, said.timeout_ns),
            (FailureClass::Timeout, None, Some(1_500_000_000))
        );
    }

    #[test]
    fn durations_of_go() {
        assert_eq!(go_duration("1m30s"), Some(90_000_000_000));
        assert_eq!(go_duration("500ms"), Some(500_000_000));
        for none in ["", "s", "1", "1x", "0s", "99999999999999h", "1.2.3s", "é"] {
            assert_eq!(go_duration(none), None, "{none}");
        }
    }
}
