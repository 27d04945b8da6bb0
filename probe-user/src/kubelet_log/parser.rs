//! From lines to failed probes.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::time::{self, Times, YearClock};
use super::wrapping::{self, Layer, Stream};
use super::{FailureClass, ProbeFailure, classic, json_logging, klog, output, secrets, structured};
use crate::kubernetes::pod::ProbeType;
use crate::observation::Nanos;

/// Only this file of the kubelet logs probes. (`http.go` logs the same failure again, with the request's headers.)
const PROBER: &str = "prober.go";
/// Longest line that is put together of parts.
const MAX_JOINED: usize = 256 * 1024;
/// Longest block of lines that belongs to one record.
const MAX_BLOCK: usize = 16 * 1024;
/// Longest text of a failure that is kept, in bytes.
pub(super) const MAX_TEXT: usize = 1024;

/// What a message about a failed probe says.
pub(super) struct Message<'a> {
    pub(super) errored: bool,
    pub(super) kind: Option<ProbeType>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) container: Option<String>,
    pub(super) words: Words<'a>,
    /// Where the words are in the message.
    pub(super) range: Option<Range<usize>>,
}

/// A probe's output or error.
pub(super) enum Words<'a> {
    /// All of it, or its beginning.
    Text(Cow<'a, str>),
    /// Cut away.
    Missing,
}

/// What could not be done as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParserCounts {
    /// Failures whose time was read as UTC because the node's zone is not known.
    pub assumed_utc: u64,
    /// Lines about failed probes with no time that can be read.
    pub without_time: u64,
    /// Lines that say they are about a failed probe and name neither pod nor target.
    pub unreadable: u64,
}

/// Reads a log line by line. Holds at most one record that goes on in the next lines, and a part of a line per stream.
#[derive(Debug)]
pub struct LineParser {
    file: Arc<str>,
    clock: YearClock,
    counts: ParserCounts,
    open: Option<Open>,
    parts: [Option<Open>; 2],
}

/// Text that more of follows.
#[derive(Debug)]
struct Open {
    at: Option<Nanos>,
    line: Option<u64>,
    text: Vec<u8>,
}

impl Open {
    fn push(&mut self, more: &[u8], max: usize) {
        let room = max.saturating_sub(self.text.len());
        self.text.extend_from_slice(more.get(..room.min(more.len())).unwrap_or_default());
    }
}

impl LineParser {
    /// `file` names the source in every failure.
    pub fn new(file: Arc<str>, times: Times) -> Self {
        Self {
            file,
            clock: YearClock::new(times),
            counts: ParserCounts::default(),
            open: None,
            parts: [None, None],
        }
    }

    /// Takes one line, without its end. What it completes goes to `found`: a line can end one record and be another.
    pub fn line(&mut self, raw: &[u8], number: Option<u64>, found: &mut Vec<ProbeFailure>) {
        let Layer { at, text, goes_on, stream, .. } = wrapping::unwrap(raw);
        let slot = match stream {
            Stream::Out => 0,
            Stream::Err => 1,
        };
        let part = self.parts.get_mut(slot).and_then(Option::take);
        if part.is_none() && !goes_on {
            self.text(at, number, &text, found);
            return;
        }
        let mut joined = part.unwrap_or(Open { at, line: number, text: Vec::new() });
        joined.push(&text, MAX_JOINED);
        if goes_on {
            if let Some(place) = self.parts.get_mut(slot) {
                *place = Some(joined);
            }
        } else {
            self.text(joined.at, joined.line, &joined.text, found);
        }
    }

    /// No more lines come, or none for a while: completes what is open.
    pub fn flush(&mut self, found: &mut Vec<ProbeFailure>) {
        for part in std::mem::take(&mut self.parts).into_iter().flatten() {
            self.text(part.at, part.line, &part.text, found);
        }
        if let Some(open) = self.open.take() {
            self.record(open.at, open.line, &open.text, found);
        }
    }

    /// Whether the next line can belong to one before it.
    pub fn wants_next(&self) -> bool {
        self.open.is_some() || self.parts.iter().any(Option::is_some)
    }

    /// What could not be done as it should.
    pub const fn counts(&self) -> ParserCounts {
        self.counts
    }

    /// For a log that is followed: no line is younger than this.
    pub fn not_after(&mut self, at: Nanos) {
        self.clock.not_after(at);
    }

    /// A whole line without its wrapping.
    fn text(&mut self, at: Option<Nanos>, line: Option<u64>, text: &[u8], found: &mut Vec<ProbeFailure>) {
        if let Some(mut open) = self.open.take() {
            match continuation(text) {
                Some(Continuation::More(more)) => {
                    open.push(b"\n\t", MAX_BLOCK);
                    open.push(more, MAX_BLOCK);
                    self.open = Some(open);
                    return;
                }
                Some(Continuation::End) => {
                    open.text.push(b'\n');
                    open.push(text, MAX_BLOCK + text.len());
                    self.record(open.at, open.line, &open.text, found);
                    return;
                }
                None => self.record(open.at, open.line, &open.text, found),
            }
        }
        if memchr::memmem::find(text, PROBER.as_bytes()).is_none() {
            return;
        }
        if text.trim_ascii_end().ends_with(b"=<") {
            self.open = Some(Open { at, line, text: text.trim_ascii_end().to_vec() });
        } else {
            self.record(at, line, text, found);
        }
    }

