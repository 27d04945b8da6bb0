//! `cargo xtask bench`: what tracing and counting cost, next to bpftrace and strace; how fast a log, a table and sockets
//! are read, next to grep, awk and ss.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::setup::kernels::{self, Kernel};
use crate::setup::{self, COMPARED};
use crate::vm::{Guest, Kind, Line, boot, find_program};
use crate::{build, command, workspace};

#[path = "bench_captures.rs"]
mod captures;
#[path = "bench_check.rs"]
mod check;
#[path = "bench_sockets.rs"]
mod sockets;
#[path = "bench_table.rs"]
mod table;

/// Longest time for one kernel.
const DEADLINE: Duration = Duration::from_mins(20);
/// What the line with the result begins with; `tests/src/bench/mod.rs` writes it.
const RESULT: &str = "result ";

/// Measure what tracing, counting and reading cost.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// Connects per second without and with portclash, bpftrace and strace; run time of each program; memory
    Connect(Options),
    /// Connects per second without and with portclash ports and a counting bpftrace; processor time of whoever counts
    Ports(Options),
    /// Memory, processor time, start and answers of portclash serve, next to bpftrace and tcpconnect
    Sidecar(Options),
    /// A kubelet's log of 100 MB, scanned for failed probes, next to `grep -c "Probe failed"`
    Log(Log),
    /// A table of 100,000 services judged by `portclash check`, next to awk on the same file, or with --kernel next to
    /// `ipvsadm -Ln` in the kernel
    Check(check::Check),
    /// Captures of small and of large packets, analysed, next to tcpdump and tshark with a filter each
    Captures(captures::Captures),
    /// Sockets in TIME-WAIT, counted through inet_diag, next to `ss -tan | awk`; needs root
    Sockets(sockets::Sockets),
}

#[derive(clap::Args)]
struct Log {
    /// How often each log is scanned
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

#[derive(clap::Args)]
struct Options {
    /// Kernels to boot: a list such as 6.1,6.12, or all (5.10, 6.1, 6.12, 7.2)
    #[arg(long, default_value = "6.1", conflicts_with = "native")]
    kernel: String,
    /// On this machine's own kernel, by the stable hooks, in a network namespace of its own; needs root
    #[arg(long)]
    native: bool,
    /// How often each observer is measured, each time between two spells without any
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Runs the bench, prints a table, and keeps the numbers in target/bench/NAME.json.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.bench {
        Bench::Connect(options) => run_observers(options, "connect", ""),
        Bench::Ports(options) => run_observers(options, "ports", "ports-"),
        Bench::Sidecar(options) => run_observers(options, "sidecar", "sidecar-"),
        Bench::Log(log) => run_log(log),
        Bench::Check(arguments) => check::run(arguments),
        Bench::Captures(arguments) => captures::run(arguments),
        Bench::Sockets(arguments) => sockets::run(arguments),
    }
}

fn run_log(log: &Log) -> Result<ExitCode> {
    let folder = workspace::set_up("bench");
    let mut cargo = workspace::cargo();
    cargo
        .args(["bench", "--package", "probe-user", "--bench", "kubelet_log", "--", &log.rounds.to_string()])
        .arg(&folder);
    let output = command::output(&mut cargo)?;
    let rows: Vec<Value> = output
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    print!("{}", table::log_text(&rows));
    let path = folder.join("log.json");
    let result = serde_json::json!({"machine": machine(false), "rounds": log.rounds, "logs": rows});
    std::fs::write(&path, format!("{result:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn run_observers(options: &Options, name: &str, prefix: &str) -> Result<ExitCode> {
    let wanted = if options.native { Vec::new() } else { kernels::parse_list(&options.kernel)? };
    setup::everything(&wanted, false)?;
    setup::ensure_programs(COMPARED)?;
    let binaries = build::static_binaries(&["probe-user", "portclash-tests"])?;
    if options.native {
        let result = native(&binaries, &format!("{prefix}native"), options.rounds)?;
        keep(name, "native", &result)?;
    }
    for kernel in wanted {
        let guest = Guest {
            init: binaries.join("lab-init"),
            portclash: Some(binaries.join("portclash")),
            files: Vec::new(),
            programs: COMPARED,
            kind: Kind::Node,
            plan: ["bench", &format!("{prefix}vm"), &options.rounds.to_string()].map(str::to_owned).to_vec(),
        };
        println!("booting Linux {}", kernel.name);
        let result = emulated(&Kernel::find(kernel.name)?, &guest)?;
        keep(name, kernel.name, &result)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn emulated(kernel: &Kernel, guest: &Guest) -> Result<Value> {
    let mut result = None;
    let status = boot(kernel, guest, DEADLINE, |line| {
        if let Line::Text(text) = line {
            match text.strip_prefix(RESULT) {
                Some(json) => result = Some(serde_json::from_str(json).context("the result is no JSON")?),
                None => println!("{text}"),
            }
        }
        Ok(())
    })?;
    result.with_context(|| format!("the guest ended with status {status} and without a result"))
}

fn native(binaries: &std::path::Path, mode: &str, rounds: u32) -> Result<Value> {
    let mut bench = Command::new(binaries.join("lab-init"));
    let path = std::env::var("PATH").unwrap_or_default();
    bench.args(["bench", mode, &rounds.to_string()]);
    bench.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", binaries.display()));
    let output = bench.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start: {}", command::shown(&bench)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find_map(|line| line.strip_prefix(RESULT)) {
        Some(json) => serde_json::from_str(json).context("the result is no JSON"),
        None => bail!("{}: {}", output.status, command::shown(&bench)),
    }
}

/// Prints the result and writes it beside those of other kernels.
fn keep(bench: &str, kernel: &str, result: &Value) -> Result<()> {
    print!("{}", table::text(result));
    let path = result_file(bench);
    let mut all: Value = match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?,
        Err(_) => serde_json::json!({}),
    };
    if let Some(all) = all.as_object_mut() {
        let mut result = result.clone();
        if let Some(fields) = result.as_object_mut() {
            fields.insert("machine".to_owned(), machine(kernel != "native"));
        }
        all.insert(kernel.to_owned(), result);
    }
    std::fs::create_dir_all(workspace::set_up("bench"))?;
    std::fs::write(&path, format!("{all:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

fn result_file(bench: &str) -> PathBuf {
    workspace::set_up("bench").join(format!("{bench}.json"))
}

/// The processor, and what emulates one on it.
pub(crate) fn machine(emulated: bool) -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let qemu = find_program("qemu-system-x86_64").filter(|_| emulated);
    let version = qemu.and_then(|qemu| command::output(Command::new(qemu).arg("--version")).ok());
    serde_json::json!({
        "cpu": model.map(|(_, model)| model),
        "cpus": std::thread::available_parallelism().map(std::num::NonZero::get).ok(),
        "emulator": version.as_deref().and_then(|text| text.lines().next()),
    })
}
