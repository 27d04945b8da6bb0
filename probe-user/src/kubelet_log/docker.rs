//! docker's json-file: `{"log":"text\n","stream":"stderr","time":"2022-12-01T01:10:55.515174992Z"}`.

use std::borrow::Cow;

use serde::Deserialize;

use super::time;
use super::wrapping::{Layer, Stream, Wrapping};

/// docker cuts lines at this many bytes; only such a part lacks the line's end because more of it follows.
pub(super) const PART: usize = 16 * 1024;

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    time: Option<Cow<'a, str>>,
}

/// Takes the JSON off. `None` if it is none of docker's.
pub(super) fn unwrap(line: &[u8]) -> Option<Layer<'_>> {
    let Entry { log, stream, time } = serde_json::from_slice(line).ok()?;
    let whole = log.ends_with('\n');
    let goes_on = !whole && log.len() >= PART;
    let text = match log {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches(['\r', '\n']).as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.trim_end_matches(['\r', '\n']).as_bytes().to_vec()),
    };
    let stream = if stream.as_deref() == Some("stdout") { Stream::Out } else { Stream::Err };
    let at = time.and_then(|time| time::rfc3339(&time));
    Some(Layer { wrapping: Wrapping::DockerJson, at, text, goes_on, stream })
}
