//! `portclash check` on a node whose services are in the kernel: what it says, and whether its advice helps.

mod expected;
mod node;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::port_choice::{Chosen, SEED, farm};
use crate::expect;
use crate::host::say;
use crate::lab::{Lab, read, wait_until};
use crate::node::{NODE, POD};
use crate::process::{run, sysctl};
use crate::server::answers;
use expected::expected_report;
use node::{connects_in_time_wait, seeds_node, time_wait};

/// Where node-local-dns listens, as in the seed's incident.
const DNS: &str = "169.254.20.10";
/// The seed's NodePort range.
const NODE_PORTS: (u16, u16) = (20_000, 40_000);
/// What is reserved before.
const RESERVED: &str = "10250,50000-50010";
/// What must be reserved in the end.
const ADVISED: &str = "10250,20000-40000,50000-50010";
/// Half of the ports from 1024 to 65000: connect() starts its search at one of these.
const STARTS: u32 = 31_988;
/// Connects that are left in TIME-WAIT.
const CONNECTS: u32 = 30;
/// Where a program listens.
const LISTENER: u16 = 38_001;
/// healthCheckNodePort of a Service.
const HEALTH_CHECK: u16 = 30_555;
const SERVICES_FILE: &str = "/run/services.json";
const ADVISED_FILE: &str = "/etc/sysctl.d/90-nodeports.conf";
const KEY: &str = "net/ipv4/ip_local_reserved_ports";
const OPTIONS: [&str; 4] = ["--node-port-range", "20000-40000", "--services", SERVICES_FILE];

/// The whole report on the seed's node.
pub(super) fn of_the_seeds_node(lab: &mut Lab) -> Result<()> {
    // While there is no service yet, so that none of them collides.
    sysctl(KEY, RESERVED)?;
    connects_in_time_wait()?;
    seeds_node(lab)?;
    let (counts, report, status) = steady(lab)?;
    let own = counts.get(&NODE.parse()?).copied().unwrap_or_default();
    ensure!(own >= CONNECTS, "{own} sockets in TIME-WAIT are left of {CONNECTS}");
    let differences = expect::differences(&expected_report(&counts)?, &report);
    ensure!(differences.is_empty(), "not as expected:\n{}", differences.join("\n"));
    ensure!(status == Some(1), "exit status is {status:?}");
    Ok(())
}

/// The script of `--fix-script`, run as it is.
pub(super) fn fix_script_ends_the_exposure(lab: &mut Lab) -> Result<()> {
    const CONNECTS: u16 = 200;
    seeds_node(lab)?;
    farm(lab, NODE_PORTS.0..=NODE_PORTS.1)?;
    let before = Chosen::of("connect", CONNECTS, 0)?;
    lab.takes_away(ADVISED_FILE);
    let arguments = [&["check", "--fix-script"][..], &OPTIONS].concat();
    let script = Command::new("portclash").args(arguments).output()?;
    ensure!(script.status.code() == Some(1), "check --fix-script ended with {}", script.status);
    let script = String::from_utf8(script.stdout)?;
    lab.note("the script", &script);
    lab.file("/run/fix/fix.sh", &script)?;
    let said = run("sh /run/fix/fix.sh")?;
    lab.note("the script said", &said);
    let now = read(&format!("/proc/sys/{KEY}"));
    ensure!(now.trim() == ADVISED, "reserved are {now:?}");
    ensure!(said.starts_with(&format!("reserved now: {ADVISED}\n")), "the script said {said:?}");
    let file = read(ADVISED_FILE);
    ensure!(file == format!("net.ipv4.ip_local_reserved_ports = {ADVISED}\n"), "the file has {file:?}");
    let (report, status) = check(lab, &OPTIONS)?;
    for (path, expected) in [
        ("/status", json!("pass")),
        ("/reserved", json!(ADVISED.split(',').collect::<Vec<_>>())),
        ("/reserved_source", json!(format!("the running kernel, as {ADVISED_FILE}:1 sets it"))),
        ("/services_tcp", json!(SEED.len() * 2 + 1)),
        ("/exposed_ports", json!([])),
        ("/overlap_count", json!(20_001)),
        ("/overlap_unreserved", json!(0)),
        ("/to_reserve", json!([])),
        ("/advice", json!([])),
        ("/incomplete", json!([])),
    ] {
        ensure!(report.pointer(path) == Some(&expected), "{path} is {:?}", report.pointer(path));
    }
    ensure!(status == Some(0), "exit status is {status:?}");
    let after = Chosen::of("connect", CONNECTS, 0)?;
    say(&format!(
        "{CONNECTS} connects took {} ports of {}-{} before, {} after",
        before.collisions.len(),
        NODE_PORTS.0,
        NODE_PORTS.1,
        after.collisions.len()
    ));
    ensure!(!before.collisions.is_empty(), "no connect took a NodePort before they were reserved");
    ensure!(after.collisions.is_empty(), "connects took the reserved ports {:?}", after.collisions);
    ensure!(after.connected == CONNECTS, "{} of {CONNECTS} connected", after.connected);
    undo(&said, &file)
}

