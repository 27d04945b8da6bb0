//! What goes wrong around it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use serde_json::{Value, json};

use super::load::{Flood, begin, remote, services};
use super::overload::{settle, told};
use super::process::{Series, Usage};
use crate::lab::{Lab, restore};
use crate::node::{BACKEND, NODE, ipvsadm};
use crate::scenarios::changes::{load, unload};
use crate::sidecar::Sidecar;

/// A collision from a port of the node, for so long.
pub fn collide(port: u16, time: Duration) -> Result<()> {
    let socket = begin(port, remote()?)?;
    std::thread::sleep(time);
    drop(socket);
    Ok(())
}

const SHORT: Duration = Duration::from_millis(300);
const COLLISION: [&str; 1] = ["verdict=\"collision\""];

/// Waits until so many collisions are counted.
pub fn wait_for_collisions(running: &mut Sidecar, count: u32) -> Result<()> {
    let limit = Duration::from_secs(20);
    let enough = |found: Option<f64>| found.is_some_and(|found| found >= f64::from(count));
    running.wait_for_metric("portclash_incidents_total", &COLLISION, limit, enough)
}

/// BPF programs, maps and links that are there now.
fn bpf_objects() -> Result<Vec<String>> {
    let mut all = Vec::new();
    for program in aya::programs::loaded_programs() {
        let program = program?;
        all.push(format!("program {} {}", program.id(), program.name_as_str().unwrap_or_default()));
    }
    for map in aya::maps::loaded_maps() {
        let map = map?;
        all.push(format!("map {} {}", map.id(), map.name_as_str().unwrap_or_default()));
    }
    // Kernels before 5.8 cannot list them.
    all.extend(aya::programs::loaded_links().flatten().map(|link| format!("link {}", link.id())));
    Ok(all)
}

/// Killed without a warning: nothing of it stays in the kernel, and the next one starts as if there had been none.
pub fn sigkill(_: &mut Lab, times: u32) -> Result<Value> {
    services(39_000, 1)?;
    let before = bpf_objects()?;
    let mut most = 0;
    for _ in 0..times {
        let running = Sidecar::start(&["--record", "/run/sigkill"])?;
        let while_it_runs = bpf_objects()?.len();
        ensure!(while_it_runs > before.len() + 5, "{while_it_runs} objects while it runs, {before:?} before");
        most = while_it_runs - before.len();
        let open = begin(39_000, remote()?)?;
        running.signal(Signal::SIGKILL)?;
        let stopped = running.end()?;
        ensure!(stopped.status.is_none(), "it ended with {:?} instead of by the signal", stopped.status);
        drop(open);
        // The kernel frees them some time after the last descriptor is closed.
        let end = Instant::now() + Duration::from_secs(10);
        let mut left = bpf_objects()?;
        while left != before && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
            left = bpf_objects()?;
        }
        ensure!(left == before, "left in the kernel: {left:?}, there was {before:?}");
        let pins = std::fs::read_dir("/sys/fs/bpf").map_or(0, Iterator::count);
        ensure!(pins == 0, "{pins} entries in /sys/fs/bpf");
    }
    let mut again = Sidecar::start(&["--record", "/run/sigkill"])?;
    collide(39_000, SHORT)?;
    wait_for_collisions(&mut again, 1)?;
    again.wait_for_captures(1)?;
    let captures = again.metrics()?.count("portclash_recorder_captures", &[]);
    again.stop()?;
    ensure!(captures == 1, "{captures} captures instead of 1");
    Ok(json!({"kills": times, "bpf_objects_while_it_runs": most, "bpf_objects_left": 0}))
}

/// It does not get to run while collisions come: afterwards all are counted, or counted as lost.
pub fn sigstop(lab: &mut Lab, time: Duration, arguments: &[&str]) -> Result<Value> {
    const FIRST: u16 = 41_000;
    const PORTS: u16 = 250;
    services(FIRST, PORTS)?;
    let running = Sidecar::start(arguments)?;
    running.signal(Signal::SIGSTOP)?;
    let made = Flood::start(FIRST, PORTS, time)?.wait();
    running.signal(Signal::SIGCONT)?;
    settle(lab, running, made?, time)
}

/// The smallest ring: what does not fit is counted.
pub fn ring_minimum(lab: &mut Lab, time: Duration) -> Result<Value> {
    let result = sigstop(lab, time, &["--ring-size", "64K"])?;
    let lost = result.get("connects_lost_ring_full").and_then(Value::as_u64);
    ensure!(lost > Some(0), "nothing was lost: {result:#}");
    Ok(result)
}

fn set_clock(seconds: i64) -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
    let then = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).context("cannot set the clock")
}

