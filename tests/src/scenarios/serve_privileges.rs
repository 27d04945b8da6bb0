//! `portclash serve` started with the documented capabilities only: it catches the incident and has nothing left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use probe_user::serve::privileges::ThreadStatus;
use serde_json::Value;

use super::changes::{load, unload};
use super::expected::{Addresses, Collision, timed_out};
use crate::lab::{Lab, compare, probe, read};
use crate::process::sysctl;
use crate::sidecar::Sidecar;

/// What docs/security.md asks for.
const DOCUMENTED: &str = "bpf,perfmon,setpcap";
/// The same where hooks with a stable interface have to do.
const FOR_STABLE: &str = "bpf,perfmon,net_admin,setpcap";
/// Until where kprobes take no CAP_SYS_ADMIN: Debian's kernels, the lab's, start with 3.
const PARANOID: (&str, &str) = ("kernel/perf_event_paranoid", "2");

const CAPTURES: &str = "/run/captures";
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// The seed's incident, with owner, outcome and capture.
pub(super) fn seed(lab: &mut Lab) -> Result<()> {
    without_paranoia(|| play(lab, 36764, DOCUMENTED, &[]))
}

/// The same where the kernel forbids kprobes for want of CAP_SYS_ADMIN: trampolines and the connection table do.
pub(super) fn seed_without_kprobes(lab: &mut Lab) -> Result<()> {
    play(lab, 36767, DOCUMENTED, &[])
}

/// The same by hooks with a stable interface.
pub(super) fn seed_stable_rung(lab: &mut Lab) -> Result<()> {
    play(lab, 36765, FOR_STABLE, &["--hooks", "stable"])
}

fn without_paranoia(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let (name, value) = PARANOID;
    let before = read(&format!("/proc/sys/{name}"));
    sysctl(name, value)?;
    let outcome = work();
    sysctl(name, before.trim())?;
    outcome
}

/// Before 5.11 maps count as locked memory.
fn with_memory(capabilities: &str) -> String {
    let release = read("/proc/sys/kernel/osrelease");
    if release.starts_with("5.10.") {
        format!("{capabilities},sys_resource")
    } else {
        capabilities.to_owned()
    }
}

fn play(lab: &mut Lab, port: u16, capabilities: &str, arguments: &[&str]) -> Result<()> {
    let addresses = Addresses::v4(port);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    // Of a scenario that failed.
    let _ = std::fs::remove_dir_all(CAPTURES);
    let mut running = Sidecar::start_limited(
        Some(&with_memory(capabilities)),
        &[&["--record", CAPTURES], arguments].concat(),
    )?;
    let before = threads(running.pid())?;
    let client = connect.run()?;
    running.wait_for_incidents(1)?;
    running.wait_for_captures(1)?;
    let captures = std::fs::read_dir(CAPTURES)?.count();
    let after = threads(running.pid())?;
    let stopped = running.stop()?;
    lab.note("portclash serve said", &stopped.messages);
    std::fs::remove_dir_all(CAPTURES)?;
    for thread in before.iter().chain(&after) {
        has_only(thread, kept_for_maps())?;
        ensure!(thread.bounding == 0, "the bounding set is not empty: {thread:?}");
    }
    timed_out(&client)?;
    // Whose executable it is takes CAP_SYS_PTRACE to see, which nobody gave.
    let expected = Collision::new(&addresses, &connect, &client).with("/owner/exe", Value::Null);
    compare(&stopped.incidents, &[expected.hijacked("backend")?])?;
    ensure!(captures == 1, "{captures} captures instead of 1");
    Ok(())
}

/// ip_vs comes after the start: what hooking takes is kept until then by one thread, and dropped.
pub(super) fn module_loaded_later(lab: &mut Lab) -> Result<()> {
    unload()?;
    let outcome =
        without_paranoia(|| load_later(lab, 36766, DOCUMENTED, CAP_BPF | CAP_PERFMON, "ip_vs is hooked"));
    // Whatever happened, the next scenario needs the module.
    load()?;
    outcome
}

