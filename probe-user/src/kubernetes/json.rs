//! Objects in JSON: a list, one object, or several one after the other; one item at a time, so that memory is
//! bounded by the result.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::collect::{Collector, Place, items_of};
use super::objects::{Head, Object};

/// Reads all objects of `text` into `collector`.
pub(super) fn read<T: Object>(text: &str, collector: &mut Collector<T>) {
    let mut lines = Lines::new(text);
    let mut start = 0;
    while let Some(rest) = text.get(start..) {
        let blank = rest.len() - rest.trim_ascii_start().len();
        start += blank;
        let Some(rest) = rest.get(blank..).filter(|rest| !rest.is_empty()) else { return };
        let mut deserializer = serde_json::Deserializer::from_str(rest);
        let lists = collector.lists;
        let seed = Document { collector: &mut *collector, lines: &mut lines };
        match seed.deserialize(&mut deserializer) {
            Ok(()) => {
                let length = deserializer.into_iter::<IgnoredAny>().byte_offset().max(1);
                if collector.lists == lists {
                    let place = Place { line: lines.at(start), index: None };
                    if take(collector, place, None, rest.get(..length).unwrap_or(rest)).is_err() {
                        return;
                    }
                }
                start += length;
            }
            Err(_) if collector.cut_short.is_some() => return,
            Err(error) => {
                let first_line = lines.at(start);
                let line = first_line + error.line().saturating_sub(1);
                let next = rest.find("\n{").map(|at| start + at + 1);
                let in_list = collector.lists > lists;
                match next {
                    // One of several objects: the next begins at the start of a line.
                    Some(next) if !in_list => {
                        collector.seen += 1;
                        let shown = rest.lines().next().unwrap_or_default();
                        collector.log.push(first_line, shown.as_bytes(), why(&error));
                        start = next;
                    }
                    _ => {
                        let reason = why(&error);
                        let objects = collector.seen;
                        collector.cut_short = Some(format!("line {line}: {reason}, after {objects} objects"));
                        return;
                    }
                }
            }
        }
    }
}

fn why(error: &serde_json::Error) -> String {
    if error.is_eof() { "the JSON ends in the middle".to_owned() } else { reason(error) }
}

/// serde's message without its position, which is relative to the item.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

fn take<T: Object>(
    collector: &mut Collector<T>,
    place: Place,
    list_kind: Option<&str>,
    item: &str,
) -> Result<(), super::collect::Full> {
    let raw = serde_json::from_str::<T::Raw>(item).map_err(|error| reason(&error));
    collector.take(place, list_kind, raw, || serde_json::from_str(item).unwrap_or_default())
}

/// Line numbers of growing offsets, without counting from the start each time.
struct Lines<'t> {
    text: &'t str,
    offset: usize,
    line: usize,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, offset: 0, line: 1 }
    }

    fn at(&mut self, offset: usize) -> usize {
        if let Some(between) = self.text.as_bytes().get(self.offset..offset) {
            self.line += between.split(|byte| *byte == b'\n').count().saturating_sub(1);
            self.offset = offset;
        }
        self.line
    }

    /// The line of `part`, a piece of the same text.
    fn of(&mut self, part: &str) -> usize {
        self.at((part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize))
    }
}

struct Document<'c, 't, T> {
    collector: &'c mut Collector<T>,
    lines: &'c mut Lines<'t>,
}

impl<'de, T: Object> DeserializeSeed<'de> for Document<'_, '_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Object> Visitor<'de> for Document<'_, '_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut kind: Option<String> = None;
        let mut lists = 0;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "kind" => kind = map.next_value()?,
                "items" => {
                    lists += 1;
                    let list_kind = kind.as_deref().and_then(items_of);
                    map.next_value_seed(Items {
                        collector: &mut *self.collector,
                        lines: &mut *self.lines,
                        list_kind,
                    })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if lists > 0 {
            self.collector.end_list(kind.as_deref().and_then(items_of));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Items { collector: self.collector, lines: self.lines, list_kind: None }.visit_seq(seq)
    }
}

struct Items<'c, 't, 'k, T> {
    collector: &'c mut Collector<T>,
    lines: &'c mut Lines<'t>,
    list_kind: Option<&'k str>,
}

impl<'de, T: Object> DeserializeSeed<'de> for Items<'_, '_, '_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Object> Visitor<'de> for Items<'_, '_, '_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    /// Go writes an empty list as null.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.collector.begin_list();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.collector.begin_list();
        let mut index = 0;
        while let Some(item) = seq.next_element::<&RawValue>()? {
            let place = Place { line: self.lines.of(item.get()), index: Some(index) };
            take(self.collector, place, self.list_kind, item.get())
                .map_err(|_| Error::custom("too many objects"))?;
            index += 1;
        }
        Ok(())
    }
}

/// Kind and shape of the first object, without reading further than that where the input allows.
#[derive(Default)]
pub(super) struct First {
    pub(super) kind: Option<String>,
    pub(super) item: Option<Shape>,
}

/// As much of an object as tells what it is.
#[derive(Deserialize)]
pub(super) struct Shape {
    pub(super) kind: Option<String>,
    pub(super) spec: Option<SpecShape>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpecShape {
    pub(super) containers: Option<IgnoredAny>,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Option<IgnoredAny>,
    pub(super) ports: Option<IgnoredAny>,
}

/// Looks at the beginning of `text`.
pub(super) fn first(text: &str) -> First {
    let mut found = First::default();
    // The error only says that nothing more needs to be read.
    let _ = Peek(&mut found).deserialize(&mut serde_json::Deserializer::from_str(text));
    found
}

struct Peek<'f>(&'f mut First);

impl<'de> DeserializeSeed<'de> for Peek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Peek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "kind" => {
                    let kind: String = map.next_value()?;
                    let enough = kind != "List";
                    self.0.kind = Some(kind);
                    if enough {
                        return Err(Error::custom("known"));
                    }
                }
                "items" => map.next_value_seed(Peek(&mut *self.0))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        match seq.next_element::<Shape>()? {
            Some(item) => {
                self.0.item = Some(item);
                Err(Error::custom("known"))
            }
            None => Ok(()),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Kind and name of a value that was built from YAML.
pub(super) fn head_of(value: &serde_json::Value) -> Head {
    Head::deserialize(value).unwrap_or_default()
}
