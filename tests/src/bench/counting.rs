//! What `portclash ports` costs: connects per second with and without it, and the processor time of whoever reads the
//! counts, next to a bpftrace one-liner that counts the same.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::client::{Rate, Server};
use super::{SPELL, control, described, row};
use crate::reliability::process::Usage;

/// Who counts.
pub(super) struct Counter {
    name: &'static str,
    /// Argument of `--hooks`, where it is portclash.
    hooks: Option<&'static str>,
}

/// In the virtual machine.
pub(super) const ALL: &[Counter] = &[
    Counter { name: "portclash ports (fentry)", hooks: Some("fentry") },
    Counter { name: "portclash ports --hooks kprobe", hooks: Some("kprobe") },
    Counter { name: "portclash ports --hooks stable", hooks: Some("stable") },
    Counter { name: "bpftrace, count() per process", hooks: None },
];
/// Where there are neither trampolines nor kprobes.
pub(super) const NATIVE: &[Counter] =
    &[Counter { name: "portclash ports --hooks stable", hooks: Some("stable") }];

/// Connects per second at which processor time is taken, if the machine can make so many.
const PACE: u32 = 10_000;
const PACED_TIME: Duration = Duration::from_secs(10);
/// The same as `portclash ports` counts, as far as a line can: the destination is read from the socket.
const PROGRAM: &str = "kprobe:tcp_connect { @[pid, comm, cgroup, ((struct sock *)arg0)->__sk_common.skc_daddr, \
                       ((struct sock *)arg0)->__sk_common.skc_dport] = count(); } interval:s:1 { print(@); }";
const OUTPUT: &str = "/tmp/bench-counts";

/// Someone who counts, running.
struct Counting {
    child: Child,
    /// Kept open, so that nothing it says fails.
    _messages: BufReader<ChildStderr>,
}

impl Counter {
    fn start(&self, server: &Server) -> Result<Counting> {
        let mut command = Command::new(if self.hooks.is_some() { "portclash" } else { "bpftrace" });
        if let Some(hooks) = self.hooks {
            command.args(["ports", "-o", "json", "--duration", "1h", "--hooks", hooks]);
            command.args(["--netns", "/proc/self/ns/net", "--pods", "none"]);
        } else {
            command.args(["-B", "line", "-e", PROGRAM]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(File::create(OUTPUT)?)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let mut messages = BufReader::new(child.stderr.take().context("no messages")?);
        if self.hooks.is_some() {
            let mut line = String::new();
            messages.read_line(&mut line)?;
            ensure!(line.starts_with("counting: "), "{} said {line:?}", self.name);
        }
        let mut counting = Counting { child, _messages: messages };
        if self.hooks.is_none() {
            counting.wait_for_a_count(server)?;
        }
        Ok(counting)
    }
}

impl Counting {
    /// bpftrace says that it attaches before it has: a connect of ours that it prints tells.
    fn wait_for_a_count(&mut self, server: &Server) -> Result<()> {
        let end = Instant::now() + Duration::from_mins(1);
        while !std::fs::read_to_string(OUTPUT)?.contains("@[") {
            ensure!(self.child.try_wait()?.is_none(), "bpftrace ended");
            ensure!(Instant::now() < end, "bpftrace printed nothing in 60 s");
            super::client::connect_from("127.0.0.1:0".parse()?, server.address())?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Ends it, and hands back the summary where it is portclash.
    fn stop(mut self) -> Result<Option<Value>> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT)?;
        self.child.wait()?;
        let text = std::fs::read_to_string(OUTPUT)?;
        Ok(text.lines().last().and_then(|line| serde_json::from_str(line).ok()))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rates and processor times of all.
pub(super) fn measure(rounds: usize, counters: &[Counter], say: impl Fn(&str)) -> Result<Value> {
    let server = Server::start()?;
    // The first spell pays for cold caches and untranslated code.
    server.rate(SPELL, &[])?;
    let (mut bare, mut seen) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        bare.push(server.rate(SPELL, &[])?);
        for counter in counters {
            let rate = counted_rate(counter, &server);
            bare.push(server.rate(SPELL, &[])?);
            say(&described(round, counter.name, rate.as_ref(), &bare));
            seen.push((counter.name, bare.len() - 1, rate));
        }
    }
    let mut rows = vec![control(&bare)];
    let mut readers = Vec::new();
    for counter in counters {
        let own = seen.iter().filter(|(name, ..)| *name == counter.name);
        let taken: Vec<_> = own.map(|(_, after, rate)| (*after, rate)).collect();
        rows.push(row(counter.name, &bare, &taken));
        say(&format!("processor time: {}", counter.name));
        readers.push(reader(counter, &server).unwrap_or_else(|error| {
            json!({"name": counter.name, "per_second": null, "core_percent": null, "lost": null,
                "failure": format!("{error:#}")})
        }));
    }
    Ok(json!({
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "cpus": std::thread::available_parallelism()?.get(),
        "rounds": rounds,
        "spell_ms": u64::try_from(SPELL.as_millis())?,
        "rates": rows,
        "readers": readers,
    }))
}

/// Rate of the client while it is counted; what was counted must be what was made.
fn counted_rate(counter: &Counter, server: &Server) -> Result<Rate> {
    let process = counter.start(server)?;
    let rate = server.rate(SPELL, &[])?;
    if let Some(summary) = process.stop()? {
        let connects = summary.get("connects").and_then(Value::as_u64);
        ensure!(connects == Some(rate.connects), "it counted {connects:?} of {} connects", rate.connects);
    }
    Ok(rate)
}

fn reader(counter: &Counter, server: &Server) -> Result<Value> {
    let process = counter.start(server)?;
    let before = Usage::of(process.child.id())?.cpu;
    let begun = Instant::now();
    let rate = server.paced(PACED_TIME, &[], PACE)?;
    let used = Usage::of(process.child.id())?.cpu.saturating_sub(before);
    let share = used.as_secs_f64() / begun.elapsed().as_secs_f64();
    let summary = process.stop()?;
    let lost = summary.as_ref().map(|summary| {
        let seen = summary.get("connects").and_then(Value::as_u64).unwrap_or(0);
        rate.connects.saturating_sub(seen)
    });
    Ok(json!({
        "name": counter.name,
        "per_second": rate.per_second(),
        "core_percent": share * 100.0,
        "lost": lost,
        "failure": null,
    }))
}
