//! The options that a file and the environment may give: those of the command.

use std::ffi::OsString;

use clap::{ArgAction, Command};

use super::{ConfigError, Given, SERVE};

/// Options that only the command line has: they are about this one run.
const COMMAND_LINE_ONLY: [&str; 7] =
    ["config", "print-config", "help", "version", "output", "color", "verbose"];
/// Names closer than this are taken for a mistake in writing (Jaro's measure, as clap does it).
const NEAR: f64 = 0.75;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing; it is there or not.
    Nothing,
    /// One value.
    One,
    /// Any number of values.
    Many,
}

/// One option.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Its long name.
    pub(super) key: String,
    /// clap's name for it.
    pub(super) id: clap::Id,
    /// What it takes.
    pub(super) takes: Takes,
}

/// All of them, in the order of the help.
#[derive(Clone, Debug)]
pub(super) struct Options(Vec<Known>);

impl Options {
    /// Those of `portclash serve`.
    pub(super) fn of(command: &Command) -> Self {
        let serve = command.find_subcommand(SERVE).into_iter();
        let all = serve.flat_map(Command::get_arguments).filter_map(|argument| {
            let key = argument.get_long()?;
            let takes = match argument.get_action() {
                ArgAction::SetTrue => Takes::Nothing,
                ArgAction::Append => Takes::Many,
                _ => Takes::One,
            };
            Some(Known { key: key.to_owned(), id: argument.get_id().clone(), takes })
        });
        Self(all.filter(|known| !COMMAND_LINE_ONLY.contains(&known.key.as_str())).collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<&Known> {
        self.0.iter().find(|known| known.key == key)
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Known> {
        self.0.iter()
    }

    /// The key that may be meant by a name that is none.
    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        let close = self.0.iter().map(|known| (strsim::jaro(name, &known.key), known.key.as_str()));
        let best = close.filter(|(near, _)| *near > NEAR).max_by(|(a, _), (b, _)| a.total_cmp(b));
        best.map(|(_, key)| key)
    }
}

impl Known {
    /// The arguments that say the same.
    pub(super) fn arguments(&self, given: &Given) -> Result<Vec<OsString>, ConfigError> {
        let wrong = |problem: String| ConfigError::Value { place: given.place.to_string(), problem };
        let key = &self.key;
        match (self.takes, given.values.as_slice()) {
            (Takes::Nothing, [value]) => match value.as_str() {
                "true" => Ok(vec![format!("--{key}").into()]),
                "false" => Ok(Vec::new()),
                other => Err(wrong(format!("{key} is true or false, not \"{other}\""))),
            },
            (Takes::Many, values) => {
                Ok(values.iter().map(|value| format!("--{key}={value}").into()).collect())
            }
            (Takes::One, [value]) => Ok(vec![format!("--{key}={value}").into()]),
            (Takes::Nothing | Takes::One, _) => Err(wrong(format!("{key} takes one value, no list"))),
        }
    }
}
