//! `--write`: the packets of the incidents, into files.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::output::complain;
use super::values::size;
use crate::diagnosis::incident::{Incident, Summary};
use crate::node::netns;
use crate::report::packet_log::{CaptureError, CaptureOptions, PacketLog};
use crate::sources::live::Live;

/// Where packets go.
#[derive(Debug, clap::Args)]
pub(super) struct PacketArgs {
    /// Write the packets of colliding connections, from every namespace and device that they cross, to this pcapng file:
    /// headers only, with comments that say whose they are
    #[arg(long, value_name = "FILE.pcapng")]
    write: Option<PathBuf>,
    /// Begin another file when the current one has this size, such as 500K, 10M, 1G: FILE.1.pcapng, FILE.2.pcapng, …
    #[arg(long, value_name = "SIZE", requires = "write", value_parser = size)]
    write_size: Option<u64>,
    /// Keep only so many files, the last ones
    #[arg(long, value_name = "N", requires = "write_size", value_parser = clap::value_parser!(u16).range(1..))]
    write_files: Option<u16>,
}

impl PacketArgs {
    /// Whether packets are asked for.
    pub(super) const fn wanted(&self) -> bool {
        self.write.is_some()
    }

    /// Creates the file.
    pub(super) fn create(&self) -> Result<PacketFiles> {
        let Some(path) = self.write.clone() else { return Ok(PacketFiles::default()) };
        let options =
            CaptureOptions { path, size: self.write_size, files: self.write_files.map(usize::from) };
        let start = crate::sources::clock::Clock::sample().now();
        let log = PacketLog::create(options, start, netns::whose).context("--write")?;
        Ok(PacketFiles { log: Some(log), trouble: Vec::new() })
    }
}

/// The files, if any are asked for. What goes wrong with them is said once and does not end the trace.
#[derive(Default)]
pub(super) struct PacketFiles {
    log: Option<PacketLog>,
    trouble: Vec<String>,
}

impl PacketFiles {
    fn with(&mut self, write: impl FnOnce(&mut PacketLog) -> Result<(), CaptureError>) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = write(log) {
            complain(&format!("portclash: {error}; tracing goes on without writing packets"));
            self.trouble.push(error.to_string());
        }
    }

    /// Takes the packets that came.
    pub(super) fn take(&mut self, live: &mut Live) {
        self.with(|log| log.take(live.packets()));
    }

    /// It is clear whose the packets of an incident are.
    pub(super) fn clear(&mut self, incident: &Incident) {
        self.with(|log| log.clear(incident));
    }

    /// An incident is complete.
    pub(super) fn concluded(&mut self, incident: &Incident) {
        self.with(|log| log.concluded(incident));
    }

    /// An incident that was not asked for.
    pub(super) fn unwanted(&mut self, incident: &Incident) {
        if let Some(log) = &mut self.log {
            log.unwanted(incident.connection.isn);
        }
    }

    /// Writes what is left; `all` = also packets of connections that no incident was told of.
    pub(super) fn finish(&mut self, live: &Live, all: bool, summary: &mut Summary) -> Result<()> {
        let lost = live.packets_lost()?;
        self.with(|log| log.finish(all, &lost, live.clock().now()));
        if let Some(log) = &self.log {
            let (count, path) = log.written();
            complain(&format!("packets: {count} written, the last to {}", path.display()));
        }
        let unwritten = self.log.as_ref().map_or(0, PacketLog::unwritten);
        if unwritten > 0 {
            let reasons = summary.lost.entry("packets".to_owned()).or_default();
            reasons.insert("not_written".to_owned(), unwritten);
        }
        summary.incomplete.append(&mut self.trouble);
        Ok(())
    }
}
