//! The service table changes while the tracer runs.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::expected::{Addresses, Collision, advice_to_reserve, timed_out};
use crate::guest::load_module;
use crate::lab::{Lab, assert_incidents, probe, restore};
use crate::node::{KUBE_PROXY_SETTINGS, NODE, ip_in, ipvsadm};
use crate::process::{run, sysctl};
use crate::watched::wait_until_watched;

/// The service does not exist when the trace begins.
pub(super) fn created_while_tracing(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36750);
    let connect = probe(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(&[], 1, |lab| {
        lab.service(&addresses.local, &[&addresses.backend])?;
        wait_until_watched(&(36750..=36750), true)?;
        connect.run()
    })?;
    timed_out(&client)?;
    assert_incidents(&traced, &[Collision::new(&addresses, &connect, &client).hijacked("backend")?])
}

/// A service that is deleted while the trace runs collides before, not after.
pub(super) fn deleted_while_tracing(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36751);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let before = probe(&addresses.local, &addresses.remote)?;
    // Another server: the false IPVS connection of the first connect is still there.
    lab.serve("pod", 81)?;
    let after = probe(&addresses.local, &addresses.remote.replace(":80", ":81"))?;
    let (clients, traced) = lab.trace(&[], 1, |_| {
        let first = before.run()?;
        ipvsadm(&format!("-D -t {}", addresses.local))?;
        wait_until_watched(&(36751..=36751), false)?;
        Ok((first, after.run()?))
    })?;
    timed_out(&clients.0)?;
    ensure!(clients.1.error.is_none(), "the second connect failed: {:?}", clients.1.error);
    assert_incidents(&traced, &[Collision::new(&addresses, &before, &clients.0).hijacked("backend")?])
}

/// The service goes while the SYN-ACK is on its way, and the client gives up: the node's own stack resets the late
/// SYN-ACK. On the wire that is the collision, but IPVS has no part in it.
pub(super) fn late_syn_ack_to_a_service_port_that_is_gone(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36754);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut connect = probe(&addresses.local, &addresses.remote)?;
    connect.timeout = Duration::from_millis(700);
    let held = lab.trace(&[], 1, |_| {
        // The pod's gateway does not answer to ARP, so the pod keeps its SYN-ACK (for up to 3 s).
        sysctl("net/ipv4/conf/vpod/arp_ignore", "8")?;
        ip_in("pod", "neigh flush dev eth0\n")?;
        let mut release = Command::new("ip")
            .args(["-n", "pod", "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start ip")?;
        let running = connect.start()?;
        std::thread::sleep(Duration::from_millis(300));
        ipvsadm(&format!("-D -t {}", addresses.local))?;
        let ended = running.wait();
        let gateway = std::fs::read_to_string("/sys/class/net/vpod/address")?;
        let mut stdin = release.stdin.take().context("no input")?;
        writeln!(stdin, "neigh replace 169.254.1.1 lladdr {} dev eth0 nud reachable", gateway.trim())?;
        drop(stdin);
        ensure!(release.wait()?.success(), "ip cannot tell the pod where its gateway is");
        ended
    });
    sysctl("net/ipv4/conf/vpod/arp_ignore", "0")?;
    let (client, traced) = held?;
    timed_out(&client)?;
    let expected = Collision::new(&addresses, &connect, &client)
        .with("/duration_ms", json!({"<between>": [600, 2500]}))
        .with("/connection/syn_retransmits", json!({"<between>": [0, 1]}));
    assert_incidents(&traced, &[expected.reset_by_own_stack()?])
}

/// 5,000 services appear while the trace runs; a connect from one in the middle collides.
pub(super) fn five_thousand_added(lab: &mut Lab) -> Result<()> {
    const FIRST: u16 = 45_000;
    const COUNT: u16 = 5_000;
    let addresses = Addresses::v4(FIRST + 3_456);
    let connect = probe(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(&[], 1, |_| {
        let rule =
            |port| format!("-A -t {NODE}:{port} -s rr\n-a -t {NODE}:{port} -r {} -m\n", addresses.backend);
        restore(&(FIRST..FIRST + COUNT).map(rule).collect::<String>())?;
        wait_until_watched(&(FIRST..=FIRST + COUNT - 1), true)?;
        connect.run()
    })?;
    timed_out(&client)?;
    let ports = format!("{FIRST}-{}", FIRST + COUNT - 1);
    let expected =
        Collision::new(&addresses, &connect, &client).with("/advice", json!([advice_to_reserve(&ports)]));
    assert_incidents(&traced, &[expected.hijacked("backend")?])
}

/// There is no IPVS when the trace begins; then the module is loaded and a service made.
pub(super) fn module_loaded_while_tracing(lab: &mut Lab) -> Result<()> {
    unload()?;
    let addresses = Addresses::v4(36752);
    let connect = probe(&addresses.local, &addresses.remote)?;
    let traced = lab.trace(&[], 1, |lab| {
        load()?;
        lab.service(&addresses.local, &[&addresses.backend])?;
        wait_until_watched(&(36752..=36752), true)?;
        connect.run()
    });
    // Whatever happened, the next scenario needs the module.
    load()?;
    let (client, traced) = traced?;
    timed_out(&client)?;
    assert_incidents(&traced, &[Collision::new(&addresses, &connect, &client).hijacked("backend")?])
}

/// IPVS goes while the trace runs: the trace goes on and finds nothing.
pub(super) fn module_unloaded_while_tracing(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36753);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    let traced = lab.trace(&[], 0, |_| {
        unload()?;
        wait_until_watched(&(36753..=36753), false)?;
        connect.run()
    });
    load()?;
    let (client, traced) = traced?;
    ensure!(client.error.is_none(), "the connect failed: {:?}", client.error);
    assert_incidents(&traced, &[])
}

pub(crate) fn unload() -> Result<()> {
    run("ipvsadm -C")?;
    run("rmmod ip_vs_sh ip_vs_wrr ip_vs_rr ip_vs").map(drop)
}

pub(crate) fn load() -> Result<()> {
    ["ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh"].into_iter().try_for_each(load_module)?;
    // Settings of the module's namespace part start anew.
    KUBE_PROXY_SETTINGS.iter().try_for_each(|(name, value)| sysctl(name, value))?;
    sysctl("net/ipv4/vs/conn_reuse_mode", "0")
}