/// What the script says undoes it.
fn undo(said: &str, file: &str) -> Result<()> {
    let commands = said.lines().skip_while(|line| *line != "to undo:").skip(1);
    let commands: Vec<&str> = commands.map(str::trim).collect();
    ensure!(commands.len() == 2, "the script said {said:?}");
    std::fs::write("/run/undo.sh", commands.join("\n"))?;
    run("sh -e /run/undo.sh")?;
    std::fs::remove_file("/run/undo.sh")?;
    let now = read(&format!("/proc/sys/{KEY}"));
    ensure!(now.trim() == RESERVED, "after undoing, reserved are {now:?}");
    ensure!(!std::fs::exists(ADVISED_FILE)?, "after undoing, {file:?} is still there");
    Ok(())
}

/// Files that say something else than the kernel has, each with its line.
pub(super) fn disagreement_with_a_file(lab: &mut Lab) -> Result<()> {
    lab.service(&format!("{NODE}:36704"), &[])?;
    lab.file(
        "/etc/sysctl.d/50-ports.conf",
        "# from the wiki\n\
         net.ipv4.ip_local_port_range = \"1024 65000\"\n\
         net.ipv4.ip_local_reserved_ports = 30000\u{2013}32767\n",
    )?;
    lab.file("/etc/sysctl.d/60-ipvs.conf", "\nnet.ipv4.vs.conn_reuse_mode=1\n")?;
    let (report, status) = check(lab, &[])?;
    ensure!(status == Some(1), "exit status is {status:?}");
    let ephemeral = report.get("ephemeral");
    let live = json!({"first": 32_768, "last": 60_999, "source": "the running kernel"});
    ensure!(ephemeral == Some(&live), "the range is {ephemeral:?}");
    for (severity, words) in [
        (
            "error",
            ["ip_local_port_range", "the quotes are part of the value", "(/etc/sysctl.d/50-ports.conf:2)"],
        ),
        ("error", ["ip_local_reserved_ports", "(U+2013), not a hyphen", "(/etc/sysctl.d/50-ports.conf:3)"]),
        ("warning", ["conn_reuse_mode is 1 here, but 0 in the kernel", "", "(/etc/sysctl.d/60-ipvs.conf:2)"]),
    ] {
        let findings = report.get("findings").and_then(Value::as_array).context("no findings")?;
        let found = findings.iter().filter(|finding| {
            let text = finding.get("text").and_then(Value::as_str).unwrap_or_default();
            words.iter().all(|word| text.contains(word))
        });
        let severities: Vec<_> = found.map(|finding| finding.get("severity")).collect();
        ensure!(severities == [Some(&json!(severity))], "{words:?}: found {severities:?}");
    }
    Ok(())
}

/// Connects made while `--measure` counts.
pub(super) fn measures_connects(lab: &mut Lab) -> Result<()> {
    const MEASURED: u32 = 5;
    // Outside the local port range: no connect may collide here.
    lab.service(&format!("{NODE}:31000"), &[])?;
    let begin = Instant::now();
    let mut child = Command::new("portclash")
        .args(["check", "-o", "json", "--measure", &format!("{MEASURED}s")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = child.id();
    wait_until("check counts", Duration::from_mins(1), || {
        ensure!(child.try_wait()?.is_none(), "check ended before it counted");
        Ok(sleeps(pid))
    })?;
    // It sleeps from the first look at the counter to the second: a connect before and after which it does lies between.
    let (mut made, mut within) = (0, 0);
    while sleeps(pid) {
        // One after the other: the server is not to run out of files.
        ensure!(answers(&format!("{POD}:80")), "the pod does not answer");
        made += 1;
        within += u32::from(sleeps(pid));
    }
    let output = child.wait_with_output()?;
    let longest = begin.elapsed().as_secs_f64();
    let report: Value = serde_json::from_slice(&output.stdout).context("the report")?;
    lab.note("portclash check", &format!("{report:#}"));
    let rate = report.get("connects_per_second").and_then(Value::as_f64).context("no rate")?;
    say(&format!("{made} connects made, {within} of them for sure while counting: {rate:.2} per second"));
    ensure!(
        report.get("rate_source") == Some(&json!("measured")),
        "the rate is {:?}",
        report.get("rate_source")
    );
    ensure!(within > 0, "no connect was made while check counted");
    ensure!(rate * longest >= f64::from(within), "{rate} per second in {longest} s is less than {within}");
    ensure!(rate * f64::from(MEASURED) <= f64::from(made), "{rate} per second is more than {made} connects");
    let incomplete = report.get("incomplete");
    ensure!(incomplete == Some(&json!([])), "incomplete: {incomplete:?}");
    Ok(())
}

/// Whether a process is in nanosleep(2) or clock_nanosleep(2).
fn sleeps(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.starts_with("35 ") || call.starts_with("230 ")
}

/// A report that was made while the sockets did not change, and their counts.
fn steady(lab: &mut Lab) -> Result<(BTreeMap<IpAddr, u32>, Value, Option<i32>)> {
    let mut found = None;
    wait_until("the sockets stay as they are", Duration::from_secs(90), || {
        let before = time_wait()?;
        let (report, status) = check(lab, &OPTIONS)?;
        let same = time_wait()? == before;
        found = same.then_some((before, report, status));
        Ok(same)
    })?;
    found.context("no report")
}

fn check(lab: &mut Lab, options: &[&str]) -> Result<(Value, Option<i32>)> {
    let output = Command::new("portclash").args(["check", "-o", "json"]).args(options).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("portclash check said {errors} and ended with {}", output.status))?;
    lab.note("portclash check", &format!("{report:#}"));
    Ok((report, output.status.code()))
}
