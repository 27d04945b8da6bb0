//! Long and steady: connects that are fine, and now and then one that collides.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::load::{begin, remote, services};
use super::process::{Series, Usage};
use crate::bench::client::Server;
use crate::host;
use crate::lab::Lab;
use crate::process::sysctl;
use crate::sidecar::Sidecar;

/// Connects per second that are fine, as far as the machine can.
const PACE: u32 = 1000;
/// Service ports, used one after the other, so that each is left alone for two minutes.
const PORTS: u16 = 120;
const FIRST: u16 = 38_000;
const FOLDER: &str = "/run/soak";
/// How far resident memory may move after the warm-up, KiB.
const FLAT_KIB: u64 = 1024;

/// Runs for so long.
pub fn soak(lab: &mut Lab, time: Duration) -> Result<Value> {
    services(FIRST, PORTS)?;
    // Each connect leaves an entry for some seconds. Where the table is full, the kernel drops SYNs, also those that were to
    // collide: a failure, but another one.
    sysctl("net/netfilter/nf_conntrack_max", "262144")?;
    // The whole way: captures that are limited, so that old ones go.
    let arguments =
        ["--record", FOLDER, "--record-files", "50", "--repeat-every", "1m", "--check-every", "30s"];
    let running = Sidecar::start(&arguments)?;
    let server = Server::start()?;
    let steady = std::thread::spawn(move || server.paced(time, &[], PACE));
    let warm_up = time / 6;
    let begun = Instant::now();
    let (mut made, mut series, mut second) = (0_u64, Series::default(), 0_u32);
    while begun.elapsed() < time {
        let port = FIRST + u16::try_from(made % u64::from(PORTS))?;
        let socket = begin(port, remote()?)?;
        made += 1;
        std::thread::sleep(Duration::from_millis(300));
        drop(socket);
        second += 1;
        if second.is_multiple_of(15) {
            // As often as a scraper usually asks.
            let metrics = running.metrics()?;
            let usage = Usage::of(running.pid())?;
            if begun.elapsed() > warm_up {
                series.push(usage);
            }
            host::say(&format!(
                "soak: {} s, {made} collisions made, {} found, {} connects, lost {}, {} KiB resident, {} descriptors",
                begun.elapsed().as_secs(),
                metrics.count("portclash_incidents_total", &["verdict=\"collision\""]),
                metrics.count("portclash_connects_total", &[]),
                metrics.lost(),
                usage.resident_kib,
                usage.fds,
            ));
        }
        std::thread::sleep((Duration::from_secs(1) * second).saturating_sub(begun.elapsed()));
    }
    let rate = steady.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    finish(lab, running, &Made { collisions: made, connects: rate.connects, time: begun.elapsed() }, &series)
}

struct Made {
    collisions: u64,
    connects: u64,
    time: Duration,
}

fn finish(lab: &mut Lab, mut running: Sidecar, made: &Made, series: &Series) -> Result<Value> {
    // The last ones are concluded 250 ms after their end.
    let collision = ["verdict=\"collision\""];
    let collisions = f64::from(u32::try_from(made.collisions)?);
    let enough = |found: Option<f64>| found.is_some_and(|found| found >= collisions);
    let waited =
        running.wait_for_metric("portclash_incidents_total", &collision, Duration::from_secs(20), enough);
    let written = running.wait_for_captures(u32::try_from(made.collisions)?);
    let metrics = running.metrics()?;
    let usage = Usage::of(running.pid())?;
    let ready = running.ready_after();
    let stopped = running.stop()?;
    lab.note("portclash serve said", &stopped.messages);
    let found = metrics.count("portclash_incidents_total", &collision);
    let told: u64 = stopped.repeats.iter().filter_map(|line| line.get("count")?.as_u64()).sum();
    let told = told + u64::try_from(stopped.incidents.len())?;
    let result = json!({
        "seconds": made.time.as_secs(),
        "connects_made": made.connects,
        "connects_per_second": made.connects / made.time.as_secs().max(1),
        "connects_seen": metrics.count("portclash_connects_total", &[]),
        "collisions_made": made.collisions,
        "collisions_found": found,
        "collisions_told": told,
        "lost": metrics.lost(),
        "missed": metrics.count("portclash_events_lost_total", &["reason=\"missed\""]),
        "after_warm_up": series.json(),
        "resident_spread_kib": series.spread_kib(),
        "fd_spread": series.fd_spread(),
        "cpu_seconds": usage.cpu.as_secs_f64(),
        "core_percent": usage.cpu.as_secs_f64() / made.time.as_secs_f64() * 100.0,
        "ready_ms": u64::try_from(ready.as_millis())?,
        "captures_written": metrics.count("portclash_recorder_captures_written_total", &[]),
        "captures_failed": metrics.count("portclash_recorder_captures_failed_total", &[]),
        "captures_kept": metrics.count("portclash_recorder_captures", &[]),
    });
    lab.note("result", &format!("{result:#}"));
    waited.context("collisions are missing")?;
    written.context("captures are missing")?;
    ensure!(found == made.collisions, "{} collisions were made, {found} found: {result:#}", made.collisions);
    let captures = metrics.count("portclash_recorder_captures_written_total", &[]);
    ensure!(captures == found, "{found} were found, {captures} captures written: {result:#}");
    ensure!(told == found, "{found} were found, {told} told: {result:#}");
    ensure!(metrics.lost() == 0, "events were lost: {result:#}");
    ensure!(series.spread_kib() <= FLAT_KIB, "resident memory moves: {result:#}");
    ensure!(series.fd_spread() <= 2, "file descriptors move: {result:#}");
    Ok(result)
}
