//! What must not bring the sidecar down, as runs with numbers: `cargo xtask reliability` plays them in full, and the
//! scenarios `serve_*` in short.

pub mod load;
pub mod overload;
pub mod process;
pub mod soak;
pub mod sources;
pub mod trouble;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::{host, node};

/// What the line with a result begins with; `xtask/src/reliability.rs` looks for it.
const RESULT: &str = "result ";

/// One run.
struct Run {
    name: &'static str,
    play: fn(&mut Lab, Duration) -> Result<Value>,
}

const fn run_of(name: &'static str, play: fn(&mut Lab, Duration) -> Result<Value>) -> Run {
    Run { name, play }
}

/// All of them, in full. The time is the soak's.
const ALL: &[Run] = &[
    run_of("sigkill", |lab, _| trouble::sigkill(lab, 5)),
    run_of("two_instances", |lab, _| trouble::two_instances(lab)),
    run_of("disk_full", |lab, _| trouble::disk_full(lab)),
    run_of("module_reloaded", |lab, _| trouble::module_reloaded(lab, 10)),
    run_of("services_changed", |lab, _| trouble::services_changed(lab, 10_000)),
    run_of("clock_stepped", |lab, _| trouble::clock_stepped(lab, &[3600, -7200, 3600])),
    run_of("kubelet_gone", |lab, _| sources::kubelet_gone(lab)),
    run_of("api_gone", |lab, _| sources::api_gone(lab)),
    run_of("netns_churn", |lab, _| trouble::netns_churn(lab, 1000)),
    run_of("sigstop", |lab, _| trouble::sigstop(lab, Duration::from_secs(10), &[])),
    run_of("ring_minimum", |lab, _| trouble::ring_minimum(lab, Duration::from_secs(10))),
    run_of("overload", |lab, _| overload::overload(lab, Duration::from_secs(30), &[])),
    run_of("overload_recorded", |lab, _| {
        overload::overload(lab, Duration::from_secs(30), &["--record", "/run/overload"])
    }),
    run_of("soak", soak::soak),
];

/// Plays the runs that are named, or all, and reports each to the host as one line of JSON.
pub(crate) fn run(arguments: &[String]) -> Result<u8> {
    let Some((minutes, names)) = arguments.split_first() else { bail!("reliability MINUTES [RUN…]") };
    let time = Duration::from_secs(60 * minutes.parse::<u64>()?);
    if let Some(unknown) = names.iter().find(|name| ALL.iter().all(|run| run.name != **name)) {
        let known: Vec<_> = ALL.iter().map(|run| run.name).collect();
        bail!("there is no run {unknown}; there are {}", known.join(", "));
    }
    node::set_up()?;
    let mut failed = false;
    for run in ALL.iter().filter(|run| names.is_empty() || names.iter().any(|name| name == run.name)) {
        host::say(&format!("{} …", run.name));
        let begun = Instant::now();
        let mut lab = Lab::fresh()?;
        let outcome = (run.play)(&mut lab, time);
        failed |= outcome.is_err();
        if outcome.is_err() {
            host::say(&lab.notes().join("\n"));
        }
        let (numbers, failure) = match outcome {
            Ok(numbers) => (numbers, None),
            Err(error) => (Value::Null, Some(format!("{error:#}"))),
        };
        let result = json!({
            "run": run.name,
            "passed": failure.is_none(),
            "took_s": begun.elapsed().as_secs_f64(),
            "numbers": numbers,
            "failure": failure,
        });
        host::result(run.name, failure.is_none(), begun.elapsed());
        host::say(&format!("{RESULT}{result}"));
    }
    Ok(u8::from(failed))
}
