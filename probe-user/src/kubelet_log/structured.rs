//! `"Probe failed" probeType="Readiness" pod="ns/name" podUID=… containerName="…" probeResult=failure output="…"`, and
//! `"Probe errored" err="…" …`: structured logging, 1.19 and later.

use super::fields::{Field, fields};
use super::parser::{Message, Words, container, pod, probe_type, uid};

/// `None` if the message is another one.
pub(super) fn parse(message: &str) -> Option<Message<'_>> {
    let (errored, rest) = match message.strip_prefix("\"Probe failed\"") {
        Some(rest) => (false, rest),
        None => (true, message.strip_prefix("\"Probe errored\"")?),
    };
    let skipped = message.len() - rest.len();
    let fields = fields(rest);
    let first = |key: &str| fields.iter().find(|field| field.key == key);
    // Half a name is the name of something else.
    let whole = |key: &str| first(key).filter(|field| field.whole).map(|field| field.value.as_str());
    let (namespace, name) = whole("pod").and_then(pod).unzip();
    let said = first(if errored { "err" } else { "output" });
    let range = said.map(|Field { range, .. }| skipped + range.start..skipped + range.end);
    Some(Message {
        errored,
        kind: whole("probeType").and_then(probe_type),
        namespace,
        name,
        uid: whole("podUID").and_then(uid),
        container: whole("containerName").and_then(container),
        words: match said {
            Some(field) if field.whole || !field.value.is_empty() => Words::Text(field.value.clone().into()),
            _ => Words::Missing,
        },
        range,
    })
}
