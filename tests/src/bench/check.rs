//! `portclash check` on a large table in the kernel, next to `ipvsadm -Ln`.

use std::fmt::Write as _;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::median;
use crate::lab::restore;
use crate::process::{run as run_tool, sysctl};

/// Services that are loaded between two messages.
const BATCH: u32 = 10_000;
/// Backends of each.
const BACKENDS: u32 = 2;
/// NodePorts of one address, as kube-proxy makes them: all of Kubernetes' default range.
const PORTS: u32 = 2768;
/// Address with the first of them, the only one that the guest has.
const FIRST: &str = "10.0.0.1";

const IPVSADM: &[&str] = &["ipvsadm", "-Ln"];
const CHECK: &[&str] = &["portclash", "check", "-o", "json"];

/// What one run of a program took.
struct Cost {
    wall: Duration,
    /// Highest resident size, KiB.
    peak_kib: i64,
}

/// Loads the table, runs each program `rounds` times in turns, and tells what they took.
pub(super) fn measure(rounds: u32, services: u32, say: impl Fn(&str)) -> Result<Value> {
    run_tool("ip link set lo up")?;
    run_tool(&format!("ip addr add {FIRST}/32 dev lo"))?;
    sysctl("net/ipv4/ip_local_port_range", "1024 65000")?;
    // Rates of every service are no part of this; before 5.17 the setting does not exist.
    let estimates = sysctl("net/ipv4/vs/run_estimation", "0").is_err();
    let load = load(services, &say)?;
    say("comparing the answers");
    same_answer(services)?;
    let (mut ipvsadm, mut check) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let (theirs, ours) = (cost(IPVSADM)?, cost(CHECK)?);
        say(&format!("round {round}: ipvsadm -Ln {:?}, portclash check {:?}", theirs.wall, ours.wall));
        ipvsadm.push(theirs);
        check.push(ours);
    }
    let base = middle(&ipvsadm).context("no round")?;
    let rows = [("ipvsadm -Ln", &ipvsadm), ("portclash check", &check)];
    Ok(json!({
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "cpus": std::thread::available_parallelism()?.get(),
        "services": services,
        "backends": BACKENDS,
        "kernel_estimates_rates": estimates,
        "load_s": load.as_secs(),
        "rounds": rounds,
        "ways": rows.iter().filter_map(|(name, costs)| row(name, costs, base)).collect::<Vec<_>>(),
    }))
}

/// Fills the table as a restore does.
fn load(services: u32, say: &impl Fn(&str)) -> Result<Duration> {
    let begin = Instant::now();
    for from in (0..services).step_by(usize::try_from(BATCH)?) {
        let to = services.min(from + BATCH);
        restore(&rules(from, to))?;
        say(&format!("{to} services after {} s", begin.elapsed().as_secs()));
    }
    Ok(begin.elapsed())
}

/// The same ports on many addresses.
fn rules(from: u32, to: u32) -> String {
    let mut text = String::new();
    for number in from..to {
        let (address, port) = (number / PORTS, 30_000 + number % PORTS);
        let service = format!("10.{}.{}.1:{port}", address / 256, address % 256);
        let _ = writeln!(text, "-A -t {service} -s rr");
        for backend in 0..BACKENDS {
            let backend = number * BACKENDS + backend;
            let (high, low) = (backend / 256 % 256, backend % 256);
            let _ = writeln!(text, "-a -t {service} -r 10.244.{high}.{low}:8080 -m -w 1");
        }
    }
    text
}

/// A comparison of times is worth nothing if the answers differ. It also warms both up.
fn same_answer(services: u32) -> Result<()> {
    let listed = run_tool(&IPVSADM.join(" "))?;
    let listed = u32::try_from(listed.lines().filter(|line| line.starts_with("TCP ")).count())?;
    let report = command(CHECK)?.output()?;
    let report: Value = serde_json::from_slice(&report.stdout).context("the check gave no JSON")?;
    let read = report.get("services_tcp").and_then(Value::as_u64);
    let incomplete = report.get("incomplete");
    ensure!(listed == services, "ipvsadm lists {listed} services of {services}");
    ensure!(read == Some(services.into()), "portclash reads {read:?} services of {services}");
    ensure!(incomplete == Some(&json!([])), "portclash could not read all: {incomplete:?}");
    let (exposed, expected) = (report.get("exposed_count").and_then(Value::as_u64), services.min(PORTS));
    ensure!(exposed == Some(expected.into()), "{exposed:?} ports are exposed, not {expected}");
    Ok(())
}

fn command(line: &[&str]) -> Result<Command> {
    let (program, arguments) = line.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

fn cost(line: &[&str]) -> Result<Cost> {
    let mut program = command(line)?;
    program.stdin(Stdio::null()).stdout(File::options().write(true).open("/dev/null")?);
    let begin = Instant::now();
    let child = program.spawn().with_context(|| format!("cannot start {}", line.join(" ")))?;
    let pid = libc::pid_t::try_from(child.id())?;
    // SAFETY: rusage is plain numbers, for which all zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: both pointers are to variables of this frame; the child is ours and is waited for only here.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    ensure!(waited == pid, "cannot wait for {}", line.join(" "));
    Ok(Cost { wall: begin.elapsed(), peak_kib: usage.ru_maxrss })
}

fn middle(costs: &[Cost]) -> Option<f64> {
    median(costs.iter().map(|cost| cost.wall.as_secs_f64() * 1e3))
}

fn row(name: &str, costs: &[Cost], base: f64) -> Option<Value> {
    let ms = middle(costs)?;
    let peak = costs.iter().map(|cost| cost.peak_kib).max()?;
    Some(json!({"name": name, "ms": ms, "ratio": ms / base, "peak_kib": peak}))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_service_comes_once_and_the_first_ones_on_the_guests_address() {
        let text = rules(0, 3000);
        let services: BTreeSet<&str> = text.lines().filter(|line| line.starts_with("-A")).collect();
        assert_eq!(services.len(), 3000);
        let on_first = services.iter().filter(|line| line.starts_with(&format!("-A -t {FIRST}:"))).count();
        assert_eq!(on_first, 2768);
        assert_eq!(text.lines().count(), 9000);
        assert_eq!(rules(0, 10) + &rules(10, 20), rules(0, 20));
    }
}
