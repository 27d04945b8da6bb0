//! Those who watch the client: portclash by each rung, bpftrace, strace.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::client::{Rate, Server};
use crate::tracer::Tracer;

/// Something that watches connects.
pub(super) struct Observer {
    /// Name in the table.
    pub(super) name: &'static str,
    /// Argument of `--hooks`, where it is portclash.
    pub(super) hooks: Option<&'static str>,
    /// Whether it writes packets, and so looks at every one.
    writes: bool,
}

const fn other(name: &'static str) -> Observer {
    Observer { name, hooks: None, writes: false }
}

const fn portclash(name: &'static str, hooks: &'static str) -> Observer {
    Observer { name, hooks: Some(hooks), writes: false }
}

const fn writing(name: &'static str, hooks: &'static str) -> Observer {
    Observer { name, hooks: Some(hooks), writes: true }
}

const STRACE: &str = "strace -f -e trace=connect";
const BPFTRACE: &str = "bpftrace, one line per tcp_connect";

/// As portclash traces unless told otherwise.
pub(super) const AUTO: Observer = portclash("portclash", "auto");

/// In the virtual machine.
pub(super) const ALL: &[Observer] = &[
    portclash("portclash (fentry)", "fentry"),
    portclash("portclash --hooks kprobe", "kprobe"),
    portclash("portclash --hooks stable", "stable"),
    writing("portclash --write", "auto"),
    other(BPFTRACE),
    other(STRACE),
];
/// Where there are neither trampolines nor kprobes.
pub(super) const NATIVE: &[Observer] = &[
    portclash("portclash --hooks stable", "stable"),
    writing("portclash --hooks stable --write", "stable"),
    other(STRACE),
];

impl Observer {
    /// Rate of the client while it is watched.
    pub(super) fn rate(&self, server: &Server, services: &Path, time: Duration) -> Result<Rate> {
        match (self.name, self.hooks) {
            (STRACE, _) => {
                const OUTPUT: &str = "/tmp/bench-strace";
                let rate = server.rate(time, &["strace", "-f", "-e", "trace=connect", "-o", OUTPUT]);
                // It is not there if strace did not start, which the rate says.
                let _ = std::fs::remove_file(OUTPUT);
                rate
            }
            (_, None) => {
                let bpftrace = Bpftrace::start(server)?;
                let rate = server.rate(time, &[])?;
                bpftrace.stop(rate)
            }
            (_, Some(_)) => {
                let tracer = self.trace(services)?;
                let rate = server.rate(time, &[])?;
                let (told, _) = tracer.stop()?;
                let seen = told.summary.get("connects_seen").and_then(serde_json::Value::as_u64);
                ensure!(seen >= Some(rate.connects), "it saw {seen:?} of {} connects", rate.connects);
                Ok(rate)
            }
        }
    }

    /// `portclash trace` by its hooks, with the services of a file, in this network namespace.
    pub(super) fn trace(&self, services: &Path) -> Result<Tracer> {
        let mut arguments = vec!["--hooks", self.hooks.context("no hooks")?, "--netns", "/proc/self/ns/net"];
        arguments.extend(["--ipvs", services.to_str().context("no text")?]);
        if self.writes {
            arguments.extend(["--write", "/tmp/bench-packets.pcapng"]);
        }
        Tracer::start(&arguments)
    }
}

/// bpftrace that prints each connect into a file.
struct Bpftrace(Child);

const OUTPUT: &str = "/tmp/bench-bpftrace";
const PROGRAM: &str = r#"kprobe:tcp_connect { printf("%d %s\n", pid, comm); }"#;

impl Bpftrace {
    fn start(server: &Server) -> Result<Self> {
        let child = Command::new("bpftrace")
            .args(["-B", "line", "-e", PROGRAM])
            .stdin(Stdio::null())
            .stdout(File::create(OUTPUT)?)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start bpftrace")?;
        let mut bpftrace = Self(child);
        let end = Instant::now() + Duration::from_mins(1);
        // It says that it attaches before it has: a connect of ours that it prints tells.
        while lines()? < 2 {
            ensure!(bpftrace.0.try_wait()?.is_none(), "bpftrace ended");
            ensure!(Instant::now() < end, "bpftrace printed nothing in 60 s");
            super::client::connect_from("127.0.0.1:0".parse()?, server.address())?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(bpftrace)
    }

    /// It must have printed what it was to print, or it was not measured. It may lose lines: they cost it less.
    fn stop(mut self, rate: Rate) -> Result<Rate> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        self.0.wait()?;
        let lines = lines()?;
        ensure!(lines * 2 > rate.connects, "bpftrace printed {lines} lines for {} connects", rate.connects);
        Ok(rate)
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines() -> Result<u64> {
    let text = std::fs::read_to_string(OUTPUT)?;
    Ok(u64::try_from(text.lines().count())?)
}
