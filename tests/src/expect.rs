//! Compares whole JSON objects with what a scenario expects.
//!
//! What differs from run to run is written as a matcher: `"<time>"` (RFC 3339, UTC, nanoseconds, not in the future),
//! `"<text>"` (not empty), `"<number>"`, `"<isn>"` (the incident's own initial sequence number), `"<isn+1>"`,
//! `{"<between>": [low, high]}` (whole numbers, unless an end is none), `{"<one of>": [...]}` and `{"<each>": item, "<between>": [low, high], "<some>": [...]}`
//! (an array of that many such items, with at least one like each of the last list). In longer texts `<isn>` and
//! `<isn+1>` stand for those numbers. Everything else is compared as it stands, and a key too many or too few is a difference.

use serde_json::Value;

/// The differences between an incident and what is expected, one line each; none = it is as expected.
pub fn differences(expected: &Value, actual: &Value) -> Vec<String> {
    let isn =
        actual.pointer("/connection/isn").and_then(Value::as_u64).and_then(|isn| u32::try_from(isn).ok());
    let mut comparison = Comparison { isn, found: Vec::new() };
    comparison.compare("", expected, actual);
    comparison.found
}

struct Comparison {
    isn: Option<u32>,
    found: Vec<String>,
}

impl Comparison {
    fn compare(&mut self, path: &str, expected: &Value, actual: &Value) {
        if let Some(matches) = self.matcher(path, expected, actual) {
            if !matches {
                self.differs(path, expected, actual);
            }
            return;
        }
        match (expected, actual) {
            (Value::Object(expected), Value::Object(actual)) => {
                for (key, expected) in expected {
                    let path = format!("{path}.{key}");
                    match actual.get(key) {
                        Some(actual) => self.compare(&path, expected, actual),
                        None => self.found.push(format!("{path}: expected {expected}, is missing")),
                    }
                }
                for (key, actual) in actual.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                    self.found.push(format!("{path}.{key}: not expected, is {actual}"));
                }
            }
            (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
                for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                    self.compare(&format!("{path}[{index}]"), expected, actual);
                }
            }
            _ if expected == actual => {}
            _ => self.differs(path, expected, actual),
        }
    }

    fn differs(&mut self, path: &str, expected: &Value, actual: &Value) {
        self.found.push(format!("{path}: expected {expected}, is {actual}"));
    }

    fn would_match(&self, expected: &Value, actual: &Value) -> bool {
        let mut attempt = Comparison { isn: self.isn, found: Vec::new() };
        attempt.compare("", expected, actual);
        attempt.found.is_empty()
    }

    /// A text with the incident's own sequence number.
    fn filled_in(&self, text: &str) -> String {
        let Some(isn) = self.isn else { return text.to_owned() };
        text.replace("<isn+1>", &isn.wrapping_add(1).to_string()).replace("<isn>", &isn.to_string())
    }

    /// `None` if the expected value is no matcher.
    fn matcher(&mut self, path: &str, expected: &Value, actual: &Value) -> Option<bool> {
        match expected {
            Value::String(matcher) => match matcher.as_str() {
                "<time>" => Some(is_time(actual)),
                "<text>" => Some(actual.as_str().is_some_and(|text| !text.is_empty())),
                "<number>" => Some(actual.is_u64()),
                "<isn>" => Some(self.isn.is_some() && actual.as_u64() == self.isn.map(u64::from)),
                "<isn+1>" => {
                    let next = self.isn.map(|isn| u64::from(isn.wrapping_add(1)));
                    Some(next.is_some() && actual.as_u64() == next)
                }
                text if text.contains("<isn") => {
                    Some(actual.as_str().is_some_and(|actual| self.filled_in(text) == actual))
                }
                _ => None,
            },
            Value::Object(object) => {
                let bounds = object.get("<between>").and_then(Value::as_array);
                if let Some([low, high]) = bounds.map(Vec::as_slice)
                    && (low.is_f64() || high.is_f64())
                {
                    let bounds = low.as_f64()?..=high.as_f64()?;
                    return Some(actual.as_f64().is_some_and(|number| bounds.contains(&number)));
                }
                let bounds = bounds.and_then(|bounds| match bounds.as_slice() {
                    [low, high] => Some(low.as_u64()?..=high.as_u64()?),
                    _ => None,
                });
                if let Some(item) = object.get("<each>") {
                    let items = actual.as_array()?;
                    for (index, actual) in items.iter().enumerate() {
                        self.compare(&format!("{path}[{index}]"), item, actual);
                    }
                    let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
                    for wanted in object.get("<some>").and_then(Value::as_array).into_iter().flatten() {
                        if !items.iter().any(|item| self.would_match(wanted, item)) {
                            self.found.push(format!("{path}: expected some {wanted}"));
                        }
                    }
                    return Some(bounds.is_none_or(|bounds| bounds.contains(&count)));
                }
                if let Some(values) = object.get("<one of>").and_then(Value::as_array) {
                    return Some(values.iter().any(|value| self.would_match(value, actual)));
                }
                bounds.map(|bounds| actual.as_u64().is_some_and(|number| bounds.contains(&number)))
            }
            _ => None,
        }
    }
}

