//! Access logs of web servers in the "common" and "combined" formats (nginx, Apache): which probes arrived, and when.
//!
//! Only what tells probes apart is kept: no query strings, no referrers, no other headers.

use std::io::Read;
use std::net::IpAddr;

use jiff::civil;

use crate::inputs::lines;
use crate::ipvs::rows::RowLog;
use crate::ipvs::table::Unreadable;
use crate::observation::Nanos;

/// Longest path that is kept, characters.
const MAX_PATH: usize = 200;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it was logged (nginx: when it was answered), nanoseconds since the Unix epoch; whole seconds.
    pub at: Nanos,
    /// Who asked.
    pub client: IpAddr,
    /// Method, such as `GET`.
    pub method: String,
    /// Path without its query.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
    /// The user agent is the kubelet's prober (`kube-probe/…`).
    pub kube_probe: bool,
    /// Line from 1.
    pub line: u64,
}

/// What a log was found to be, after it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Lines.
    pub lines: u64,
    /// Requests handed out.
    pub requests: u64,
    /// Lines of another form: error logs are often in the same stream.
    pub other: u64,
    /// Requests that could not be read, the first of them.
    pub unreadable: Vec<Unreadable>,
    /// Why the rest was not read.
    pub cut: Option<String>,
}

/// Reads a log to its end and hands every request to `sink`.
pub fn read(input: impl Read, sink: &mut dyn FnMut(Request)) -> Account {
    let mut account = Account::default();
    let mut log = RowLog::default();
    let (count, end) = lines::for_each(input, &mut |line, bytes| {
        let text = String::from_utf8_lossy(bytes);
        match parts(&text) {
            None => account.other += u64::from(!text.trim().is_empty()),
            Some(parts) => match parts.request(line) {
                Ok(request) => {
                    account.requests += 1;
                    sink(request);
                }
                // What the client sent may hold secrets: only the beginning is kept.
                Err(reason) => log.push(lines::row_number(line), parts.before.trim().as_bytes(), reason),
            },
        }
    });
    account.lines = count;
    account.unreadable = log.finish();
    account.cut = end.err().map(|error| format!("reading failed after line {count}: {error}"));
    account
}

/// Whether a line, by itself, is a request: for telling kinds of files apart.
pub(crate) fn is_request(line: &str) -> bool {
    parts(line).is_some_and(|parts| parts.request(1).is_ok())
}

/// A line of these formats, taken apart at the time.
struct Parts<'a> {
    /// Client, identity and user; what wraps the line is before them.
    before: &'a str,
    at: Nanos,
    /// Request, status, and what follows.
    after: &'a str,
}

/// `before [15/Sep/2022:11:08:42 +0000] after`
fn parts(text: &str) -> Option<Parts<'_>> {
    text.match_indices('[').find_map(|(start, _)| {
        let inside = text.get(start + 1..)?;
        let at = time(inside.get(..26)?)?;
        let after = inside.get(26..)?.strip_prefix(']')?;
        Some(Parts { before: text.get(..start)?, at, after: after.trim_start() })
    })
}

/// `15/Sep/2022:11:08:42 +0000`
fn time(text: &str) -> Option<Nanos> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let signs = [(2, b'/'), (6, b'/'), (11, b':'), (14, b':'), (17, b':'), (20, b' ')];
    if signs.iter().any(|(at, sign)| text.as_bytes().get(*at) != Some(sign)) {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i8>().ok();
    let name = text.get(3..6)?;
    let month = (1_i8..).zip(MONTHS).find(|(_, month)| *month == name)?.0;
    let year = text.get(7..11)?.parse().ok()?;
    let date = civil::Date::new(year, month, number(0, 2)?).ok()?;
    // A leap second is the last one of its minute.
    let clock = civil::Time::new(number(12, 14)?, number(15, 17)?, number(18, 20)?.min(59), 0).ok()?;
    let minutes = i32::from(number(22, 24)?) * 60 + i32::from(number(24, 26)?);
    let sign = match text.get(21..22)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let zone = jiff::tz::Offset::from_seconds(sign * minutes * 60).ok()?;
    let timestamp = zone.to_timestamp(date.to_datetime(clock)).ok()?;
    Nanos::try_from(timestamp.as_nanosecond()).ok()
}

