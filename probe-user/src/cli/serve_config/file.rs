//! The TOML file: `record-size = "1G"` for `--record-size 1G`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::known::Options;
use super::{ConfigError, Given, Place};

/// Many times the largest file that makes sense; a device that never ends must not fill the memory.
const MAX_FILE: u64 = 1 << 20;

/// Reads the file. `by`: who names it.
pub(super) fn load(path: &Path, by: Option<Place>) -> Result<String, ConfigError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(|source| ConfigError::Read { path: path.to_owned(), by, source })?;
    Ok(text)
}

/// Takes the options out of its text.
pub(super) fn parse(path: &Path, text: &str, options: &Options) -> Result<Vec<Given>, ConfigError> {
    let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| ConfigError::Toml {
        path: path.to_owned(),
        line: line(error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    })?;
    let mut all: Vec<Given> = Vec::new();
    for (name, value) in table.get_ref() {
        let place = Place::File(path.to_owned(), line(name.span().start));
        let key = name.get_ref().replace('_', "-");
        if options.get(&key).is_none() {
            let nearest = options.nearest(&key).map(str::to_owned);
            let (place, name) = (place.to_string(), name.get_ref().to_string());
            return Err(ConfigError::Unknown { place, what: "key", name, nearest });
        }
        let wrong = |problem| ConfigError::Value { place: place.to_string(), problem };
        if let Some(other) = all.iter().find(|other| other.key == key) {
            return Err(wrong(format!("{key} is given twice, also at {}", other.place)));
        }
        let values = values(value).ok_or_else(|| wrong(form(&key, value.get_ref())))?;
        all.push(Given { key, values, place });
    }
    Ok(all)
}

/// The words of a value: one, or those of a list.
fn values(value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
    match value.get_ref() {
        DeValue::Array(list) => list.iter().map(|item| word(item.get_ref())).collect(),
        other => word(other).map(|word| vec![word]),
    }
}

fn word(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Integer(number) => {
            let read = i64::from_str_radix(number.as_str(), number.radix());
            read.ok().map(|number| number.to_string())
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn form(key: &str, value: &DeValue<'_>) -> String {
    format!(
        "{key} is of type {}; write a string, a whole number, true or false, or a list of these",
        value.type_str()
    )
}