/// The same where the kernel forbids kprobes for want of CAP_SYS_ADMIN, and it was given.
pub(super) fn module_loaded_later_sys_admin(lab: &mut Lab) -> Result<()> {
    unload()?;
    let capabilities = format!("{DOCUMENTED},sys_admin");
    let kept = CAP_BPF | CAP_PERFMON | CAP_SYS_ADMIN;
    let outcome = load_later(lab, 36776, &capabilities, kept, "ip_vs is hooked");
    load()?;
    outcome
}

/// The same where it was not given: what could not be hooked is said, and the connection table proves the hijack.
pub(super) fn module_loaded_later_without_kprobes(lab: &mut Lab) -> Result<()> {
    unload()?;
    let outcome =
        load_later(lab, 36777, DOCUMENTED, CAP_BPF | CAP_PERFMON, "privileges are dropped; not hooked: ");
    load()?;
    outcome
}

fn load_later(lab: &mut Lab, port: u16, capabilities: &str, kept: u64, says: &str) -> Result<()> {
    let addresses = Addresses::v4(port);
    let connect = probe(&addresses.local, &addresses.remote)?;
    let mut running = Sidecar::start_limited(Some(&with_memory(capabilities)), &[])?;
    for thread in threads(running.pid())? {
        let main = thread.name == "portclash";
        has_only(&thread, if main { kept } else { 0 })?;
    }
    load()?;
    running.wait_until(&format!("it says {says:?}"), Duration::from_secs(20), |sidecar| {
        Ok(sidecar.messages().contains(says))
    })?;
    for thread in threads(running.pid())? {
        has_only(&thread, kept_for_maps())?;
    }
    lab.service(&addresses.local, &[&addresses.backend])?;
    let one = |services: Option<f64>| services == Some(1.0);
    let limit = Duration::from_secs(20);
    running.wait_for_metric("portclash_services", &["protocol=\"tcp\""], limit, one)?;
    let client = connect.run()?;
    running.wait_for_incidents(1)?;
    let stopped = running.stop()?;
    lab.note("portclash serve said", &stopped.messages);
    timed_out(&client)?;
    let expected = Collision::new(&addresses, &connect, &client).with("/owner/exe", Value::Null);
    compare(&stopped.incidents, &[expected.hijacked("backend")?])
}

/// Before 6.0 every look-up in a map takes CAP_BPF where unprivileged users may not use BPF. Only the main thread
/// looks up.
pub(super) fn kept_for_maps() -> u64 {
    let release = read("/proc/sys/kernel/osrelease");
    let major: u32 = release.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(u32::MAX);
    let forbidden = read("/proc/sys/kernel/unprivileged_bpf_disabled").trim() != "0";
    if major < 6 && forbidden { CAP_BPF } else { 0 }
}

/// The thread has no capability but, if it is the main thread, these; and is filtered.
pub(super) fn has_only(thread: &ThreadStatus, capabilities: u64) -> Result<()> {
    let expected = if thread.name == "portclash" { capabilities } else { 0 };
    let ThreadStatus { permitted, effective, inheritable, ambient, .. } = thread;
    ensure!([*permitted, *effective] == [expected; 2], "capabilities are left: {thread:?}");
    ensure!([*inheritable, *ambient] == [0; 2], "capabilities are left: {thread:?}");
    ensure!(thread.no_new_privs && thread.filtered, "not filtered: {thread:?}");
    Ok(())
}

/// Privileges of every thread of a process.
pub(super) fn threads(pid: u32) -> Result<Vec<ThreadStatus>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that has ended in between has no say.
        let Ok(text) = std::fs::read_to_string(task?.path().join("status")) else { continue };
        found.push(ThreadStatus::parse(&text).with_context(|| format!("not understood: {text}"))?);
    }
    ensure!(found.len() > 1, "there is no thread for HTTP: {found:?}");
    Ok(found)
}
