//! A program as a child: started, waited for, stopped, and what it said.

use std::cell::RefCell;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab;
use crate::output::Output;

/// Schema of an incident as JSON.
pub const INCIDENT: &str = "portclash.incident/v1";

/// A program that runs. It is gone when this value is.
pub struct Program {
    name: &'static str,
    /// Asking whether it has ended changes it.
    child: RefCell<Child>,
    output: Output,
    messages: Output,
}

impl Program {
    /// Starts a command and reads what it prints. `name` is what errors call it.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let output = Output::of(child.stdout.take().context("no output")?);
        let messages = Output::of(child.stderr.take().context("no messages")?);
        Ok(Self { name, child: child.into(), output, messages })
    }

    /// Waits until `done` is true; says what was waited for, and what the program said, if that does not come in time, or
    /// the program ends before.
    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let waited = lab::wait_until(what, limit, || {
            if done()? {
                return Ok(true);
            }
            match self.child.borrow_mut().try_wait()? {
                Some(status) => bail!("{} ended with {status} before {what}", self.name),
                None => Ok(false),
            }
        });
        waited.map_err(|error| self.with_messages(&error))
    }

    /// Waits until so many incidents have come to standard output.
    pub fn wait_for_incidents(&self, count: usize, limit: Duration) -> Result<()> {
        self.wait_until(&format!("{count} incidents"), limit, || Ok(self.incidents().len() >= count))
    }

    /// Waits until it has ended, for whatever reason, and all that it printed was read.
    pub fn end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut ended = None;
        let waited = lab::wait_until(&format!("{} ends", self.name), limit, || {
            ended = self.child.get_mut().try_wait()?;
            Ok(ended.is_some())
        });
        waited.map_err(|error| self.with_messages(&error))?;
        self.output.finish();
        self.messages.finish();
        ended.context("no status")
    }

    fn with_messages(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{error:#}:\n{}", self.messages.text())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.borrow().id()
    }

    /// Standard output.
    pub const fn output(&self) -> &Output {
        &self.output
    }

    /// Standard error.
    pub const fn messages(&self) -> &Output {
        &self.messages
    }

    /// Incidents on standard output so far, in the order in which they came.
    pub fn incidents(&self) -> Vec<Value> {
        self.output.objects(INCIDENT)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // Both fail only if it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    fn shell(script: &str) -> Program {
        Program::start("the shell", Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn what_it_prints_is_waited_for_and_its_end_too() {
        let mut program =
            shell("echo why >&2; echo '{\"schema\": \"portclash.incident/v1\"}'; exec sleep 600");
        program.wait_for_incidents(1, LIMIT).unwrap();
        program.signal(Signal::SIGTERM).unwrap();
        assert_eq!(program.end(LIMIT).unwrap().signal(), Some(Signal::SIGTERM as i32));
        assert_eq!((program.incidents().len(), program.messages().text().as_str()), (1, "why"));
    }

    #[test]
    fn one_that_ends_is_not_waited_for() {
        let error = shell("exit 3").wait_for_incidents(1, LIMIT).unwrap_err().to_string();
        assert!(error.starts_with("the shell ended with exit status: 3 before 1 incidents"), "{error}");
    }

    #[test]
    fn one_that_says_nothing_is_not_waited_for_longer_than_said() {
        let error = shell("exec sleep 600").wait_for_incidents(1, Duration::ZERO).unwrap_err().to_string();
        assert!(error.starts_with("waited 0 s until 1 incidents"), "{error}");
    }
}
