//! Objects in YAML: a list, one object, or several documents; one object at a time, without any field that is not
//! known here (environment and header values among them).

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::collect::{Collector, Full, Place, items_of};
use super::json::{First, Shape, head_of, reason};
use super::objects::{KNOWN_FIELDS, Object};

/// Deepest nesting of an object.
const MAX_DEPTH: usize = 40;

/// Why reading ends.
enum Stop {
    /// No YAML from here on.
    Syntax(ScanError),
    /// The input ends within an object.
    End,
    /// [`Collector`] takes no more.
    Full,
    /// The first object was all that was asked for.
    Enough,
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        Self::Syntax(error)
    }
}

impl From<Full> for Stop {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

/// Takes objects as they come.
trait Sink {
    fn begin_list(&mut self);
    /// `problem`: why `value` cannot be relied on.
    fn take(
        &mut self,
        place: Place,
        kind: Option<&str>,
        value: &Value,
        problem: Option<String>,
    ) -> Result<(), Stop>;
    fn end_list(&mut self, kind: Option<&str>, last: Place);
    fn no_object(&mut self, line: usize);
}

/// Reads all objects of `text` into `collector`.
pub(super) fn read<T: Object>(text: &str, collector: &mut Collector<T>) {
    let mut sink = Collecting { collector, before_last: 0 };
    let stop = Reader::new(text).documents(&mut sink);
    let seen = collector.seen;
    match stop {
        Ok(()) if !text.ends_with('\n') => {
            collector.notes.push("the last line has no end: the file may be cut off there".to_owned());
        }
        Err(Stop::Syntax(error)) => {
            let (line, info) = (error.marker().line(), error.info());
            collector.cut_short =
                Some(format!("line {line}: no YAML from here on ({info}), after {seen} objects"));
        }
        Err(Stop::End) => {
            collector.cut_short = Some(format!("the YAML ends in the middle, after {seen} objects"));
        }
        Ok(()) | Err(Stop::Full | Stop::Enough) => {}
    }
}

/// Looks at the first object of `text`.
pub(super) fn first(text: &str) -> First {
    let mut first = First::default();
    let _ = Reader::new(text).documents(&mut first);
    first
}

struct Collecting<'c, T> {
    collector: &'c mut Collector<T>,
    before_last: usize,
}

impl<T: Object> Sink for Collecting<'_, T> {
    fn begin_list(&mut self) {
        self.collector.begin_list();
        self.before_last = self.collector.items.len();
    }

    fn take(
        &mut self,
        place: Place,
        kind: Option<&str>,
        value: &Value,
        problem: Option<String>,
    ) -> Result<(), Stop> {
        self.before_last = self.collector.items.len();
        let raw = match problem {
            Some(problem) => Err(problem),
            None => T::Raw::deserialize(value).map_err(|error| reason(&error)),
        };
        Ok(self.collector.take(place, kind, raw, || head_of(value))?)
    }

    fn end_list(&mut self, kind: Option<&str>, last: Place) {
        if kind.is_none() {
            // kubectl sorts the fields: `kind` comes after `items`. A cut list is still YAML.
            let reason = "the list ends without its own kind: it was cut, probably within this object";
            self.collector.reject_last(last, self.before_last, reason);
            let seen = self.collector.seen;
            self.collector.cut_short = Some(format!("the list was cut off after {seen} objects"));
        }
        self.collector.end_list(kind.and_then(items_of));
    }

    fn no_object(&mut self, line: usize) {
        self.collector.seen += 1;
        self.collector.log.push(line, b"", "this document is no object");
    }
}

impl Sink for First {
    fn begin_list(&mut self) {}

    fn take(&mut self, _: Place, kind: Option<&str>, value: &Value, _: Option<String>) -> Result<(), Stop> {
        self.kind = kind.map(str::to_owned);
        self.item = Shape::deserialize(value).ok();
        Err(Stop::Enough)
    }

    fn end_list(&mut self, kind: Option<&str>, _: Place) {
        self.kind = kind.map(str::to_owned);
    }