    fn record(&mut self, at: Option<Nanos>, line: Option<u64>, text: &[u8], found: &mut Vec<ProbeFailure>) {
        let text = String::from_utf8_lossy(text);
        let failure = match json_logging::parse(&text) {
            Some(record) => self.json_failure(at, line, &record),
            None => self.klog_failure(at, line, &text),
        };
        found.extend(failure);
    }

    fn klog_failure(&mut self, at: Option<Nanos>, line: Option<u64>, text: &str) -> Option<ProbeFailure> {
        let record = klog::parse(text).filter(|record| record.file == PROBER)?;
        let message = structured::parse(record.message).or_else(|| classic::parse(record.message))?;
        let local = at.is_none();
        let at = at.map(|at| time::sharpened(at, record.stamp)).or_else(|| self.clock.absolute(record.stamp));
        self.counts.assumed_utc += u64::from(local && at.is_some() && self.clock.zone_is_assumed());
        let range = message.range.clone();
        let failure = self.failure(at, line, message)?;
        let start = text.len() - record.message.len();
        let text = match range {
            Some(range) if failure.class == FailureClass::Exec => {
                let before = text.get(..start + range.start).unwrap_or(text);
                Cow::Owned(format!("{before}…{}", text.get(start + range.end..).unwrap_or_default()))
            }
            _ => Cow::Borrowed(text),
        };
        Some(ProbeFailure { text: secrets::shown(&text, MAX_TEXT), ..failure })
    }

    fn json_failure(
        &mut self,
        at: Option<Nanos>,
        line: Option<u64>,
        record: &json_logging::Record,
    ) -> Option<ProbeFailure> {
        if record.file() != PROBER {
            return None;
        }
        let failure = self.failure(record.at().or(at), line, record.message()?)?;
        let text = record.shown(failure.class != FailureClass::Exec);
        Some(ProbeFailure { text: secrets::shown(&text, MAX_TEXT), ..failure })
    }

    fn failure(
        &mut self,
        at: Option<Nanos>,
        line: Option<u64>,
        message: Message<'_>,
    ) -> Option<ProbeFailure> {
        let Message { errored, kind, namespace, name, uid, container, words, range: _ } = message;
        let said = match (&words, errored) {
            (Words::Missing, _) => output::cut(),
            (Words::Text(text), false) => output::failed(text),
            (Words::Text(text), true) => output::errored(text),
        };
        if name.is_none() && uid.is_none() && said.target.is_none() && kind.is_none() {
            self.counts.unreadable += 1;
            return None;
        }
        self.counts.without_time += u64::from(at.is_none());
        Some(ProbeFailure {
            at,
            kind,
            namespace,
            name,
            uid,
            container,
            target: said.target,
            source: said.source,
            class: said.class,
            timeout_ns: said.timeout_ns,
            text: String::new(),
            file: Arc::clone(&self.file),
            line,
        })
    }
}

/// How a line goes on with the block before it.
enum Continuation<'a> {
    /// Without the indentation.
    More(&'a [u8]),
    /// ` >`, perhaps with more fields after it.
    End,
}

/// klog indents by a tab, which journalctl prints as eight blanks.
fn continuation(text: &[u8]) -> Option<Continuation<'_>> {
    if let Some(more) = text.strip_prefix(b"\t").or_else(|| text.strip_prefix(b"        ")) {
        return Some(Continuation::More(more));
    }
    text.starts_with(b" >").then_some(Continuation::End)
}

/// Names of Kubernetes objects, which this must look like to be taken for one: half a name is another name.
pub(super) fn label(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let good = !text.is_empty() && text.len() <= 253 && text.bytes().all(fits);
    good.then(|| text.to_owned())
}

/// `namespace/name`
pub(super) fn pod(text: &str) -> Option<(String, String)> {
    let (namespace, name) = text.split_once('/')?;
    Some((label(namespace)?, label(name)?))
}

/// A uid, or the hash of a static pod's manifest.
pub(super) fn uid(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (text.len() >= 8 && text.len() <= 64 && text.bytes().all(fits)).then(|| text.to_owned())
}

/// Name of a container.
pub(super) fn container(text: &str) -> Option<String> {
    label(text).filter(|name| name.len() <= 63)
}

/// `Readiness`; `readiness` in 1.0.
pub(super) fn probe_type(text: &str) -> Option<ProbeType> {
    [("liveness", ProbeType::Liveness), ("readiness", ProbeType::Readiness), ("startup", ProbeType::Startup)]
        .into_iter()
        .find_map(|(name, kind)| name.eq_ignore_ascii_case(text).then_some(kind))
}
