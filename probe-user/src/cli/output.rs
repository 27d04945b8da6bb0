//! What all commands share: options, terminal width, colour.

use std::io::{IsTerminal, Write};

use clap::{ColorChoice, ValueEnum};

/// What failed when results could not be written.
pub(crate) const WRITE: &str = "write to standard output";

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Output format; json = one object per line
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    /// Colours; auto = on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub(crate) color: ColorChoice,
    /// Say more on standard error; up to three times
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
}

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// One self-contained page; `analyze` only
    Html,
}

impl Common {
    /// Whether text on standard output is coloured.
    pub(crate) fn colour(&self) -> bool {
        match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
            }
        }
    }
}

/// A line on standard error. One that nobody reads (a closed pipe, a full disk) is no reason to stop.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Columns of the terminal; 100 when standard output is none.
pub(crate) fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || {
        let stdout = std::io::stdout();
        stdout
            .is_terminal()
            .then(|| terminal_size::terminal_size_of(stdout))
            .flatten()
            .map(|(width, _)| width.0.into())
    };
    columns.or_else(terminal).unwrap_or(100_usize).max(40)
}
