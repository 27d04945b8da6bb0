//! CRI's log format: `2019-03-08T11:31:46.679082406Z stderr F text`; `P` marks a part, more of the line follows.

use super::time;
use super::wrapping::{Layer, Stream, Wrapping};

/// Takes the prefix off. `None` if there is none.
pub(super) fn unwrap(line: &[u8]) -> Option<Layer<'_>> {
    let Entry { stamp, stream, tags, text } = split(line)?;
    let at = time::rfc3339(std::str::from_utf8(stamp).ok()?)?;
    let goes_on = goes_on(tags);
    Some(Layer { wrapping: Wrapping::Cri, at: Some(at), text: text.into(), goes_on, stream })
}

/// Whether the line is a part that more follows; cheap, for lines that nobody else looks at.
pub(super) fn is_part(line: &[u8]) -> bool {
    line.first().is_some_and(u8::is_ascii_digit) && split(line).is_some_and(|entry| goes_on(entry.tags))
}

fn goes_on(tags: &[u8]) -> bool {
    tags.split(|byte| *byte == b':').next() == Some(b"P")
}

struct Entry<'a> {
    stamp: &'a [u8],
    stream: Stream,
    tags: &'a [u8],
    text: &'a [u8],
}

fn split(line: &[u8]) -> Option<Entry<'_>> {
    let (stamp, rest) = word(line)?;
    let (stream, rest) = word(rest)?;
    let stream = match stream {
        b"stdout" => Stream::Out,
        b"stderr" => Stream::Err,
        _ => return None,
    };
    let (tags, text) = word(rest)?;
    Some(Entry { stamp, stream, tags, text })
}

/// Up to the next blank, which is close.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b' ', text.get(..64.min(text.len()))?)?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}
