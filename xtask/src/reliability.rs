//! `cargo xtask reliability`: what must not bring the sidecar down, in full, in a virtual machine. Numbers go into
//! target/reliability.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::setup::kernels::{self, Kernel};
use crate::vm::{Guest, Kind, Line, boot};
use crate::{bench, build, setup, workspace};

/// What a line with a result begins with; `tests/src/reliability/mod.rs` writes it.
const RESULT: &str = "result ";
/// Longest time for all runs but the soak.
const OTHERS: Duration = Duration::from_mins(30);

/// Let the sidecar run for long, under overload, and while things around it break, and count.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Kernels to boot: a list such as 6.1,6.12, or all (5.10, 6.1, 6.12, 7.2)
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// How long the soak runs
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Runs to play, such as soak or overload; all if none is named
    #[arg(value_name = "RUN")]
    runs: Vec<String>,
}

/// Plays the runs on each kernel, prints a table, and keeps the numbers.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let wanted = kernels::parse_list(&arguments.kernel)?;
    setup::everything(&wanted, false)?;
    let binaries = build::static_binaries(&["probe-user", "portclash-tests"])?;
    let mut failed = false;
    for kernel in wanted {
        let mut plan = vec!["reliability".to_owned(), arguments.minutes.to_string()];
        plan.extend(arguments.runs.iter().cloned());
        let guest = Guest {
            init: binaries.join("lab-init"),
            portclash: Some(binaries.join("portclash")),
            files: Vec::new(),
            programs: &[],
            kind: Kind::Node,
            plan,
        };
        println!("booting Linux {}", kernel.name);
        let deadline = OTHERS + Duration::from_mins(arguments.minutes);
        let mut results = Vec::new();
        let status = boot(&Kernel::find(kernel.name)?, &guest, deadline, |line| {
            let Line::Text(text) = line else { return Ok(()) };
            let Some(text) = text.strip_prefix(RESULT) else {
                println!("    {text}");
                return Ok(());
            };
            let result: Value = serde_json::from_str(text).context("a result is no JSON")?;
            println!("{}", row(kernel.name, &result));
            // Each as soon as it is there: the next may bring the guest down.
            keep(kernel.name, &result)?;
            results.push(result);
            Ok(())
        })?;
        println!("\nkernel {}:", kernel.name);
        for result in &results {
            println!("{}", row(kernel.name, result));
        }
        failed |= status != 0 || results.is_empty();
    }
    println!("written to {}", folder().display());
    Ok(ExitCode::from(u8::from(failed)))
}

/// `| kernel | run | passed | numbers |`, as docs/reliability.md has it.
fn row(kernel: &str, result: &Value) -> String {
    let text = |key: &str| result.get(key).and_then(Value::as_str).unwrap_or_default();
    let passed = result.get("passed").and_then(Value::as_bool) == Some(true);
    let numbers = result.get("numbers").and_then(Value::as_object);
    let numbers: Vec<String> =
        numbers.into_iter().flatten().map(|(name, value)| format!("{name} {value}")).collect();
    let numbers = if passed { numbers.join(", ") } else { text("failure").to_owned() };
    format!("| {kernel} | {} | {} | {numbers} |", text("run"), if passed { "passed" } else { "failed" })
}

fn folder() -> PathBuf {
    workspace::set_up("reliability")
}

fn keep(kernel: &str, result: &Value) -> Result<()> {
    let name = result.get("run").and_then(Value::as_str).context("a result without a name")?;
    let folder = folder();
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("{kernel}-{name}.json"));
    let kept = json!({"kernel": kernel, "machine": bench::machine(true), "result": result});
    std::fs::write(&path, format!("{kept:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}
