//! What a log line is wrapped in, and taking it off.

use std::borrow::Cow;

use super::{cri, docker, journal_json, klog, syslog};
use crate::observation::Nanos;

/// Wrappings within wrappings: a shipper's JSON around a runtime's prefix, and not more.
const MAX_LAYERS: usize = 3;

/// What the lines of a log are wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrapping {
    /// Nothing: klog writes the file.
    Plain,
    /// `journalctl -o json`.
    JournalJson,
    /// The prefix of journalctl's default output and of syslog daemons.
    Syslog,
    /// docker's json-file.
    DockerJson,
    /// The format of containerd and CRI-O.
    Cri,
}

/// Which of a container's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// A line without one layer.
#[derive(Clone, Debug)]
pub(super) struct Layer<'a> {
    pub(super) wrapping: Wrapping,
    pub(super) at: Option<Nanos>,
    pub(super) text: Cow<'a, [u8]>,
    /// A part of a line, the rest follows in another entry of this stream.
    pub(super) goes_on: bool,
    pub(super) stream: Stream,
}

/// Takes off all layers. The innermost time is the nearest to the event, so it counts.
pub(super) fn unwrap(line: &[u8]) -> Layer<'_> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut whole = Layer {
        wrapping: Wrapping::Plain,
        at: None,
        text: Cow::Borrowed(line),
        goes_on: false,
        stream: Stream::Err,
    };
    for _ in 0..MAX_LAYERS {
        let inner = match &whole.text {
            Cow::Borrowed(text) => layer(text),
            Cow::Owned(text) => layer(text).map(owned),
        };
        let Some(inner) = inner else { break };
        let outermost = if whole.wrapping == Wrapping::Plain { inner.wrapping } else { whole.wrapping };
        whole = Layer {
            wrapping: outermost,
            at: inner.at.or(whole.at),
            goes_on: inner.goes_on || whole.goes_on,
            ..inner
        };
    }
    whole
}

fn owned(layer: Layer<'_>) -> Layer<'static> {
    Layer { text: Cow::Owned(layer.text.into_owned()), ..layer }
}

/// One layer, if there is one.
fn layer(line: &[u8]) -> Option<Layer<'_>> {
    match line.first()? {
        b'{' => docker::unwrap(line).or_else(|| journal_json::unwrap(line)),
        b'0'..=b'9' => cri::unwrap(line).or_else(|| syslog::unwrap(line)),
        b'<' | b'A'..=b'Z' if std::str::from_utf8(line).ok().and_then(klog::parse).is_none() => {
            syslog::unwrap(line)
        }
        _ => None,
    }
}

/// Whether a line must be looked at although the words that are searched for are not in it: they can be cut in two,
/// or be written as numbers.
pub(super) fn hides_text(line: &[u8]) -> bool {
    match line.first() {
        Some(b'{') => line.len() >= docker::PART || journal_json::is_opaque(line),
        Some(b'0'..=b'9') => cri::is_part(line),
        _ => false,
    }
}
