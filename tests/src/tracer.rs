//! `portclash trace` as a child: started, waited for, stopped, and what it said.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::child::{INCIDENT, Program};

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(15);

/// A tracer that runs.
pub struct Tracer(Program);

/// What a tracer said, and how it ended.
#[derive(Debug)]
pub struct Traced {
    /// Its incidents, in the order in which they came.
    pub incidents: Vec<Value>,
    /// Its last line.
    pub summary: Value,
    /// Its exit status; `None` = killed by a signal.
    pub status: Option<i32>,
}

impl Tracer {
    /// Starts `portclash trace -o json` with more arguments and waits until it says that it traces. Unless they say
    /// otherwise it asks nobody for names and reads no log: that there is none would be told with every incident.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let usual = [["--pods", "none"], ["--kubelet-log", "none"]];
        let usual = usual.iter().filter(|[option, _]| !arguments.contains(option)).flatten();
        let mut command = Command::new("portclash");
        command.args(["trace", "-o", "json"]).args(usual).args(arguments);
        let tracer = Self(Program::start("portclash trace", &mut command)?);
        let begun = || Ok(tracer.0.messages().any(|line| line.starts_with("tracing:")));
        tracer.0.wait_until("it traces", START, begun)?;
        Ok(tracer)
    }

    /// Waits until `done` is true; says what was waited for, and what the tracer said, if that does not come in time.
    pub fn wait_until(&mut self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<()> {
        self.0.wait_until(what, limit, || Ok(done(self)))
    }

    /// Waits until so many incidents have come.
    pub fn wait_for_incidents(&mut self, count: usize) -> Result<()> {
        self.0.wait_for_incidents(count, Duration::from_secs(10))
    }

    /// The incidents so far.
    pub fn incidents(&self) -> Vec<Value> {
        self.0.incidents()
    }

    /// Standard error so far.
    pub fn messages(&self) -> String {
        self.0.messages().text()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Whether any incident was printed, without reading it.
    pub fn has_found(&self) -> bool {
        self.0.output().any(|line| line.contains(INCIDENT))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.0.signal(signal)
    }

    /// Interrupts the tracer and waits for its end.
    pub fn stop(self) -> Result<(Traced, String)> {
        self.signal(Signal::SIGINT)?;
        self.end()
    }

    /// Waits until the tracer ends, by itself or because it was interrupted.
    pub fn end(mut self) -> Result<(Traced, String)> {
        let status = self.0.end(STOP)?;
        let messages = self.messages();
        let summary = self.0.output().objects("portclash.summary/v1").pop();
        let summary = summary.with_context(|| format!("no summary; it ended with {status}:\n{messages}"))?;
        Ok((Traced { incidents: self.incidents(), summary, status: status.code() }, messages))
    }
}
