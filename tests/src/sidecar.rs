//! `portclash serve` as a child: started, waited for, asked over HTTP, stopped, and what it said.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::child::Program;

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(20);
/// Where it answers unless told otherwise.
pub const ADDRESS: &str = "127.0.0.1:9847";

/// What is said unless the arguments say otherwise: nobody is asked for names and no log is read, as that there is none
/// would be told with every incident; and the exposure is not looked at.
const USUAL: [[&str; 2]; 4] =
    [["--listen", ADDRESS], ["--pods", "none"], ["--kubelet-log", "none"], ["--check-every", "none"]];

/// A sidecar that runs.
pub struct Sidecar {
    program: Program,
    address: SocketAddr,
    ready_after: Duration,
}

/// What a sidecar said, and how it ended.
#[derive(Debug)]
pub struct Stopped {
    /// Incidents on standard output.
    pub incidents: Vec<Value>,
    /// Counts of those that were not repeated.
    pub repeats: Vec<Value>,
    /// Changes of the exposure.
    pub changes: Vec<Value>,
    /// Standard error.
    pub messages: String,
    /// Its exit status; `None` = killed by a signal.
    pub status: Option<i32>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// What came after the head.
    pub body: Vec<u8>,
}

impl Reply {
    /// As text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// As JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }
}

/// Samples of `/metrics`, by name and labels as they are written.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The sum of the samples of this name that have all of these labels, such as `reason="missed"`; `None` = there are none.
    pub fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let is = |sample: &str| {
            let rest = sample.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with('{'))
                .then(|| labels.iter().all(|label| rest.contains(label)))
        };
        let values: Vec<f64> =
            self.0.iter().filter(|(sample, _)| is(sample) == Some(true)).map(|(_, value)| *value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The same as a whole number; none = 0.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are whole and small")]
    pub fn count(&self, name: &str, labels: &[&str]) -> u64 {
        self.sum(name, labels).unwrap_or(0.0) as u64
    }

    /// Events lost, but for runs that the kernel skipped: those happen on a busy machine, and what matters of them shows in
    /// the incidents.
    pub fn lost(&self) -> u64 {
        let all = self.count("portclash_events_lost_total", &[]);
        all - self.count("portclash_events_lost_total", &["reason=\"missed\""])
    }
}

impl Sidecar {
    /// Starts `portclash serve` with these arguments besides the usual ones, and waits until it says that it is ready.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_limited(None, arguments)
    }

    /// The same as root with these capabilities only (see the guest's mode `limited`); `None` = all.
    pub fn start_limited(capabilities: Option<&str>, arguments: &[&str]) -> Result<Self> {
        let usual = USUAL.iter().filter(|[option, _]| !arguments.contains(option)).flatten();
        let begun = Instant::now();
        let mut command = Command::new(if capabilities.is_some() { "/init" } else { "portclash" });
        if let Some(capabilities) = capabilities {
            command.args(["limited", capabilities, "portclash"]);
        }
        let program = Program::start("portclash serve", command.arg("serve").args(usual).args(arguments))?;
        let listen = arguments.iter().skip_while(|argument| **argument != "--listen").nth(1);
        let address = listen.unwrap_or(&ADDRESS).parse()?;
        let mut sidecar = Self { program, address, ready_after: Duration::ZERO };
        sidecar.wait_until("it is ready", START, |sidecar| {
            Ok(sidecar.get("/readyz").is_ok_and(|reply| reply.status == 200))
        })?;
        sidecar.ready_after = begun.elapsed();
        Ok(sidecar)
    }

    /// From its start until it said that it is ready.
    pub const fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Asks for a path.
    pub fn get(&self, path: &str) -> Result<Reply> {
        get(self.address, path)
    }

    /// Asks for a path that must be there.
    pub fn get_ok(&self, path: &str) -> Result<Reply> {
        let reply = self.get(path)?;
        ensure!(reply.status == 200, "{path}: {} {}", reply.status, reply.text());
        Ok(reply)
    }

    /// Its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(&self.get_ok("/metrics")?.text()))
    }

    /// Waits until `done` is true; says what was waited for, and what it said, if that does not come in time.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        done: impl Fn(&Self) -> Result<bool>,
    ) -> Result<()> {
        self.program.wait_until(what, limit, || done(self))
    }

    /// Waits until so many incidents have come to standard output.
    pub fn wait_for_incidents(&mut self, count: usize) -> Result<()> {
        self.program.wait_for_incidents(count, Duration::from_secs(15))
    }

    /// Waits until a metric has a value that will do.
    pub fn wait_for_metric(
        &mut self,
        name: &str,
        labels: &[&str],
        limit: Duration,
        will_do: impl Fn(Option<f64>) -> bool,
    ) -> Result<()> {
        let what = format!("{name} {labels:?}");
        let done = |sidecar: &Self| Ok(will_do(sidecar.metrics()?.sum(name, labels)));
        let waited = self.wait_until(&what, limit, done);
        waited.with_context(|| format!("it is {:?}", self.metrics().map(|metrics| metrics.sum(name, labels))))
    }

    /// Waits until so many captures are written: an incident is told first.
    pub fn wait_for_captures(&mut self, count: u32) -> Result<()> {
        let enough = |written: Option<f64>| written.is_some_and(|written| written >= f64::from(count));
        let written = "portclash_recorder_captures_written_total";
        self.wait_for_metric(written, &[], Duration::from_secs(15), enough)
    }

    /// Incidents on standard output so far.
    pub fn incidents(&self) -> Vec<Value> {
        self.program.incidents()
    }

    /// Changes of the exposure on standard output so far.
    pub fn changes(&self) -> Vec<Value> {
        self.program.output().objects("portclash.exposure/v1")
    }

    /// Standard error so far.
    pub fn messages(&self) -> String {
        self.program.messages().text()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.program.signal(signal)
    }

    /// Asks it to end, and waits until it has, with status 0.
    pub fn stop(self) -> Result<Stopped> {
        self.signal(Signal::SIGTERM)?;
        let stopped = self.end()?;
        let Stopped { status, messages, .. } = &stopped;
        ensure!(*status == Some(0), "exit status is {status:?}, expected 0:\n{messages}");
        Ok(stopped)
    }

    /// Waits until it has ended, for whatever reason.
    pub fn end(mut self) -> Result<Stopped> {
        let status = self.program.end(STOP)?;
        Ok(Stopped {
            incidents: self.incidents(),
            repeats: self.program.output().objects("portclash.repeats/v1"),
            changes: self.changes(),
            messages: self.messages(),
            status: status.code(),
        })
    }
}

/// Asks the sidecar that answers at `address` for a path.
pub fn get(address: SocketAddr, path: &str) -> Result<Reply> {
    let mut stream = TcpStream::connect(address).context("connect to the sidecar")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("read the answer to {path}"))?;
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no head")?;
    let body = answer.split_off(head_end + 4);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status in {head:?}"))?;
    Ok(Reply { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels_and_summed() {
        let metrics = Metrics::parse(
            "# HELP a_total x\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\",y=\"2\"} 4\na_total_b 9\nb 1.5\n# EOF\n",
        );
        assert_eq!(metrics.sum("a_total", &[]), Some(7.0));
        assert_eq!(metrics.count("a_total", &["x=\"2\""]), 4);
        assert_eq!(metrics.sum("a_total", &["x=\"3\""]), None);
        assert_eq!(metrics.sum("b", &[]), Some(1.5));
    }
}
