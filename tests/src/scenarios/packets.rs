//! `trace --write`: the packets of a collision, from every namespace and device that they cross.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use probe_user::capture::{Decoded, Segment};
use probe_user::report::pcapng::Direction::{self, Inbound, Outbound};
use serde_json::Value;

use super::expected::{Addresses, Collision, timed_out};
use super::losses::overwhelmed;
use crate::lab::{Lab, assert_incidents, probe};
use crate::netns;
use crate::node::POD;
use crate::offline;
use crate::process::sysctl;
use crate::tracer::Tracer;
use crate::written::{self, Packet, Written};

const FILE: &str = "/tmp/packets.pcapng";

/// The seed's incident: client, probed pod and backend on one node.
pub(super) fn seed(lab: &mut Lab) -> Result<()> {
    hijacked(lab, &Addresses::v4(36721))
}

/// The same over IPv6.
pub(super) fn seed_v6(lab: &mut Lab) -> Result<()> {
    hijacked(lab, &Addresses::v6(36721))
}

/// The service has no backend: ICMP instead of a reset.
pub(super) fn no_backend(lab: &mut Lab) -> Result<()> {
    unreachable(lab, &Addresses::v4(36722))
}

/// The same over IPv6.
pub(super) fn no_backend_v6(lab: &mut Lab) -> Result<()> {
    unreachable(lab, &Addresses::v6(36722))
}

/// TCP Fast Open: the request goes with the SYN, and the reply acknowledges it, so that it carries another number than
/// ISN + 1. Of the request nothing is kept.
pub(super) fn fast_open(lab: &mut Lab) -> Result<()> {
    // In the client 1 = client, 4 = without a cookie; in the server 2 = server, 0x200 = without a cookie, 0x400 = every
    // listener.
    sysctl("net/ipv4/tcp_fastopen", "5")?;
    let set_in_pod = |value| netns::run_in("pod", move || sysctl("net/ipv4/tcp_fastopen", value));
    set_in_pod("1538")?;
    let started = lab.serve("pod", 8083);
    set_in_pod("1")?;
    started?;
    let addresses = Addresses { remote: format!("{POD}:8083"), ..Addresses::v4(36724) };
    let Addresses { local, remote, backend } = &addresses;
    lab.service(local, &[backend])?;
    lab.takes_away(FILE);
    let mut connect = probe(local, remote)?;
    connect.fast_open = true;
    let (client, live) = lab.trace(&["--write", FILE], 1, |_| connect.run())?;
    timed_out(&client)?;
    offline::says_the_same(FILE, &live.incidents)?;
    let mut written = written::read(FILE)?;
    let first = first_round(&mut written)?;
    lab.note("packets", &format!("{:#?}", steps(first)));
    for expected in [
        format!("SYN {local} > {remote}"),
        format!("SYN-ACK {remote} > {local}"),
        format!("SYN-ACK {remote} > {backend}"),
        format!("RST {backend} > {remote}"),
        format!("RST {local} > {remote}"),
    ] {
        let count = first.iter().filter(|packet| shown(packet) == expected).count();
        ensure!(count == 2, "{expected} is there {count} times instead of 2");
    }
    let syn = first.first().context("no packet")?;
    let Decoded::Tcp(Segment { payload: Some(payload @ 1..), .. }) = syn.decoded else {
        anyhow::bail!("the SYN carried nothing: {syn:?}");
    };
    let (kept, original) = syn.lengths;
    ensure!(kept + payload as usize == original as usize, "{kept} bytes of {original} were kept: {syn:?}");
    Ok(())
}

/// A device, `name@inode of its namespace`.
fn device(name: &str, namespace: &str) -> Result<String> {
    Ok(format!("{name}@{}", netns::inode(namespace)?))
}

/// What a packet is, for comparison: `SYN 1.2.3.4:5 > 6.7.8.9:10`.
fn shown(packet: &Packet) -> String {
    match packet.decoded {
        Decoded::Tcp(segment) => {
            format!("{} {} > {}", kind(&segment), segment.source, segment.destination)
        }
        Decoded::Unreachable(error) => {
            let what = if error.is_port() { "port unreachable" } else { "unreachable" };
            format!("{what} for {} > {}", error.source, error.destination)
        }
        Decoded::Other => "something else".to_owned(),
    }
}

fn kind(segment: &Segment) -> &'static str {
    match segment.flags {
        flags if flags.is_rst() => "RST",
        flags if flags.is_syn() => "SYN",
        flags if flags.is_syn_ack() => "SYN-ACK",
        _ => "other",
    }
}

fn steps(packets: &[Packet]) -> Vec<(String, Option<Direction>, String)> {
    packets.iter().map(|packet| (packet.interface.clone(), packet.direction, shown(packet))).collect()
}

