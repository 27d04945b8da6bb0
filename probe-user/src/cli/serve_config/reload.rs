//! SIGHUP: file and environment are read again, and compared with what is in force.

use clap::CommandFactory;

use super::known::Options;
use super::{ConfigError, Configured};
use crate::cli::Cli;

/// Options that take effect without a new start.
const RELOADABLE: [&str; 14] = [
    "label-pods",
    "repeat-every",
    "check-every",
    "record-size",
    "record-files",
    "drain",
    "webhook",
    "webhook-token-file",
    "webhook-ca",
    "kubernetes-events",
    "otlp",
    "otlp-token-file",
    "otlp-ca",
    "otlp-metrics-every",
];

/// Reads the options again.
#[derive(Debug)]
pub(in crate::cli) struct Reloader {
    /// As it was at the start: what counts for options that need one.
    started: Configured,
    /// As it was read last: what counts for the others.
    in_force: Configured,
}

/// What reading them again showed.
#[derive(Debug)]
pub(in crate::cli) struct Reread {
    /// The options as they were read.
    pub(in crate::cli) new: Configured,
    /// Keys of the options that change now.
    pub(in crate::cli) changed: Vec<String>,
    /// Keys of the options that would change, but take effect at the next start only.
    pub(in crate::cli) next_start: Vec<String>,
}

impl Reloader {
    /// What is in force at the start.
    pub(in crate::cli) fn new(started: Configured) -> Self {
        Self { in_force: started.clone(), started }
    }

    /// Reads them. Nothing changes until [`Self::accept`].
    pub(in crate::cli) fn read(&self) -> Result<Reread, ConfigError> {
        let sources = &self.in_force.sources;
        let Some(command_line) = sources.command_line() else {
            return Err(ConfigError::Together("the command line was not for serve".to_owned()));
        };
        let new = sources.configure(&command_line)?;
        let (mut changed, mut next_start) = (Vec::new(), Vec::new());
        for known in Options::of(&Cli::command()).iter() {
            let reloadable = RELOADABLE.contains(&known.key.as_str());
            let (before, list) =
                if reloadable { (&self.in_force, &mut changed) } else { (&self.started, &mut next_start) };
            if before.value(known).0 != new.value(known).0 {
                list.push(known.key.clone());
            }
        }
        Ok(Reread { new, changed, next_start })
    }

    /// What was read is in force.
    pub(in crate::cli) fn accept(&mut self, reread: Reread) {
        self.in_force = reread.new;
    }
}
