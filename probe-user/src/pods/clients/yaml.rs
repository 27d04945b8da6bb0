//! A small YAML document as a value: kubeconfigs are files that kubectl writes, and people edit.

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::{Map, Value};

/// Deepest nesting.
const MAX_DEPTH: usize = 32;
/// Most nodes.
const MAX_NODES: usize = 100_000;

/// Reads the first document. Every scalar but null becomes a string.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut reader = Reader { parser: Parser::new_from_str(text), nodes: 0 };
    loop {
        match reader.next()? {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            Event::StreamEnd => return Err("it is empty".into()),
            event => return reader.value(event, 0),
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Event<'t>, String> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("it has more than {MAX_NODES} entries"));
        }
        match self.parser.next() {
            Some(Ok((event, _))) => Ok(event),
            // The scanner's message may quote what it found, so only its place is told.
            Some(Err(error)) => Err(format!("line {} is no YAML", error.marker().line())),
            None => Err("it ends in the middle".into()),
        }
    }

    fn value(&mut self, event: Event<'t>, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err("it is nested too deeply".into());
        }
        match event {
            Event::Scalar(text, style, ..) => Ok(scalar(&text, style)),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => return Ok(Value::Array(items)),
                        event => items.push(self.value(event, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut fields = Map::new();
                loop {
                    let key = match self.next()? {
                        Event::MappingEnd => return Ok(Value::Object(fields)),
                        Event::Scalar(text, ..) => text.into_owned(),
                        _ => return Err("a key in it is no plain text".into()),
                    };
                    let event = self.next()?;
                    let value = self.value(event, depth + 1)?;
                    fields.insert(key, value);
                }
            }
            Event::Alias(_) => Err("it uses aliases, which are not read".into()),
            _ => Err("it ends in the middle".into()),
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match text {
        "" | "~" | "null" if style == ScalarStyle::Plain => Value::Null,
        text => Value::String(text.to_owned()),
    }
}