/// Plays a collision, and a connect from another port that comes about, while packets are written.
fn traced(lab: &mut Lab, addresses: &Addresses, backend: bool) -> Result<Written> {
    lab.takes_away(FILE);
    let connect = probe(&addresses.local, &addresses.remote)?;
    let mut other = connect.clone();
    if let Some(local) = &mut other.local {
        local.set_port(local.port() + 1);
    }
    let arguments = ["--write", FILE];
    let (client, traced) = lab.trace(&arguments, 1, |_| {
        let control = other.run()?;
        ensure!(control.error.is_none(), "the control failed: {control:?}");
        connect.run()
    })?;
    timed_out(&client)?;
    let written = written::read(FILE)?;
    let lines: Vec<String> = written.packets.iter().map(|packet| format!("{packet:?}")).collect();
    lab.note("packets", &lines.join("\n"));
    ensure!(written.json == traced.incidents, "the incidents in the capture are others: {:#?}", written.json);
    let pid = format!("kubelet (pid {}) connects from {}", client.pid, addresses.local);
    for packet in &written.packets {
        let [who, _] = &*packet.comments else { anyhow::bail!("comments are missing: {packet:?}") };
        ensure!(who.contains(&pid) && who.contains(&addresses.remote), "whose is it? {who}");
        let (kept, original) = packet.lengths;
        ensure!(kept <= original as usize, "{kept} bytes kept of {original}");
    }
    let served = traced.summary.pointer("/hooks/packets").and_then(Value::as_str);
    ensure!(served == Some("tracepoint"), "packets are served by {served:?}");
    let collision = Collision::new(addresses, &connect, &client);
    let expected = if backend {
        collision.hijacked("backend")?
    } else {
        collision.with("/service/backends", serde_json::json!([])).no_backend()
    };
    assert_incidents(&traced, &[expected])?;
    offline::says_the_same(FILE, &traced.incidents)?;
    Ok(written)
}

/// Packets in the order of time up to the second SYN of the client.
fn first_round(written: &mut Written) -> Result<&[Packet]> {
    written.packets.sort_by_key(|packet| packet.at);
    let first = written.packets.first().context("no packet")?;
    let (interface, what) = (first.interface.clone(), shown(first));
    let again = |packet: &Packet| packet.interface == interface && shown(packet) == what;
    let second = written.packets.iter().skip(1).position(again).map_or(written.packets.len(), |at| at + 1);
    written.packets.get(..second).context("no packet")
}

fn hijacked(lab: &mut Lab, addresses: &Addresses) -> Result<()> {
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut written = traced(lab, addresses, true)?;
    let Addresses { local, remote, backend } = addresses;
    let node = |name| device(name, "node");
    let (pod_end, backend_end) = (device("eth0", "pod")?, device("eth0", "backend")?);
    let syn = format!("SYN {local} > {remote}");
    let reply = format!("SYN-ACK {remote} > {local}");
    let rewritten = format!("SYN-ACK {remote} > {backend}");
    let reset = format!("RST {backend} > {remote}");
    let back = format!("RST {local} > {remote}");
    let expected = [
        (node("vpod")?, Some(Outbound), syn.clone()),
        (pod_end.clone(), Some(Inbound), syn),
        (pod_end.clone(), Some(Outbound), reply.clone()),
        (node("vpod")?, Some(Inbound), reply),
        (node("vbackend")?, Some(Outbound), rewritten.clone()),
        (backend_end.clone(), Some(Inbound), rewritten),
        (backend_end.clone(), Some(Outbound), reset.clone()),
        (node("vbackend")?, Some(Inbound), reset),
        (node("vpod")?, Some(Outbound), back.clone()),
        (pod_end.clone(), Some(Inbound), back),
    ];
    let first = first_round(&mut written)?;
    ensure!(steps(first) == expected, "expected {expected:#?}\nfound {:#?}", steps(first));
    for (packet, why) in first.iter().zip([
        "SYN of the connect",
        "SYN of the connect",
        "SYN-ACK: the reply",
        "SYN-ACK: the reply",
        "as IPVS rewrote it",
        "as IPVS rewrote it",
        "RST of backend",
        "RST of backend",
        "as IPVS translated it back",
        "as IPVS translated it back",
    ]) {
        ensure!(packet.comments.iter().any(|comment| comment.contains(why)), "{why}: {:?}", packet.comments);
    }
    interfaces(&written)?;
    let named =
        |name: &str| written.descriptions.iter().any(|text| text.contains(&format!("/run/netns/{name}")));
    ensure!(named("pod") && named("backend"), "descriptions: {:?}", written.descriptions);
    Ok(())
}

