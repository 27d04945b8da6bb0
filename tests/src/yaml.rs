//! YAML as JSON values: strict, because it reads manifests that people deploy. Keys that are there twice, anchors, tags,
//! and plain words that readers of YAML 1.1 and 1.2 take for different things are errors.

use anyhow::{Context, Result, bail, ensure};
use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::{Map, Value};

/// All documents of a text.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let mut reader = Reader(Parser::new_from_str(text));
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => return Ok(documents),
            event => documents.push(reader.value(event)?),
        }
    }
}

struct Reader<'t>(Parser<'t, StrInput<'t>>);

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Event<'t>> {
        let (event, _) = self.0.next().context("the YAML ends in the middle")??;
        Ok(event)
    }

    fn value(&mut self, event: Event<'t>) -> Result<Value> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                ensure!(anchor == 0 && tag.is_none(), "{text}: anchors and tags are not used here");
                if style == ScalarStyle::Plain { plain(&text) } else { Ok(Value::String(text.into_owned())) }
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => return Ok(Value::Array(items)),
                        event => items.push(self.value(event)?),
                    }
                }
            }
            Event::MappingStart(..) => self.mapping(),
            other => bail!("{other:?} is not used here"),
        }
    }

    fn mapping(&mut self) -> Result<Value> {
        let mut fields = Map::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => return Ok(Value::Object(fields)),
                Event::Scalar(text, ..) => text.into_owned(),
                other => bail!("{other:?} is no key"),
            };
            let event = self.next()?;
            let value = self.value(event)?;
            ensure!(fields.insert(key.clone(), value).is_none(), "the key {key} is there twice");
        }
    }
}

/// A word without quotes (core schema of YAML 1.2).
fn plain(text: &str) -> Result<Value> {
    match text {
        "" | "~" | "null" => return Ok(Value::Null),
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        "yes" | "no" | "on" | "off" | "y" | "n" => bail!("{text} is a truth value in YAML 1.1: quote it"),
        _ => {}
    }
    let digits = text.trim_start_matches('-');
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        ensure!(digits == "0" || !digits.starts_with('0'), "{text} is octal in YAML 1.1 only");
        return Ok(Value::from(text.parse::<i64>().with_context(|| format!("{text} is no number"))?));
    }
    let number = text.parse::<f64>().is_ok() && text.starts_with(|first: char| first.is_ascii_digit());
    ensure!(!number, "{text} is a fraction, which no manifest needs: quote it");
    Ok(Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_numbers_and_quotes() {
        let text = "a: 1\nb: '1'\nc: [x, true, null, -7]\nd:\n  e: 10%\n---\nf: 1.2.3\n";
        let expected =
            [json!({"a": 1, "b": "1", "c": ["x", true, null, -7], "d": {"e": "10%"}}), json!({"f": "1.2.3"})];
        assert_eq!(documents(text).unwrap(), expected);
    }

    #[test]
    fn what_readers_disagree_about_is_an_error() {
        for wrong in ["a: 0400", "a: yes", "a: 1\na: 2", "a: &x 1", "a: !!str 1", "a: 1.5", "a: [1"] {
            assert!(documents(wrong).is_err(), "{wrong}");
        }
    }
}