    fn no_object(&mut self, _: usize) {}
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// What the object that is being read has that is not followed here.
    problem: Option<String>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        Self { parser: Parser::new_from_str(text), problem: None }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        Ok(self.parser.next_event().ok_or(Stop::End)??)
    }

    fn documents(&mut self, sink: &mut impl Sink) -> Result<(), Stop> {
        loop {
            let (event, span) = self.next()?;
            let line = span.start.line();
            match event {
                Event::StreamEnd => return Ok(()),
                Event::MappingStart(..) => self.root(line, sink)?,
                Event::SequenceStart(..) => {
                    sink.begin_list();
                    let last = self.items(None, sink)?;
                    sink.end_list(Some("List"), last);
                }
                Event::Scalar(text, style, ..) if style != ScalarStyle::Plain || !text.is_empty() => {
                    sink.no_object(line);
                }
                _ => {}
            }
        }
    }

    /// The mapping of a document: an object, or a list of them.
    fn root(&mut self, line: usize, sink: &mut impl Sink) -> Result<(), Stop> {
        self.problem = None;
        let mut object = Map::new();
        let mut last = None;
        loop {
            let (event, span) = self.next()?;
            let Some(key) = self.key(event)? else { break };
            if key != "items" {
                self.field(key, &mut object, 1)?;
                continue;
            }
            let (event, _) = self.next()?;
            match event {
                Event::SequenceStart(..) => {
                    sink.begin_list();
                    let kind = object.get("kind").and_then(Value::as_str).map(str::to_owned);
                    last = Some(self.items(kind.as_deref().and_then(items_of), sink)?);
                }
                // `items: null`
                other => {
                    sink.begin_list();
                    last = Some(Place { line: span.start.line(), index: None });
                    self.skip(&other)?;
                }
            }
        }
        let Some(last) = last else {
            let problem = self.problem.take();
            return sink.take(Place { line, index: None }, None, &Value::Object(object), problem);
        };
        sink.end_list(object.get("kind").and_then(Value::as_str), last);
        Ok(())
    }

    fn items(&mut self, kind: Option<&str>, sink: &mut impl Sink) -> Result<Place, Stop> {
        let mut place = Place { line: 0, index: None };
        for index in 0.. {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                break;
            }
            place = Place { line: span.start.line(), index: Some(index) };
            self.problem = None;
            let value = self.node(event, 1)?;
            let problem = self.problem.take();
            sink.take(place, kind, &value, problem)?;
        }
        Ok(place)
    }

    /// The key that `event` is, or `None` at the end of the mapping. A key that is no scalar is skipped.
    fn key(&mut self, event: Event<'t>) -> Result<Option<String>, Stop> {
        match event {
            Event::MappingEnd => Ok(None),
            Event::Scalar(text, ..) => Ok(Some(text.into_owned())),
            other => {
                self.skip(&other)?;
                Ok(Some(String::new()))
            }
        }
    }

    /// The value of `key`, kept if it is a known field.
    fn field(&mut self, key: String, object: &mut Map<String, Value>, depth: usize) -> Result<(), Stop> {
        let (event, _) = self.next()?;
        if key == "<<" {
            self.problem.get_or_insert_with(|| "it uses YAML merge keys, which are not followed".to_owned());
        }
        if KNOWN_FIELDS.contains(&key.as_str()) {
            let value = self.node(event, depth)?;
            object.insert(key, value);
            Ok(())
        } else {
            self.skip(&event)
        }
    }

    fn node(&mut self, event: Event<'t>, depth: usize) -> Result<Value, Stop> {
        if depth > MAX_DEPTH {
            self.problem.get_or_insert_with(|| format!("it is nested deeper than {MAX_DEPTH} levels"));
            self.skip(&event)?;
            return Ok(Value::Null);
        }
        match event {
            Event::Scalar(text, ScalarStyle::Plain, _, None) => Ok(plain(&text)),
            Event::Scalar(text, ..) => Ok(Value::String(text.into_owned())),
            Event::SequenceStart(..) => {
                let mut list = Vec::new();
                loop {
                    let (event, _) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        return Ok(Value::Array(list));
                    }
                    let item = self.node(event, depth + 1)?;
                    list.push(item);
                }
            }
            Event::MappingStart(..) => {
                let mut object = Map::new();
                loop {
                    let (event, _) = self.next()?;
                    let Some(key) = self.key(event)? else { return Ok(Value::Object(object)) };
                    self.field(key, &mut object, depth + 1)?;
                }
            }
            Event::Alias(_) => {
                self.problem.get_or_insert_with(|| "it uses a YAML alias, which is not followed".to_owned());
                Ok(Value::Null)
            }
            _ => Ok(Value::Null),
        }
    }

    /// Reads over the node that `event` begins.
    fn skip(&mut self, event: &Event<'t>) -> Result<(), Stop> {
        let opens = |event: &Event<'_>| matches!(event, Event::SequenceStart(..) | Event::MappingStart(..));
        let mut depth = usize::from(opens(event));
        while depth > 0 {
            let (event, _) = self.next()?;
            match event {
                Event::SequenceEnd | Event::MappingEnd => depth -= 1,
                Event::StreamEnd => return Err(Stop::End),
                ref event => depth += usize::from(opens(event)),
            }
        }
        Ok(())
    }
}

/// A plain scalar by the core schema, as far as the known fields need it: no field here is a fraction.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => text.parse::<i64>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
    }
}