/// Each interface is there once, and lost nothing.
fn interfaces(written: &Written) -> Result<()> {
    let mut names: Vec<_> =
        written.account.interfaces.iter().map(|interface| interface.name.clone()).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    ensure!(names.len() == count, "an interface is there twice: {:?}", written.account.interfaces);
    ensure!(written.descriptions.len() == count, "descriptions: {:?}", written.descriptions);
    for interface in &written.account.interfaces {
        ensure!(interface.dropped == Some(0), "{interface:?}");
    }
    Ok(())
}

fn unreachable(lab: &mut Lab, addresses: &Addresses) -> Result<()> {
    lab.service(&addresses.local, &[])?;
    let mut written = traced(lab, addresses, false)?;
    let Addresses { local, remote, .. } = addresses;
    let pod_end = device("eth0", "pod")?;
    let node_end = device("vpod", "node")?;
    let syn = format!("SYN {local} > {remote}");
    let reply = format!("SYN-ACK {remote} > {local}");
    let error = format!("port unreachable for {remote} > {local}");
    let expected = [
        (node_end.clone(), Some(Outbound), syn.clone()),
        (pod_end.clone(), Some(Inbound), syn),
        (pod_end.clone(), Some(Outbound), reply.clone()),
        (node_end.clone(), Some(Inbound), reply),
        (node_end, Some(Outbound), error.clone()),
        (pod_end, Some(Inbound), error),
    ];
    let first = first_round(&mut written)?;
    ensure!(first.len() >= expected.len(), "expected {expected:#?}\nfound {:#?}", steps(first));
    let found = steps(first);
    ensure!(found.starts_with(&expected), "expected {expected:#?}\nfound {found:#?}");
    let last = first.get(expected.len() - 1).context("no error")?;
    ensure!(last.comments.iter().any(|comment| comment.contains("has no backend")), "{:?}", last.comments);
    interfaces(&written)
}

/// The tracer does not get to run while the ring of packets fills up: the losses are counted, whole and by device.
pub(super) fn ring_full_is_counted(lab: &mut Lab) -> Result<()> {
    lab.takes_away(FILE);
    let traced = overwhelmed(lab, &["--write", FILE])?;
    let lost = traced.summary.pointer("/lost/packets/ring_full").and_then(Value::as_u64);
    let lost = lost.filter(|lost| *lost > 0).context("no packet found the ring full")?;
    let written = written::read(FILE)?;
    let by_device: BTreeMap<_, _> = written
        .account
        .interfaces
        .iter()
        .map(|interface| (interface.name.clone(), interface.dropped))
        .collect();
    lab.note("lost by device", &format!("{by_device:?}"));
    let sum: u64 = by_device.values().flatten().sum();
    ensure!(sum == lost, "{lost} packets were lost, {sum} by device: {by_device:?}");
    ensure!(written.packets.len() > 1000, "only {} packets were written", written.packets.len());
    Ok(())
}

/// The file's disk is full: said once, tracing goes on, what was written stays readable.
pub(super) fn disk_full(lab: &mut Lab) -> Result<()> {
    const FOLDER: &str = "/run/small";
    std::fs::create_dir_all(FOLDER)?;
    mount(Some("tmpfs"), FOLDER, Some("tmpfs"), MsFlags::empty(), Some("size=8k"))?;
    let outcome = disk_full_in(lab, &format!("{FOLDER}/packets.pcapng"));
    umount2(FOLDER, MntFlags::MNT_DETACH)?;
    outcome
}

fn disk_full_in(lab: &mut Lab, file: &str) -> Result<()> {
    let addresses = Addresses::v4(36723);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    let mut running = Tracer::start(&["--write", file])?;
    for count in 1..=2 {
        timed_out(&connect.run()?)?;
        running.wait_for_incidents(count)?;
    }
    let (traced, messages) = running.stop()?;
    lab.note("portclash trace said", &messages);
    lab.note("summary", &format!("{:#}", traced.summary));
    let said = messages.lines().filter(|line| line.contains("No space left on device")).count();
    ensure!(said == 1, "the full disk was told {said} times");
    let gaps = traced.summary.get("incomplete").and_then(Value::as_array).context("no list of gaps")?;
    let told = |gap: &Value| gap.as_str().is_some_and(|gap| gap.contains(file));
    ensure!(gaps.iter().any(told), "not said in the summary: {gaps:?}");
    let unwritten = traced.summary.pointer("/lost/packets/not_written").and_then(Value::as_u64);
    ensure!(unwritten > Some(0), "no packet is counted as not written");
    ensure!(traced.incidents.len() == 2, "{} incidents instead of 2", traced.incidents.len());
    let written = written::read(file)?;
    ensure!(!written.packets.is_empty(), "nothing was written");
    Ok(())
}
