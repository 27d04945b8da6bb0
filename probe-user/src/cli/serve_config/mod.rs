//! The options of `portclash serve` from a file and from the environment: translated into arguments of the same command,
//! so that clap alone defines them, checks their values and knows their defaults. A flag comes before its variable, a
//! variable before the file.

mod environment;
mod file;
mod known;
mod print;
mod reload;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::PathBuf;

use clap::builder::Resettable::Reset;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Id, Parser};

use super::Cli;
use super::serve::Args;
use known::{Known, Options};

pub(super) use print::print;
pub(super) use reload::Reloader;

/// The subcommand that this is about.
const SERVE: &str = "serve";
/// The file that is read if it exists and no other is named.
const SYSTEM_FILE: &str = "/etc/portclash/serve.toml";

/// Where the value of an option comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// This line of this file.
    File(PathBuf, usize),
    /// This environment variable.
    Variable(String),
    /// The command line.
    Flag,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag => f.write_str("command line"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What a file or a variable says about one option.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    key: String,
    values: Vec<String>,
    place: Place,
}

/// Why the options cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    /// The file cannot be read.
    #[error("read {}: {source}{}", .path.display(), named_by(.by.as_ref()))]
    Read {
        /// The file.
        path: PathBuf,
        /// Who names it.
        by: Option<Place>,
        /// Why.
        source: io::Error,
    },
    /// It is no TOML.
    #[error("{}:{line}: {problem}", .path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// There is no such option.
    #[error("{place}: unknown {what} \"{name}\"{}", did_you_mean(.nearest.as_deref()))]
    Unknown {
        /// Where.
        place: String,
        /// `key` or `variable`.
        what: &'static str,
        /// What is given.
        name: String,
        /// What may be meant.
        nearest: Option<String>,
    },
    /// A value that the option does not take.
    #[error("{place}: {problem}")]
    Value {
        /// Where.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Each value is right, but not all of them together.
    #[error("{0}")]
    Together(String),
    /// The command line itself.
    #[error("{0}")]
    CommandLine(clap::Error),
}

fn named_by(place: Option<&Place>) -> String {
    place.map(|place| format!(" (named by {place})")).unwrap_or_default()
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean \"{nearest}\"?")).unwrap_or_default()
}

/// Everything that options are taken from.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    system_file: PathBuf,
}

/// Options in force.
#[derive(Clone, Debug)]
pub(super) struct Configured {
    /// The options of `portclash serve`; `config` is the file that was read, whoever named it.
    pub(super) args: Args,
    matches: ArgMatches,
    /// Where those come from that a file or a variable gives.
    places: BTreeMap<String, Place>,
    sources: Sources,
}

/// Reads the command line; of `portclash serve` also the file and the environment.
pub(super) fn from_process() -> Result<(Cli, Option<Configured>), ConfigError> {
    let sources = Sources {
        arguments: std::env::args_os().collect(),
        variables: std::env::vars_os().collect(),
        system_file: SYSTEM_FILE.into(),
    };
    match sources.command_line() {
        Some(given) => {
            let configured = sources.configure(&given)?;
            let cli = Cli::from_arg_matches(&configured.matches);
            Ok((cli.map_err(|error| located(error, &configured.places))?, Some(configured)))
        }
        // Help, version, another command, or a mistake that clap tells about.
        None => Ok((Cli::parse(), None)),
    }
}

impl Sources {
    /// The command line's own part, if it is right and for `portclash serve`. What options require of each other is left
    /// open: the rest may come from elsewhere.
    fn command_line(&self) -> Option<ArgMatches> {
        let alone = |arg: clap::Arg| arg.requires(Reset::<Id>).conflicts_with(Reset::<Id>);
        let command = Cli::command().mut_subcommand(SERVE, |serve| serve.mut_args(alone));
        let matches = command.try_get_matches_from(&self.arguments).ok()?;
        matches.subcommand_matches(SERVE).cloned()
    }

