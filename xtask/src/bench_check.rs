//! `cargo xtask bench check`: how long it takes to judge a large service table, next to awk on the same file, and next to
//! `ipvsadm -Ln` where the table is a kernel's.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{emulated, machine};
use crate::setup::kernels::{self, Kernel};
use crate::vm::{Guest, Kind};
use crate::{build, command, setup, workspace};

/// The least that answers the question: ports in the range that are not reserved, each once.
const AWK: &str = r#"$1 == "TCP" { n = split($2, part, ":"); port = part[n]
  if (port >= 1024 && port <= 65000 && port != 50000) exposed[port] = 1 }
END { for (port in exposed) count++; print count + 0 }"#;

#[derive(clap::Args)]
pub(super) struct Check {
    /// How many services, with two backends each
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    services: u32,
    /// How often each way is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Boot these kernels instead, load the services into their tables, and compare with `ipvsadm -Ln`: a list such as
    /// 6.1,6.12, or all
    #[arg(long)]
    kernel: Option<String>,
}

/// What one run of a program took.
struct Cost {
    wall: Duration,
    /// Highest resident size, KiB.
    peak_kib: i64,
}

/// Runs the bench, prints a table, and keeps the numbers in target/bench/check.json, or check-KERNEL.json.
pub(super) fn run(arguments: &Check) -> Result<ExitCode> {
    match &arguments.kernel {
        Some(list) => {
            for kernel in kernels::parse_list(list)? {
                live(arguments, kernel)?;
            }
        }
        None => of_a_file(arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// In a guest whose kernel has the table.
fn live(arguments: &Check, kernel: &'static kernels::Wanted) -> Result<()> {
    setup::everything(&[kernel], false)?;
    let binaries = build::static_binaries(&["probe-user", "portclash-tests"])?;
    let numbers = [arguments.rounds, arguments.services].map(|number| number.to_string());
    let guest = Guest {
        init: binaries.join("lab-init"),
        portclash: Some(binaries.join("portclash")),
        files: Vec::new(),
        programs: &[],
        kind: Kind::Node,
        plan: ["bench", "check-vm"].map(str::to_owned).into_iter().chain(numbers).collect(),
    };
    println!("booting Linux {}", kernel.name);
    let mut result = emulated(&Kernel::find(kernel.name)?, &guest)?;
    if let Some(fields) = result.as_object_mut() {
        fields.insert("machine".to_owned(), machine(true));
    }
    keep(&format!("check-{}", kernel.name), &result)
}

/// Prints a result and writes it to a file.
fn keep(name: &str, result: &Value) -> Result<()> {
    print!("{}", text(result));
    let folder = workspace::set_up("bench");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, format!("{result:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

fn of_a_file(arguments: &Check) -> Result<()> {
    let mut cargo = workspace::cargo();
    command::run(cargo.args(["build", "--release", "--package", "probe-user"]))?;
    let portclash = workspace::build_directory()?.join("release/portclash");
    let folder = workspace::set_up("bench");
    std::fs::create_dir_all(&folder)?;
    let table = folder.join("services.txt");
    std::fs::write(&table, listing(arguments.services))
        .with_context(|| format!("cannot write {}", table.display()))?;
    let check = |portclash: &Path| {
        let mut check = Command::new(portclash);
        check.args(["check", "-o", "json", "--local-port-range", "1024 65000", "--reserved-ports", "50000"]);
        check.arg("--ipvs").arg(&table);
        check
    };
    let awk = || {
        let mut awk = Command::new("awk");
        awk.arg(AWK).arg(&table);
        awk
    };
    same_answer(&mut check(&portclash), &mut awk())?;
    let ways: [(&str, &dyn Fn() -> Command); 2] = [("awk", &awk), ("portclash check", &|| check(&portclash))];
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(), Vec::new()];
    for _ in 0..arguments.rounds {
        for ((_, way), costs) in ways.iter().zip(&mut costs) {
            costs.push(measure(&mut way())?);
        }
    }
    std::fs::remove_file(&table)?;
    let base = costs.first().and_then(|costs| middle(costs)).context("no round")?;
    let rows: Vec<Value> =
        ways.iter().zip(&costs).filter_map(|((name, _), costs)| row(name, costs, base)).collect();
    let result = json!({
        "services": arguments.services, "rounds": arguments.rounds, "ways": rows, "machine": machine(false),
    });
    keep("check", &result)
}

/// As `ipvsadm -Ln` prints it: the same ports on many addresses, as kube-proxy makes them.
fn listing(services: u32) -> String {
    let mut text =
        String::from("IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n");
    for number in 0..services {
        let (address, port) = (number / 2768, 30_000 + number % 2768);
        let _ = writeln!(text, "TCP  10.{}.{}.1:{port} rr", address / 256, address % 256);
        for backend in 0..2 {
            let backend = number * 2 + backend;
            let (high, low) = (backend / 256 % 256, backend % 256);
            let _ = writeln!(text, "  -> 10.244.{high}.{low}:8080            Masq    1      0          0");
        }
    }
    text
}

/// A comparison of times is worth nothing if the answers differ.
fn same_answer(check: &mut Command, awk: &mut Command) -> Result<()> {
    let report = check.output().with_context(|| format!("cannot start: {}", command::shown(check)))?;
    let report: Value = serde_json::from_slice(&report.stdout).context("the check gave no JSON")?;
    let counted: u64 = command::output(awk)?.trim().parse().context("awk gave no number")?;
    let exposed = report.get("exposed_count").and_then(Value::as_u64);
    ensure!(exposed == Some(counted), "portclash counts {exposed:?} exposed ports, awk {counted}");
    Ok(())
}

fn measure(program: &mut Command) -> Result<Cost> {
    program.stdin(Stdio::null()).stdout(File::options().write(true).open("/dev/null")?);
    let begin = Instant::now();
    let child = program.spawn().with_context(|| format!("cannot start: {}", command::shown(program)))?;
    let pid = libc::pid_t::try_from(child.id())?;
    // SAFETY: rusage is plain numbers, for which all zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: both pointers are to variables of this frame; the child is ours and is waited for only here.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    ensure!(waited == pid, "cannot wait for {}", command::shown(program));
    Ok(Cost { wall: begin.elapsed(), peak_kib: usage.ru_maxrss })
}

fn middle(costs: &[Cost]) -> Option<f64> {
    let mut times: Vec<f64> = costs.iter().map(|cost| cost.wall.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

fn row(name: &str, costs: &[Cost], base: f64) -> Option<Value> {
    let ms = middle(costs)?;
    let peak = costs.iter().map(|cost| cost.peak_kib).max()?;
    Some(json!({"name": name, "ms": ms, "ratio": ms / base, "peak_kib": peak}))
}

fn text(result: &Value) -> String {
    let services = result.get("services").and_then(Value::as_u64).unwrap_or_default();
    let ways = result.get("ways").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let name = |way: &Value| way.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let of = format!("of {}", ways.first().map(name).unwrap_or_default());
    let heading = format!("{services} services");
    let mut text = format!("\n{heading:<34}{:>10}{of:>16}{:>12}\n", "ms", "peak MiB");
    for way in ways {
        let number = |name: &str| way.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let (name, peak) = (name(way), number("peak_kib") / 1024.0);
        let _ = writeln!(text, "{name:<34}{:>10.1}{:>16.3}{peak:>12.1}", number("ms"), number("ratio"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_has_every_service_once() {
        let text = listing(3000);
        let mut rows: Vec<&str> = text.lines().filter(|line| line.starts_with("TCP")).collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), 3000);
    }

    #[test]
    fn a_way_is_one_line() {
        let way = json!({"name": "awk", "ms": 20.04, "ratio": 1.0, "peak_kib": 2048});
        let text = text(&json!({"services": 5, "ways": [way]}));
        let row: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(row, ["awk", "20.0", "1.000", "2.0"]);
    }
}
