//! `journalctl -o json`: one object per entry, values as text, or as arrays of bytes where they are not plain text.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::wrapping::{Layer, Stream, Wrapping};
use crate::observation::Nanos;

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "MESSAGE")]
    message: Value,
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    realtime: Option<Value>,
}

/// Takes the JSON off. `None` if it is no journal entry, or one whose message was left out for its length (`null`).
pub(super) fn unwrap(line: &[u8]) -> Option<Layer<'_>> {
    let Entry { message, realtime } = serde_json::from_slice(line).ok()?;
    let at = realtime.as_ref().and_then(microseconds);
    let text = Cow::Owned(message_bytes(&message)?);
    Some(Layer { wrapping: Wrapping::JournalJson, at, text, goes_on: false, stream: Stream::Err })
}

/// Whether the message is an array of bytes or left out, so that its text cannot be searched for as it is.
pub(super) fn is_opaque(line: &[u8]) -> bool {
    let key = b"\"MESSAGE\"";
    let Some(at) = memchr::memmem::find(line, key) else { return false };
    let rest = line.get(at + key.len()..).unwrap_or_default().trim_ascii_start();
    let value = rest.strip_prefix(b":").unwrap_or_default().trim_ascii_start();
    matches!(value.first(), Some(b'[' | b'n'))
}

fn microseconds(value: &Value) -> Option<Nanos> {
    let micros = value.as_i64().or_else(|| value.as_str()?.parse().ok())?;
    micros.checked_mul(1000)
}

/// A string, bytes, or several values of which the first counts.
fn message_bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Array(items) if items.iter().all(Value::is_number) => {
            items.iter().map(|item| u8::try_from(item.as_u64()?).ok()).collect()
        }
        Value::Array(items) => match items.first()? {
            Value::Array(_) | Value::String(_) => message_bytes(items.first()?),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str) -> Option<String> {
        unwrap(line.as_bytes()).map(|layer| String::from_utf8(layer.text.into_owned()).unwrap())
    }

    #[test]
    fn message_as_text_as_bytes_and_several() {
        let line = r#"{"__REALTIME_TIMESTAMP":"1663268944534948","_PID":"607529","MESSAGE":"I0915"}"#;
        assert_eq!(unwrap(line.as_bytes()).unwrap().at, Some(1_663_268_944_534_948_000));
        assert_eq!(text(line).as_deref(), Some("I0915"));
        assert_eq!(text(r#"{"MESSAGE":[73,48,57]}"#).as_deref(), Some("I09"));
        assert_eq!(text(r#"{"MESSAGE":[[73,48],"x"]}"#).as_deref(), Some("I0"));
        assert_eq!(text(r#"{"MESSAGE":["a","b"]}"#).as_deref(), Some("a"));
        for none in
            [r#"{"MESSAGE":null}"#, r#"{"MESSAGE":[999]}"#, r#"{"MESSAGE":{}}"#, r#"{"msg":"x"}"#, "{"]
        {
            assert_eq!(text(none), None, "{none}");
        }
    }

    #[test]
    fn a_message_that_cannot_be_searched() {
        assert!(is_opaque(br#"{"MESSAGE":[73,48]}"#));
        assert!(is_opaque(br#"{ "MESSAGE" : [ 73 ] }"#));
        assert!(is_opaque(br#"{"MESSAGE":null}"#));
        assert!(!is_opaque(br#"{"MESSAGE":"[73]"}"#));
        assert!(!is_opaque(br#"{"MESSAGE_ID":[73]}"#));
    }
}
