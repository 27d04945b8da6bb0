//! `portclash trace` as a child: started, waited for, stopped, and what it said.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::output::Output;

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(15);

/// A tracer that runs.
pub struct Tracer {
    child: Child,
    output: Output,
    messages: Output,
}

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
        let mut child = Command::new("portclash")
            .args(["trace", "-o", "json"])
            .args(usual)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start portclash")?;
        let output = Output::of(child.stdout.take().context("no output")?);
        let messages = Output::of(child.stderr.take().context("no messages")?);
        let mut tracer = Self { child, output, messages };
        tracer.wait_until("it traces", START, |tracer| {
            tracer.messages.any(|line| line.starts_with("tracing:"))
        })?;
        Ok(tracer)
    }

    /// Waits until `done` is true; says what was waited for, and what the tracer said, if that does not come in time.
    pub fn wait_until(&mut self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        while !done(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("portclash trace ended with {status} before {what}:\n{}", self.messages());
            }
            ensure!(Instant::now() < end, "waited {} s until {what}:\n{}", limit.as_secs(), self.messages());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until so many incidents have come.
    pub fn wait_for_incidents(&mut self, count: usize) -> Result<()> {
        let limit = Duration::from_secs(10);
        self.wait_until(&format!("{count} incidents"), limit, |tracer| tracer.incidents().len() >= count)
    }

    /// The incidents so far.
    pub fn incidents(&self) -> Vec<Value> {
        self.output.objects("portclash.incident/v1")
    }

    /// Standard error so far.
    pub fn messages(&self) -> String {
        self.messages.text()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether any incident was printed, without reading it.
    pub fn has_found(&self) -> bool {
        self.output.any(|line| line.contains("portclash.incident/v1"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal).context("cannot signal portclash")
    }

    /// Interrupts the tracer and waits for its end.
    pub fn stop(self) -> Result<(Traced, String)> {
        self.signal(Signal::SIGINT)?;
        self.end()
    }

    /// Waits until the tracer ends, by itself or because it was interrupted.
    pub fn end(mut self) -> Result<(Traced, String)> {
        let end = Instant::now() + STOP;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < end, "portclash trace does not end:\n{}", self.messages());
            std::thread::sleep(Duration::from_millis(20));
        };
        self.output.finish();
        self.messages.finish();
        let messages = self.messages();
        let summary = self.output.objects("portclash.summary/v1").pop();
        let summary = summary.with_context(|| format!("no summary; it ended with {status}:\n{messages}"))?;
        Ok((Traced { incidents: self.incidents(), summary, status: status.code() }, messages))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