/// The clock is set forwards and backwards, each time while a connection is open and once without: durations stay right,
/// nothing hangs, and times follow the clock in the end.
pub fn clock_stepped(lab: &mut Lab, steps: &[i64]) -> Result<Value> {
    let last_port = 39_010 + u16::try_from(steps.len())?;
    services(39_010, last_port - 39_010 + 1)?;
    let mut running = Sidecar::start(&[])?;
    let mut taken = 0;
    for (port, step) in (39_010..).zip(steps) {
        let socket = begin(port, remote()?)?;
        std::thread::sleep(SHORT);
        set_clock(*step)?;
        std::thread::sleep(SHORT);
        drop(socket);
        taken += 1;
        wait_for_collisions(&mut running, taken)?;
        let said = usize::try_from(taken)?;
        running.wait_until("it says that the clock was set", Duration::from_secs(30), |sidecar| {
            Ok(sidecar.messages().matches("the clock was set").count() >= said)
        })?;
    }
    collide(last_port, SHORT)?;
    wait_for_collisions(&mut running, taken + 1)?;
    let now = jiff::Timestamp::now();
    let stopped = running.stop()?;
    lab.note("portclash serve said", &stopped.messages);
    let count = stopped.incidents.len();
    ensure!(count == steps.len() + 1, "{count} incidents for {} steps", steps.len());
    let mut durations = Vec::new();
    for incident in &stopped.incidents {
        let duration = incident.get("duration_ms").and_then(Value::as_u64).context("no duration")?;
        ensure!((250..20_000).contains(&duration), "a duration of {duration} ms: {incident:#}");
        durations.push(duration);
    }
    let last = stopped.incidents.last().and_then(|incident| incident.get("started_at")?.as_str());
    let last: jiff::Timestamp = last.context("no time")?.parse()?;
    let age = now.duration_since(last).as_secs();
    ensure!((-2..60).contains(&age), "the last incident is {age} s old by the clock");
    Ok(json!({"steps_s": steps, "durations_ms": durations, "last_age_s": age}))
}

/// So many services appear in one go, and go again.
pub fn services_changed(_: &mut Lab, count: u16) -> Result<Value> {
    const FIRST: u16 = 42_000;
    let limit = Duration::from_secs(30);
    let mut running = Sidecar::start(&["--record", "/run/many"])?;
    // What a first collision takes, it takes once.
    services(FIRST - 1, 1)?;
    wait_for_services(&mut running, 1)?;
    collide(FIRST - 1, SHORT)?;
    wait_for_collisions(&mut running, 1)?;
    let before = Usage::of(running.pid())?;
    let begun = Instant::now();
    services(FIRST, count)?;
    let made_in = begun.elapsed();
    wait_for_services(&mut running, u32::from(count) + 1)?;
    let known_in = begun.elapsed();
    collide(FIRST + count / 2 + 1, SHORT)?;
    wait_for_collisions(&mut running, 2)?;
    let with_all = Usage::of(running.pid())?;
    // Each another backend: a change of every service.
    let rule =
        |port| format!("-d -t {NODE}:{port} -r {BACKEND}:8443\n-a -t {NODE}:{port} -r {BACKEND}:8444 -m\n");
    let begun = Instant::now();
    restore(&(FIRST..FIRST + count).map(rule).collect::<String>())?;
    let changed_in = begun.elapsed();
    collide(FIRST + count / 2 + 2, SHORT)?;
    wait_for_collisions(&mut running, 3)?;
    ipvsadm("-C")?;
    wait_for_services(&mut running, 0)?;
    let gone = begin(FIRST + count / 2 + 3, remote()?)?;
    std::thread::sleep(SHORT);
    drop(gone);
    // A table that was replaced is kept for 5 s, for connects that are told of late; what is free is given back every 10 s.
    // Pages of the program's file do not count: how many are resident is up to the kernel.
    let may_have = before.anonymous_kib + 2 * 1024;
    let gone = Instant::now();
    running.wait_until("the memory of tables that are gone is given back", 2 * limit, |sidecar| {
        Ok(Usage::of(sidecar.pid())?.anonymous_kib <= may_have)
    })?;
    let given_back_in = gone.elapsed();
    let after = Usage::of(running.pid())?;
    let metrics = running.metrics()?;
    let stopped = running.stop()?;
    ensure!(told(&stopped) == 3, "{} collisions were told instead of 3", told(&stopped));
    ensure!(metrics.lost() == 0, "{} events were lost", metrics.lost());
    let backend = stopped.incidents.get(2).and_then(|incident| incident.pointer("/hijack/backend"));
    ensure!(backend == Some(&json!(format!("{BACKEND}:8444"))), "the changed backend is {backend:?}");
    let ms = |time: Duration| u64::try_from(time.as_millis());
    Ok(json!({
        "services": count,
        "made_in_ms": ms(made_in)?,
        "known_after_ms": ms(known_in)?,
        "changed_in_ms": ms(changed_in)?,
        "memory_given_back_in_ms": ms(given_back_in)?,
        "resident_kib": [before.resident_kib, with_all.resident_kib, after.resident_kib],
        "anonymous_kib": [before.anonymous_kib, with_all.anonymous_kib, after.anonymous_kib],
        "peak_kib": after.peak_kib,
        "cpu_seconds": after.cpu.saturating_sub(before.cpu).as_secs_f64(),
    }))
}

