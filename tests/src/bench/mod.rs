//! What tracing costs: connects per second with and without a tracer, run time of each program, memory.
//!
//! `cargo xtask bench connect` runs it, in a virtual machine or natively; the result is one line of JSON.
//! `cargo xtask bench ports` does the same for `portclash ports`, `cargo xtask bench check --kernel` for `portclash check`.

mod check;
pub(crate) mod client;
mod counting;
mod memory;
mod observer;
mod programs;
mod sidecar;

use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::host;
use crate::process::run as run_tool;
use client::{Rate, Server};
use observer::{ALL, NATIVE, Observer};

/// How long the client connects each time.
const SPELL: Duration = Duration::from_secs(1);
/// Services that are loaded while rates are taken.
const SERVICES: u32 = 10_000;
/// Services that must fit.
const MOST_SERVICES: u32 = 200_000;
/// What the line with the result begins with; `xtask/src/bench.rs` looks for it.
const RESULT: &str = "result ";

/// `vm ROUNDS`, `check-vm ROUNDS SERVICES`, `native ROUNDS`, the same with `ports-` or `sidecar-` in front, or `client ADDRESS MILLISECONDS MOST`, which is the
/// process that connects.
pub(crate) fn run(arguments: &[String]) -> Result<u8> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["client", server, milliseconds, most] => client::run(server, milliseconds, most)?,
        ["vm", rounds] => {
            run_tool("ip link set lo up")?;
            let result = measure(rounds.parse()?, ALL, host::say)?;
            host::say(&format!("{RESULT}{result}"));
        }
        ["ports-vm", rounds] => {
            run_tool("ip link set lo up")?;
            let result = counting::measure(rounds.parse()?, counting::ALL, host::say)?;
            host::say(&format!("{RESULT}{result}"));
        }
        ["sidecar-vm", rounds] => {
            run_tool("ip link set lo up")?;
            let result = sidecar::measure(rounds.parse()?, false, host::say)?;
            host::say(&format!("{RESULT}{result}"));
        }
        ["check-vm", rounds, services] => {
            let result = check::measure(rounds.parse()?, services.parse()?, host::say)?;
            host::say(&format!("{RESULT}{result}"));
        }
        [how @ ("native" | "ports-native" | "sidecar-native"), rounds] => {
            // The machine's own sockets and settings stay out of it. No thread runs yet, so all that come are in there.
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .context("namespaces for the bench")?;
            mount_tracefs()?;
            run_tool("ip link set lo up")?;
            let say = |text: &str| eprintln!("{text}");
            let result = match *how {
                "native" => measure(rounds.parse()?, NATIVE, say)?,
                "sidecar-native" => sidecar::measure(rounds.parse()?, true, say)?,
                _ => counting::measure(rounds.parse()?, counting::NATIVE, say)?,
            };
            println!("{RESULT}{result}");
        }
        _ => anyhow::bail!("unknown bench {arguments:?}"),
    }
    Ok(0)
}

/// Part of the stable hooks needs it, and not every machine has it mounted. Seen by this process and its children.
fn mount_tracefs() -> Result<()> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("a mount namespace of its own")?;
    let tracefs = Some("tracefs");
    match mount(tracefs, "/sys/kernel/tracing", tracefs, MsFlags::empty(), None::<&str>) {
        // It is there already.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(error).context("cannot mount tracefs"),
    }
}

fn measure(rounds: usize, observers: &[Observer], say: impl Fn(&str)) -> Result<Value> {
    let services = memory::write_services(SERVICES)?;
    let server = Server::start()?;
    // The first spell pays for cold caches and untranslated code.
    server.rate(SPELL, &[])?;
    let (mut bare, mut seen) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        bare.push(server.rate(SPELL, &[])?);
        for observer in observers {
            let rate = observer.rate(&server, &services, SPELL);
            bare.push(server.rate(SPELL, &[])?);
            say(&described(round, observer.name, rate.as_ref(), &bare));
            seen.push((observer.name, bare.len() - 1, rate));
        }
    }
    let mut rows = vec![control(&bare)];
    for observer in observers {
        let own = seen.iter().filter(|(name, ..)| *name == observer.name);
        let taken: Vec<_> = own.map(|(_, after, rate)| (*after, rate)).collect();
        rows.push(row(observer.name, &bare, &taken));
    }
    let mut run_times = Vec::new();
    for observer in observers.iter().filter(|observer| observer.hooks.is_some()) {
        say(&format!("run time of the programs: {}", observer.name));
        run_times.push(programs::run_times(&server, observer, &services, SPELL)?);
    }
    let mut sizes = Vec::new();
    for count in [SERVICES, MOST_SERVICES] {
        say(&format!("memory with {count} services"));
        sizes.push(memory::measure(count)?);
    }
    Ok(json!({
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "cpus": std::thread::available_parallelism()?.get(),
        "rounds": rounds,
        "spell_ms": u64::try_from(SPELL.as_millis())?,
        "services": SERVICES,
        "rates": rows,
        "programs": run_times,
        "memory": sizes,
    }))
}

