//! Runs the scenarios one after the other and reports each to the host.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::lab::Lab;
use crate::scenarios::{ALL, Scenario, WITH_CGROUP1, WITH_CONTAINERS};
use crate::{host, node};

/// What a guest of one kind plays.
struct Table {
    scenarios: &'static [Scenario],
    /// Makes the node, once.
    set_up: fn() -> Result<()>,
    /// Brings it into the state that each scenario starts from.
    fresh: fn() -> Result<Lab>,
    /// Namespaces whose packets tell why a scenario failed.
    captured: &'static [&'static str],
}

const NODE: Table =
    Table { scenarios: ALL, set_up: node::set_up, fresh: Lab::fresh, captured: &["node", "pod", "backend"] };
const CONTAINERS: Table = Table {
    scenarios: WITH_CONTAINERS,
    set_up: node::set_up_without_pods,
    fresh: Lab::without_pods,
    captured: &["node"],
};
const CGROUP1: Table = Table { scenarios: WITH_CGROUP1, ..CONTAINERS };

/// Runs the scenarios of a table whose name contains a text.
pub(super) fn run(arguments: &[String]) -> Result<u8> {
    let [table, filter] = arguments else { bail!("test TABLE FILTER") };
    let table = match table.as_str() {
        "node" => &NODE,
        "containers" => &CONTAINERS,
        "cgroup1" => &CGROUP1,
        other => bail!("there is no table {other}"),
    };
    (table.set_up)()?;
    let mut failed = false;
    for scenario in table.scenarios.iter().filter(|scenario| scenario.name.contains(filter.as_str())) {
        let start = Instant::now();
        let outcome = play(table, scenario);
        host::result(scenario.name, outcome.is_ok(), start.elapsed());
        if let Err(failure) = outcome {
            failed = true;
            host::say(&failure);
            host::say(&captured(table, scenario));
        }
    }
    Ok(u8::from(failed))
}

/// Plays a scenario on a fresh lab; what went wrong is text with everything that was noted.
fn play(table: &Table, scenario: &Scenario) -> Result<(), String> {
    let mut lab = (table.fresh)().map_err(|error| format!("{error:#}"))?;
    let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.play)(&mut lab)));
    match outcome.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_text(panic.as_ref())))) {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("{error:#}\n{}", lab.notes().join("\n"))),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// Plays a failed scenario once more under tcpdump and shows what went over the wire. The verdict stays.
fn captured(table: &Table, scenario: &Scenario) -> String {
    let captures: Vec<(&str, Result<Child>)> =
        table.captured.iter().map(|name| (*name, capture(name))).collect();
    std::thread::sleep(Duration::from_secs(1));
    let again = if play(table, scenario).is_ok() { "passed" } else { "failed" };
    let mut text = format!("--- once more, with tcpdump: {again}");
    for (name, capture) in captures {
        let packets = capture.and_then(packets).unwrap_or_else(|error| format!("{error:#}"));
        let _ = write!(text, "\n--- packets seen in {name}\n{packets}");
    }
    text
}

fn capture(name: &str) -> Result<Child> {
    let arguments = ["-Z", "root", "-i", "any", "-nn", "-S", "-l", "-tt", "tcp or icmp or icmp6"];
    let mut command = Command::new(if name == "node" { "tcpdump" } else { "ip" });
    if name != "node" {
        command.args(["netns", "exec", name, "tcpdump"]);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().context("cannot start tcpdump")
}

fn packets(capture: Child) -> Result<String> {
    // tcpdump is told to stop by a signal, or it would keep what it has buffered.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(capture.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    let output = capture.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().take(120).collect();
    Ok(lines.join("\n"))
}
