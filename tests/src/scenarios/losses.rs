//! What is lost is counted and said.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use serde_json::Value;

use super::expected::Addresses;
use crate::lab::{Lab, restore};
use crate::node::NODE;
use crate::tracer::{Traced, Tracer};

/// A connect makes three events at least: it began, its reply was reset, it died. The ring of 4 MiB holds 10,699 of
/// 392 bytes each.
const CONNECTS: u16 = PORTS * ROUNDS;
const ROUNDS: u16 = 9;
/// Service ports, and sockets open at one time.
const PORTS: u16 = 500;
const FIRST: u16 = 37_000;

/// A tracer that does not get to run while collisions come in hundreds.
pub(super) fn overwhelmed(lab: &mut Lab, arguments: &[&str]) -> Result<Traced> {
    let addresses = Addresses::v4(0);
    let rule = |port| format!("-A -t {NODE}:{port} -s rr\n-a -t {NODE}:{port} -r {} -m\n", addresses.backend);
    restore(&(FIRST..FIRST + PORTS).map(rule).collect::<String>())?;
    let mut running = Tracer::start(arguments)?;
    running.signal(Signal::SIGSTOP)?;
    let flooded = flood(addresses.remote.parse()?);
    running.signal(Signal::SIGCONT)?;
    flooded?;
    running.wait_until("the first incident", Duration::from_secs(20), Tracer::has_found)?;
    let (traced, messages) = running.stop()?;
    lab.note("portclash trace said", &messages);
    lab.note("summary", &format!("{:#}", traced.summary));
    Ok(traced)
}

/// The tracer does not get to run while the ring fills up.
pub(super) fn ring_full_is_counted(lab: &mut Lab) -> Result<()> {
    let traced = overwhelmed(lab, &[])?;
    let lost = traced.summary.get("lost").and_then(Value::as_object).context("no list of losses")?;
    let mut ring_full = 0;
    let incomplete = traced.summary.get("incomplete").and_then(Value::as_array).context("no list of gaps")?;
    for (program, reasons) in lost {
        let reasons = reasons.as_object().context("losses without reasons")?;
        for (reason, count) in reasons {
            // Under this load the kernel may skip a program that it interrupted, and counts that.
            ensure!(matches!(reason.as_str(), "ring_full" | "missed"), "{program} lost {reasons:?}");
            ring_full += if reason == "ring_full" { count.as_u64().unwrap_or(0) } else { 0 };
            let sentence = format!("{program}: {count} lost ({reason})");
            ensure!(incomplete.iter().any(|said| said.as_str() == Some(&sentence)), "not said: {sentence}");
        }
    }
    ensure!(ring_full > 0, "no event found the ring full: {lost:?}");
    for incident in &traced.incidents {
        let verdict = incident.get("verdict").and_then(Value::as_str);
        ensure!(verdict == Some("collision"), "an incident with verdict {verdict:?}: {incident:#}");
    }
    let counted = traced.summary.pointer("/verdicts/collision").and_then(Value::as_u64);
    let shown = u64::try_from(traced.incidents.len())?;
    ensure!(counted == Some(shown), "{shown} incidents, the summary counts {counted:?}");
    ensure!(shown < u64::from(CONNECTS), "{shown} incidents, although some were lost");
    ensure!(traced.status == Some(1), "exit status is {:?}, expected 1", traced.status);
    Ok(())
}

/// Connects from each of the ports, then closes without waiting; again and again.
fn flood(remote: SocketAddr) -> Result<()> {
    for _ in 0..ROUNDS {
        let mut sockets = Vec::new();
        for port in FIRST..FIRST + PORTS {
            let local = SockaddrStorage::from(SocketAddr::new(NODE.parse()?, port));
            let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
            bind(socket.as_raw_fd(), &local).with_context(|| format!("cannot bind to port {port}"))?;
            let ended = connect(socket.as_raw_fd(), &SockaddrStorage::from(remote));
            ensure!(ended == Err(Errno::EINPROGRESS), "connect() ended with {ended:?}");
            sockets.push(socket);
        }
    }
    Ok(())
}
