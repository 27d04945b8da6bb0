//! `--print-config`: the options in force, as a file that would say the same.

use clap::CommandFactory;

use super::Configured;
use super::known::{Options, Takes};
use crate::cli::Cli;

/// The file, with a comment in every line that says where the value comes from.
pub(in crate::cli) fn print(configured: &Configured) -> String {
    let mut text = format!("# Options of portclash serve {} in force\n", env!("CARGO_PKG_VERSION"));
    for known in Options::of(&Cli::command()).iter() {
        let (values, place) = configured.value(known);
        let key = &known.key;
        let value = match (known.takes, values.as_slice()) {
            (Takes::Nothing, values) => values.first().is_some_and(|value| value == "true").to_string(),
            (Takes::One, [value]) => scalar(value),
            (Takes::Many, [_, ..]) => {
                let words: Vec<String> = values.iter().map(|value| scalar(value)).collect();
                format!("[{}]", words.join(", "))
            }
            _ => {
                text += &format!("# {key} is not set\n");
                continue;
            }
        };
        text += &format!("{key} = {value} # {place}\n");
    }
    text
}

/// Numbers and yes or no as such, anything else as a string.
fn scalar(value: &str) -> String {
    if matches!(value, "true" | "false") {
        return value.to_owned();
    }
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => value.to_owned(),
        _ => toml::Value::String(value.to_owned()).to_string(),
    }
}