/// RFC 3339 in UTC with nanoseconds, within the last hour.
fn is_time(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    let nanoseconds =
        text.strip_suffix('Z').and_then(|text| text.rsplit_once('.')).map(|(_, digits)| digits.len());
    let Ok(time) = text.parse::<jiff::Timestamp>() else { return false };
    let now = jiff::Timestamp::now();
    let age = now.duration_since(time);
    nanoseconds == Some(9) && !age.is_negative() && age.as_secs() < 3600
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_values_do_not_differ() {
        let value = json!({"a": [1, null, {"b": "c"}]});
        assert_eq!(differences(&value, &value), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_named_with_its_path() {
        let expected = json!({"same": 1, "value": "x", "gone": null, "list": [{"n": 1}, {"n": 2}]});
        let actual = json!({"same": 1, "value": "y", "more": true, "list": [{"n": 1}, {"n": 3}]});
        let mut found = differences(&expected, &actual);
        found.sort();
        let lines = [
            ".gone: expected null, is missing",
            ".list[1].n: expected 2, is 3",
            ".more: not expected, is true",
            ".value: expected \"x\", is \"y\"",
        ];
        assert_eq!(found, lines);
    }

    #[test]
    fn a_sequence_number_must_follow_the_incidents_own() {
        let expected = json!({"connection": {"isn": "<isn>"}, "resets": [{"seq": "<isn+1>"}]});
        let actual = |isn: u32, seq: u32| json!({"connection": {"isn": isn}, "resets": [{"seq": seq}]});
        assert!(differences(&expected, &actual(7, 8)).is_empty());
        assert!(differences(&expected, &actual(u32::MAX, 0)).is_empty());
        assert_eq!(differences(&expected, &actual(7, 9)).len(), 1);
        assert_eq!(
            differences(&expected, &json!({"connection": {"isn": null}, "resets": [{"seq": null}]})).len(),
            2
        );
    }

    #[test]
    fn arrays_of_a_varying_length_are_bounded_and_checked_item_by_item() {
        let expected = json!({"<each>": {"n": "<number>"}, "<between>": [1, 2]});
        assert!(differences(&expected, &json!([{"n": 1}])).is_empty());
        assert_eq!(differences(&expected, &json!([])).len(), 1);
        assert_eq!(differences(&expected, &json!([{"n": 1}, {"n": 2}, {"n": 3}])).len(), 1);
        assert_eq!(differences(&expected, &json!([{"n": "x"}])), ["[0].n: expected \"<number>\", is \"x\""]);
        assert_eq!(differences(&expected, &json!("no array")).len(), 1);
    }

    #[test]
    fn some_items_have_to_be_there() {
        let expected = json!({"<each>": "<text>", "<some>": ["a", "b"]});
        assert!(differences(&expected, &json!(["b", "x", "a"])).is_empty());
        assert_eq!(differences(&expected, &json!(["x", "a"])), [": expected some \"b\""]);
    }

    #[test]
    fn texts_may_hold_the_sequence_number() {
        let expected = json!({"connection": {"isn": "<isn>"}, "text": "seq <isn+1> after <isn>"});
        let actual = |text: &str| json!({"connection": {"isn": 7}, "text": text});
        assert!(differences(&expected, &actual("seq 8 after 7")).is_empty());
        assert_eq!(differences(&expected, &actual("seq 8 after 8")).len(), 1);
    }

    #[test]
    fn times_have_nanoseconds_and_are_neither_old_nor_in_the_future() {
        let now = jiff::Timestamp::now();
        let text = |time: jiff::Timestamp| json!(format!("{time:.9}"));
        assert!(is_time(&text(now)));
        assert!(!is_time(&text(now + jiff::SignedDuration::from_secs(60))));
        assert!(!is_time(&json!("2020-01-01T00:00:00.000000000Z")));
        assert!(!is_time(&json!("2020-01-01T00:00:00Z")));
        assert!(!is_time(&json!(null)));
    }

    #[test]
    fn alternatives_and_bounds() {
        let expected = json!({"<one of>": [null, "TCP_FLAGS"]});
        assert!(differences(&expected, &json!(null)).is_empty());
        assert_eq!(differences(&expected, &json!("x")).len(), 1);
        assert!(differences(&json!({"<between>": [1, 3]}), &json!(3)).is_empty());
        assert_eq!(differences(&json!({"<between>": [1, 3]}), &json!(4)).len(), 1);
        assert_eq!(differences(&json!({"<between>": [1, 3]}), &json!(2.5)).len(), 1);
        assert!(differences(&json!({"<between>": [1.0, 3.5]}), &json!(2.5)).is_empty());
        assert_eq!(differences(&json!({"<between>": [1.0, 3.5]}), &json!(4)).len(), 1);
        assert_eq!(differences(&json!({"<between>": [1.0, 3.5]}), &json!(null)).len(), 1);
    }
}
