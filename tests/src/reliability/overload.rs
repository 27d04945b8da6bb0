//! As many collisions as the machine can make: what is not told is counted, exactly.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::load::{Flood, services};
use super::process::Usage;
use crate::lab::Lab;
use crate::sidecar::{Sidecar, Stopped};

const FIRST: u16 = 40_000;
/// Service ports of each process that connects.
const PORTS: u16 = 250;
const PROCESSES: u16 = 4;

/// Several processes collide for so long.
pub fn overload(lab: &mut Lab, time: Duration, arguments: &[&str]) -> Result<Value> {
    services(FIRST, PORTS * PROCESSES)?;
    let running = Sidecar::start(arguments)?;
    let floods: Vec<Flood> = (0..PROCESSES)
        .map(|number| Flood::start(FIRST + number * PORTS, PORTS, time))
        .collect::<Result<_>>()?;
    let made = floods.into_iter().map(Flood::wait).sum::<Result<u64>>()?;
    settle(lab, running, made, time)
}

/// Waits until what came is taken, ends it, and holds what it told against what was made.
pub fn settle(lab: &mut Lab, mut running: Sidecar, made: u64, time: Duration) -> Result<Value> {
    // It answers between two batches of events; when it answers with the same twice, nothing comes any more.
    let seen = |sidecar: &Sidecar| -> Result<[u64; 3]> {
        let metrics = sidecar.metrics()?;
        let incidents = metrics.count("portclash_incidents_total", &[]);
        Ok([incidents, metrics.lost(), metrics.count("portclash_open_connections", &[])])
    };
    running.wait_until("nothing comes any more", Duration::from_mins(1), |sidecar| {
        let before = seen(sidecar)?;
        std::thread::sleep(Duration::from_millis(700));
        Ok(seen(sidecar)? == before)
    })?;
    let metrics = running.metrics()?;
    let usage = Usage::of(running.pid())?;
    let stopped = running.stop()?;
    let all = told(&stopped);
    let lost = |labels: &[&str]| metrics.count("portclash_events_lost_total", labels);
    let unseen = lost(&["program=\"connect\"", "reason=\"ring_full\""]);
    let missed = lost(&["program=\"connect\"", "reason=\"missed\""]);
    let result = json!({
        "seconds": time.as_secs_f64(),
        "connects_made": made,
        "connects_per_second": f64::from(u32::try_from(made)?) / time.as_secs_f64(),
        "told": all,
        "told_in_full": stopped.incidents.len(),
        "connects_lost_ring_full": unseen,
        "connects_missed_at_most": missed,
        "events_lost": metrics.lost(),
        "concluded_early": metrics.count("portclash_events_lost_total", &["reason=\"too_many\""]),
        "difference": i64::try_from(made)? - i64::try_from(all + unseen)?,
        "resident_kib": usage.resident_kib,
        "peak_kib": usage.peak_kib,
        "cpu_seconds": usage.cpu.as_secs_f64(),
    });
    lab.note("portclash serve said", &stopped.messages);
    lab.note("result", &format!("{result:#}"));
    // A connect whose both ends the kernel skipped may be missing; it counts them, as an upper bound.
    ensure!(
        all + unseen <= made && made <= all + unseen + missed,
        "{made} connects were made; {all} told, {unseen} lost: {result:#}"
    );
    Ok(result)
}

/// Incidents that were told, in full or as a number.
pub fn told(stopped: &Stopped) -> u64 {
    let repeats: u64 = stopped.repeats.iter().filter_map(|line| line.get("count")?.as_u64()).sum();
    repeats + stopped.incidents.len() as u64
}