impl Parts<'_> {
    fn request(&self, line: u64) -> Result<Request, &'static str> {
        // The client is the first of the three words before the time; a virtual host or a wrapping may come before it.
        let client = self.before.split_whitespace().rev().find_map(address);
        let client = client.ok_or("its client is no address: log addresses, not names")?;
        // A wrapping in JSON escapes the quotes.
        let text = self.after.replace("\\\"", "\"");
        let mut quoted = text.strip_prefix('"').ok_or("it has no request")?.splitn(2, '"');
        let request = quoted.next().unwrap_or_default();
        let rest = quoted.next().ok_or("the line is cut off")?;
        let status = rest.split_whitespace().next().and_then(|word| word.parse().ok());
        let mut words = request.split(' ');
        Ok(Request {
            at: self.at,
            client,
            method: words.next().unwrap_or_default().chars().take(16).collect(),
            path: path(words.next().unwrap_or_default()),
            status: status.ok_or("it has no status")?,
            kube_probe: rest.contains("\"kube-probe/"),
            line,
        })
    }
}

fn address(word: &str) -> Option<IpAddr> {
    let word = word.rsplit('"').next().unwrap_or(word).trim_matches(['[', ']']);
    word.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Without query, and without what a proxy's request has before it.
fn path(target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if path.starts_with('/') { path.chars().take(MAX_PATH).collect() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::time::rfc3339;

    fn read_all(text: &str) -> (Vec<Request>, Account) {
        let mut requests = Vec::new();
        let account = read(text.as_bytes(), &mut |request| requests.push(request));
        (requests, account)
    }

    /// midbai.com, "many pod probes are failing after upgrading Kubernetes"
    #[test]
    fn the_incidents_log_has_no_probe_at_11_09_02() {
        let (requests, account) = read_all(include_str!("../tests/seed/nginx-access.log"));
        assert_eq!((account.requests, account.other), (4, 0));
        let times: Vec<String> =
            requests.iter().map(|request| rfc3339(request.at)[11..19].to_owned()).collect();
        assert_eq!(times, ["11:08:42", "11:08:52", "11:09:12", "11:09:22"]);
        assert!(requests.iter().all(|request| request.kube_probe && request.status == 200));
        assert_eq!(requests[0].client.to_string(), "10.23.77.129");
    }

    #[test]
    fn only_method_and_path_are_kept() {
        let line = "10.0.0.1 - bob [15/Sep/2022:11:08:42 +0200] \"GET /a?token=secret HTTP/1.1\" 200 5 \"http://x/?key=1\" \"curl\"";
        let (requests, _) = read_all(line);
        let [request] = requests.as_slice() else { panic!() };
        assert_eq!(
            (request.method.as_str(), request.path.as_str(), request.kube_probe),
            ("GET", "/a", false)
        );
        assert_eq!(rfc3339(request.at), "2022-09-15T09:08:42.000000000Z");
        assert!(!format!("{request:?}").contains("secret"));
        let (requests, _) =
            read_all("::1 - - [01/Jan/2023:00:00:00 -0530] \"CONNECT user:pw@host:443 HTTP/1.1\" 400 0");
        assert_eq!(
            (requests[0].path.as_str(), rfc3339(requests[0].at).as_str()),
            ("", "2023-01-01T05:30:00.000000000Z")
        );
    }

    #[test]
    fn lines_in_other_wrappings_are_read() {
        let inner = "10.23.77.129 - - [15/Sep/2022:11:08:42 +0000] \"GET / HTTP/1.1\" 200 615 \"-\" \"kube-probe/1.23\" \"-\"";
        for line in [
            inner.to_owned(),
            format!("2022-09-15T11:08:42.000000001Z stdout F {inner}"),
            format!("{{\"log\":{},\"stream\":\"stdout\"}}", serde_json::to_string(inner).unwrap()),
            format!("www.example.org:80 {inner}"),
            inner.replace("10.23.77.129", "::ffff:10.23.77.129"),
        ] {
            let (requests, _) = read_all(&line);
            assert_eq!(requests.len(), 1, "{line}");
            assert_eq!(
                (requests[0].client.to_string().as_str(), requests[0].kube_probe),
                ("10.23.77.129", true),
                "{line}"
            );
            assert!(is_request(&line));
        }
    }

    #[test]
    fn other_lines_are_counted_and_bad_requests_are_listed() {
        let text = "2022/09/15 11:09:02 [error] 7#7: *1 open() failed\n\
                    host.example - - [15/Sep/2022:11:08:42 +0000] \"GET / HTTP/1.1\" 200 615\n\
                    10.0.0.1 - - [15/Sep/2022:11:08:42 +0000] \"GET / HT\n\
                    10.0.0.1 - - [31/Feb/2022:11:08:42 +0000] \"GET / HTTP/1.1\" 200 615\n\n";
        let (requests, account) = read_all(text);
        assert_eq!((requests.len(), account.other, account.unreadable.len()), (0, 2, 2));
        assert_eq!(account.unreadable[1].line, 3);
    }
}