fn described(round: usize, name: &str, rate: Result<&Rate, &anyhow::Error>, bare: &[Rate]) -> String {
    match rate {
        Ok(rate) => {
            let ratio = ratio(rate, bare, bare.len() - 1, Rate::undisturbed);
            format!("round {round}: {name}: {:.0} connects/s, {ratio:.3} of bare", rate.per_second())
        }
        Err(error) => format!("round {round}: {name}: {error:#}"),
    }
}

/// The rate against the mean of the two bare spells around it: drift of the machine cancels. `after` is the index of
/// the bare spell that followed.
fn ratio(rate: &Rate, bare: &[Rate], after: usize, of: fn(&Rate) -> f64) -> f64 {
    let at = |index: usize| bare.get(index).map_or(f64::NAN, of);
    of(rate) / f64::midpoint(at(after.wrapping_sub(1)), at(after))
}

/// Bare spells against their bare neighbours: what differs there is noise.
fn control(bare: &[Rate]) -> Value {
    let middles = bare.windows(3).filter_map(|window| match window {
        [before, middle, after] => Some((*middle, [*before, *after])),
        _ => None,
    });
    let middles: Vec<_> = middles.collect();
    let ratios = |of: fn(&Rate) -> f64| -> Vec<f64> {
        middles.iter().map(|(middle, around)| ratio(middle, around, 1, of)).collect()
    };
    summary("no tracer", bare, &ratios(Rate::undisturbed), &ratios(Rate::per_second), &[])
}

fn row(name: &str, bare: &[Rate], taken: &[(usize, &Result<Rate>)]) -> Value {
    let good: Vec<(usize, Rate)> =
        taken.iter().filter_map(|(after, rate)| Some((*after, *rate.as_ref().ok()?))).collect();
    let failures: Vec<String> =
        taken.iter().filter_map(|(_, rate)| Some(format!("{:#}", rate.as_ref().err()?))).collect();
    let ratios = |of: fn(&Rate) -> f64| -> Vec<f64> {
        good.iter().map(|(after, rate)| ratio(rate, bare, *after, of)).collect()
    };
    let rates: Vec<Rate> = good.iter().map(|(_, rate)| *rate).collect();
    summary(name, &rates, &ratios(Rate::undisturbed), &ratios(Rate::per_second), &failures)
}

fn summary(name: &str, rates: &[Rate], undisturbed: &[f64], whole: &[f64], failures: &[String]) -> Value {
    json!({
        "name": name,
        "per_second": median(rates.iter().map(Rate::per_second)),
        "undisturbed_per_second": median(rates.iter().map(Rate::undisturbed)),
        "ratio": median(undisturbed.iter().copied()),
        "ratio_low": quantile(undisturbed, 1),
        "ratio_high": quantile(undisturbed, 3),
        "whole_ratio": median(whole.iter().copied()),
        "spells": rates.len(),
        "failures": failures,
    })
}

/// The value below which a number of quarters of the values lie.
fn quantile(values: &[f64], quarters: usize) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? * quarters / 4).copied()
}

/// `None` without values.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied()?;
    let lower = values.get((values.len() - 1) / 2).copied()?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32) -> Rate {
        Rate::new(per_second.into(), Duration::from_secs(1), Duration::from_secs(8) / per_second)
    }

    fn rates(per_second: &[u32]) -> Vec<Rate> {
        per_second.iter().map(|&connects| rate(connects)).collect()
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), Some(2.5));
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn quarters_are_those_of_the_sorted_values() {
        assert_eq!(quantile(&[5.0, 1.0, 4.0, 2.0, 3.0], 1), Some(2.0));
        assert_eq!(quantile(&[5.0, 1.0, 4.0, 2.0, 3.0], 3), Some(4.0));
        assert_eq!(quantile(&[], 1), None);
    }

    #[test]
    fn steady_drift_of_the_machine_cancels() {
        let bare = rates(&[1000, 800, 600]);
        let seen = rates(&[900, 700]);
        let taken = [(1, Ok(seen[0])), (2, Ok(seen[1]))];
        let taken: Vec<_> = taken.iter().map(|(after, rate)| (*after, rate)).collect();
        for row in [row("x", &bare, &taken), control(&bare)] {
            assert!((row["ratio"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{row}");
            assert!((row["whole_ratio"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{row}");
        }
    }

    #[test]
    fn a_failed_spell_is_said_and_not_counted() {
        let bare = rates(&[1000, 1000]);
        let failed = Err(anyhow::anyhow!("no such program"));
        let row = row("x", &bare, &[(1, &failed)]);
        assert_eq!(row["spells"], 0);
        assert!(row["ratio"].is_null());
        assert_eq!(row["failures"][0], "no such program");
    }
}