/// IPVS goes and comes back, again and again: with the privileges to hook it anew it finds each time what collides
/// afterwards. Without them it ends, so that whoever started it starts it anew.
pub fn module_reloaded(lab: &mut Lab, times: u16) -> Result<Value> {
    let mut running = Sidecar::start(&["--keep-privileges"])?;
    let mut series = Series::default();
    for time in 0..times {
        reload(&mut running, 39_020 + time)?;
        collide(39_020 + time, SHORT)?;
        wait_for_collisions(&mut running, u32::from(time) + 1)?;
        series.push(Usage::of(running.pid())?);
    }
    let stopped = running.stop()?;
    lab.note("portclash serve said", &stopped.messages);
    for incident in &stopped.incidents {
        let proven = incident.get("confidence").and_then(Value::as_str);
        ensure!(proven == Some("proven"), "the hijack was not seen: {incident:#}");
    }
    ensure!(told(&stopped) == u64::from(times), "{} were told instead of {times}", told(&stopped));
    ensure!(series.fd_spread() <= 2, "file descriptors pile up: {}", series.json());
    let dropped = Sidecar::start(&[])?;
    unload()?;
    load()?;
    let begun = Instant::now();
    let stopped = dropped.end()?;
    let took = begun.elapsed();
    lab.note("portclash serve said", &stopped.messages);
    ensure!(
        stopped.status == Some(3),
        "exit status is {:?}, expected 3:\n{}",
        stopped.status,
        stopped.messages
    );
    ensure!(stopped.messages.contains("privileges"), "it does not say why:\n{}", stopped.messages);
    let mut again = Sidecar::start(&[])?;
    services(39_019, 1)?;
    wait_for_services(&mut again, 1)?;
    collide(39_019, SHORT)?;
    wait_for_collisions(&mut again, 1)?;
    again.stop()?;
    Ok(json!({
        "reloads": times,
        "collisions_found": times,
        "usage": series.json(),
        "without_privileges_ended_after_s": took.as_secs_f64(),
    }))
}

/// The module goes and comes back, with one service.
fn reload(running: &mut Sidecar, port: u16) -> Result<()> {
    unload()?;
    wait_for_services(running, 0)?;
    load()?;
    services(port, 1)?;
    wait_for_services(running, 1)
}

/// Until the sidecar knows so many TCP services: a connect before that is none of them.
fn wait_for_services(running: &mut Sidecar, count: u32) -> Result<()> {
    let tcp = ["protocol=\"tcp\""];
    let limit = Duration::from_secs(30);
    running.wait_for_metric("portclash_services", &tcp, limit, |seen| {
        seen.unwrap_or(0.0).total_cmp(&count.into()).is_eq()
    })
}

/// The disk of the captures is full, and has room again.
pub fn disk_full(lab: &mut Lab) -> Result<Value> {
    const FOLDER: &str = "/run/small";
    std::fs::create_dir_all(FOLDER)?;
    mount(Some("tmpfs"), FOLDER, Some("tmpfs"), MsFlags::empty(), Some("size=256k"))?;
    let outcome = disk_full_in(lab, FOLDER);
    umount2(FOLDER, MntFlags::MNT_DETACH)?;
    outcome
}