    fn configure(&self, command_line: &ArgMatches) -> Result<Configured, ConfigError> {
        let options = Options::of(&Cli::command());
        let file = self.file(command_line);
        let mut given = environment::read(&self.variables, &options)?;
        if let Some((path, by)) = &file {
            let text = file::load(path, by.clone())?;
            given.extend(file::parse(path, &text, &options)?);
        }
        let is_flag = |key: &str| {
            let known = options.get(key);
            known.is_some_and(|known| source(command_line, known) == Some(ValueSource::CommandLine))
        };
        let mut places = BTreeMap::new();
        let mut arguments = Vec::new();
        for given in given {
            let Some(known) = options.get(&given.key).filter(|_| !is_flag(&given.key)) else { continue };
            // Variables come first.
            if let Entry::Vacant(place) = places.entry(given.key.clone()) {
                arguments.extend(known.arguments(&given)?);
                place.insert(given.place);
            }
        }
        let file = file.map(|(path, _)| path);
        self.combine(arguments, places, file)
    }

    fn combine(
        &self,
        arguments: Vec<OsString>,
        places: BTreeMap<String, Place>,
        file: Option<PathBuf>,
    ) -> Result<Configured, ConfigError> {
        let mut all = self.arguments.clone();
        let end = all.iter().position(|argument| argument == "--").unwrap_or(all.len());
        all.splice(end..end, arguments);
        let matches = Cli::command().try_get_matches_from(all).map_err(|error| located(error, &places))?;
        let serve = matches.subcommand_matches(SERVE).cloned().unwrap_or_default();
        let mut args = Args::from_arg_matches(&serve).map_err(|error| located(error, &places))?;
        args.config.config = file;
        Ok(Configured { args, matches, places, sources: self.clone() })
    }

    /// The file to read, and who names it.
    fn file(&self, command_line: &ArgMatches) -> Option<(PathBuf, Option<Place>)> {
        if let Some(path) = command_line.get_one::<PathBuf>("config") {
            return Some((path.clone(), Some(Place::Flag)));
        }
        let variable = environment::value(&self.variables, environment::CONFIG);
        if let Some(path) = variable.filter(|path| !path.is_empty()) {
            return Some((path.into(), Some(Place::Variable(environment::CONFIG.to_owned()))));
        }
        let exists = self.system_file.try_exists();
        // Whether it exists may be unknown; then reading it says why.
        exists.unwrap_or(true).then(|| (self.system_file.clone(), None))
    }
}

fn source(matches: &ArgMatches, known: &Known) -> Option<ValueSource> {
    matches.value_source(known.id.as_str())
}

/// clap's error, with the place that the value comes from.
fn located(error: clap::Error, places: &BTreeMap<String, Place>) -> ConfigError {
    let mut named: Vec<&Place> = Vec::new();
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let arguments = match error.get(kind) {
            Some(ContextValue::String(argument)) => std::slice::from_ref(argument),
            Some(ContextValue::Strings(arguments)) => arguments.as_slice(),
            _ => &[],
        };
        named.extend(arguments.iter().filter_map(|argument| places.get(key_of(argument))));
    }
    if places.is_empty() {
        return ConfigError::CommandLine(error);
    }
    let problem = first_paragraph(&error.to_string());
    if named.is_empty() {
        return ConfigError::Together(format!(
            "options of command line, environment and file together: {problem}"
        ));
    }
    let place = named.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    ConfigError::Value { place, problem }
}

/// `listen` in `--listen <ADDR:PORT>`.
fn key_of(argument: &str) -> &str {
    let name = argument.trim_start_matches('-');
    name.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).next().unwrap_or(name)
}

fn first_paragraph(text: &str) -> String {
    let lines = text.trim_start_matches("error: ").lines().take_while(|line| !line.trim().is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

impl Configured {
    /// The value of an option as it was given, and where; nothing = it is not set.
    fn value(&self, known: &Known) -> (Vec<String>, Place) {
        let Some(serve) = self.matches.subcommand_matches(SERVE) else {
            return (Vec::new(), Place::Default);
        };
        let raw = serve.get_raw(known.id.as_str()).into_iter().flatten();
        let values = raw.map(OsStr::to_string_lossy).map(String::from).collect();
        let place = match (self.places.get(&known.key), source(serve, known)) {
            (Some(place), _) => place.clone(),
            (None, Some(ValueSource::CommandLine)) => Place::Flag,
            (None, _) => Place::Default,
        };
        (values, place)
    }
}