fn disk_full_in(lab: &mut Lab, folder: &str) -> Result<Value> {
    services(39_030, 4)?;
    let captures = format!("{folder}/captures");
    let mut running = Sidecar::start(&["--record", &captures])?;
    let names = ["captures_written_total", "captures_failed_total", "up"];
    let is = |sidecar: &Sidecar, expected: [u64; 3]| -> Result<bool> {
        let metrics = sidecar.metrics()?;
        Ok(names.map(|name| metrics.count(&format!("portclash_recorder_{name}"), &[])) == expected)
    };
    let limit = Duration::from_secs(15);
    collide(39_030, SHORT)?;
    wait_for_collisions(&mut running, 1)?;
    running.wait_for_captures(1)?;
    let filler = format!("{folder}/filler");
    // Until nothing more fits.
    let full = std::fs::write(&filler, vec![0; 1 << 20]);
    ensure!(full.is_err(), "the disk does not get full");
    for port in [39_031, 39_032] {
        collide(port, SHORT)?;
    }
    wait_for_collisions(&mut running, 3)?;
    running.wait_until("two failed, and it is down", limit, |sidecar| is(sidecar, [1, 2, 0]))?;
    std::fs::remove_file(filler)?;
    collide(39_033, SHORT)?;
    wait_for_collisions(&mut running, 4)?;
    running.wait_until("the fourth is written, and it is up", limit, |sidecar| is(sidecar, [2, 2, 1]))?;
    let files = std::fs::read_dir(&captures)?.count();
    let stopped = running.stop()?;
    lab.note("portclash serve said", &stopped.messages);
    let said = stopped.messages.lines().filter(|line| line.contains("No space left on device")).count();
    // Once when it began, and once when it was over.
    ensure!(said == 2, "the full disk was told {said} times:\n{}", stopped.messages);
    ensure!(files == 2 && told(&stopped) == 4, "{files} files, {} told", told(&stopped));
    Ok(json!({"collisions": 4, "captures_written": 2, "captures_failed": 2, "told": said}))
}

/// Network namespaces come and go, with connects in each from what is a service port elsewhere.
pub fn netns_churn(_: &mut Lab, count: u32) -> Result<Value> {
    services(39_040, 2)?;
    let mut running = Sidecar::start(&["--record", "/run/churn"])?;
    // What the first ones cost once is no leak.
    (0..10).try_for_each(|_| short_lived())?;
    collide(39_040, SHORT)?;
    wait_for_collisions(&mut running, 1)?;
    let before = Usage::of(running.pid())?;
    let begun = Instant::now();
    (0..count).try_for_each(|_| short_lived())?;
    let took = begun.elapsed();
    collide(39_041, SHORT)?;
    wait_for_collisions(&mut running, 2)?;
    // Code that runs for the first time is resident from then on, and is no leak; what is free is given back every 10 s.
    let may_have = before.anonymous_kib + 1024;
    let given_back = running.wait_until("its memory is given back", Duration::from_secs(30), |sidecar| {
        Ok(Usage::of(sidecar.pid())?.anonymous_kib <= may_have)
    });
    let after = Usage::of(running.pid())?;
    let metrics = running.metrics()?;
    let stopped = running.stop()?;
    let result = json!({
        "namespaces": count,
        "seconds": took.as_secs_f64(),
        "anonymous_kib": [before.anonymous_kib, after.anonymous_kib],
        "resident_kib": [before.resident_kib, after.resident_kib],
        "fds": [before.fds, after.fds],
        "lost": metrics.lost(),
        "told": told(&stopped),
    });
    ensure!(
        told(&stopped) == 2 && metrics.lost() == 0,
        "two collisions and no loss were expected: {result:#}"
    );
    ensure!(after.fds <= before.fds + 1, "descriptors pile up: {result:#}");
    given_back.with_context(|| format!("memory piles up: {result:#}"))?;
    Ok(result)
}

/// A namespace in which a connect fails from the port of a service of the node.
fn short_lived() -> Result<()> {
    let thread = std::thread::spawn(|| -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET).context("a namespace of its own")?;
        // No device is up: the connect fails with ENETUNREACH.
        let local = std::net::SocketAddr::from(([0, 0, 0, 0], 39_040));
        crate::bench::client::connect_from(local, remote()?).err().context("it connected")?;
        Ok(())
    });
    thread.join().map_err(|_| anyhow::anyhow!("the thread in a namespace panicked"))?
}

/// Two at once: both find what collides, neither disturbs the other.
pub fn two_instances(_: &mut Lab) -> Result<Value> {
    services(39_050, 2)?;
    let mut first = Sidecar::start(&["--record", "/run/two"])?;
    let mut second = Sidecar::start(&["--record", "/run/two", "--listen", "127.0.0.1:9848"])?;
    collide(39_050, SHORT)?;
    wait_for_collisions(&mut first, 1)?;
    wait_for_collisions(&mut second, 1)?;
    let first = first.stop()?;
    collide(39_051, SHORT)?;
    wait_for_collisions(&mut second, 2)?;
    let second = second.stop()?;
    ensure!((told(&first), told(&second)) == (1, 2), "they told {} and {}", told(&first), told(&second));
    let isn =
        |incident: Option<&Value>| incident.and_then(|incident| incident.pointer("/connection/isn").cloned());
    let same = isn(first.incidents.first()) == isn(second.incidents.first());
    ensure!(same, "they told of different connections");
    Ok(json!({"first_told": 1, "second_told": 2}))
}
