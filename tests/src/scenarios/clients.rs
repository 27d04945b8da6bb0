//! The ways in which a client gets a source port that is a service, and who it is.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::expected::{Addresses, Collision, advice_to_reserve, timed_out};
use crate::client::Connect;
use crate::lab::{Lab, assert_incidents, probe};
use crate::node::NODE;
use crate::process::{run, sysctl};

/// v4-mapped addresses on an IPv6 socket.
pub(super) fn v4_mapped(lab: &mut Lab) -> Result<()> {
    play(lab, 36730, |connect| connect.mapped = true)
}

/// An explicit bind with SO_REUSEADDR.
pub(super) fn reuse_address(lab: &mut Lab) -> Result<()> {
    play(lab, 36731, |connect| connect.reuse_address = true)
}

/// A non-blocking connect, as Go programs (kubelet) do it.
pub(super) fn nonblocking(lab: &mut Lab) -> Result<()> {
    play(lab, 36732, |connect| connect.nonblocking = true)
}

/// TCP Fast Open, with the request in the SYN.
pub(super) fn fast_open(lab: &mut Lab) -> Result<()> {
    // 1 = client, 4 = send data without a cookie.
    sysctl("net/ipv4/tcp_fastopen", "5")?;
    play(lab, 36733, |connect| connect.fast_open = true)
}

/// A client in a pod's container on the node's network: the container is named.
pub(super) fn in_a_container(lab: &mut Lab) -> Result<()> {
    const ID: &str = "8f1c2a9e4b7d60315c8e2f4a6b9d0c1e3f5a7b8c9d0e1f2a3b4c5d6e7f809a1b";
    let pod = "kubepods-besteffort-pod3daea6ef_f286_43f2_8825_51edaa3994d3.slice";
    let cgroup = format!("/kubepods.slice/kubepods-besteffort.slice/{pod}/cri-containerd-{ID}.scope");
    let addresses = Addresses::v4(36734);
    let mut connect = probe(&addresses.local, &addresses.remote)?;
    connect.name = "nginx";
    connect.cgroup = cgroup;
    play_with(lab, &addresses, &connect, |expected| expected.with("/owner/container_id", json!(ID)))
}

fn play(lab: &mut Lab, port: u16, how: impl FnOnce(&mut Connect)) -> Result<()> {
    let addresses = Addresses::v4(port);
    let mut connect = probe(&addresses.local, &addresses.remote)?;
    how(&mut connect);
    play_with(lab, &addresses, &connect, |expected| expected)
}

fn play_with(
    lab: &mut Lab,
    addresses: &Addresses,
    connect: &Connect,
    change: impl FnOnce(Collision) -> Collision,
) -> Result<()> {
    lab.service(&addresses.local, &[&addresses.backend])?;
    let (client, traced) = lab.trace(&[], 1, |_| connect.run())?;
    timed_out(&client)?;
    assert_incidents(&traced, &[change(Collision::new(addresses, connect, &client)).hijacked("backend")?])
}

/// The same connect twice. IPVS still has the entry that it made for the first, so it hands the second one's reply to
/// the backend without scheduling anything.
pub(super) fn again_from_the_same_port(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36735);
    let connect = probe(&addresses.local, &addresses.remote)?;
    lab.service(&addresses.local, &[&addresses.backend])?;
    let (clients, traced) = lab.trace(&[], 2, |_| Ok([connect.run()?, connect.run()?]))?;
    let [first, second] = &clients;
    timed_out(first)?;
    timed_out(second)?;
    let expected = [
        Collision::new(&addresses, &connect, first).hijacked("backend")?,
        Collision::new(&addresses, &connect, second).hijacked_again("backend")?,
    ];
    assert_incidents(&traced, &expected)
}

/// The kernel chooses the port in connect().
pub(super) fn port_chosen_by_connect(lab: &mut Lab) -> Result<()> {
    chosen(lab, 36740, &Connect::new(None, Addresses::v4(0).remote.parse()?))
}

/// IP_BIND_ADDRESS_NO_PORT: the address is bound, the port is chosen in connect().
pub(super) fn bind_address_no_port(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(0);
    let mut connect = probe(&addresses.local, &addresses.remote)?;
    connect.no_port = true;
    chosen(lab, 36742, &connect)
}

/// bind() to port 0: the kernel chooses the port there.
pub(super) fn port_chosen_by_bind(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(0);
    chosen(lab, 36744, &probe(&addresses.local, &addresses.remote)?)
}

/// The range is two ports, both of them services, so whichever is chosen collides.
fn chosen(lab: &mut Lab, first: u16, connect: &Connect) -> Result<()> {
    for port in [first, first + 1] {
        let addresses = Addresses::v4(port);
        lab.service(&addresses.local, &[&addresses.backend])?;
    }
    sysctl("net/ipv4/ip_local_port_range", &format!("{first} {}", first + 1))?;
    let (client, traced) = lab.trace(&[], 1, |_| connect.run())?;
    timed_out(&client)?;
    // After the failed connect the socket may have lost its port; the incident has to know it.
    let port = traced.incidents.first().and_then(local_port).context("no local port in the incident")?;
    anyhow::ensure!((first..=first + 1).contains(&port), "port {port} is not in the range");
    let expected = Collision::new(&Addresses::v4(port), connect, &client)
        .with("/advice", json!([advice_to_reserve(&format!("{first}-{}", first + 1))]));
    assert_incidents(&traced, &[expected.hijacked("backend")?])
}

fn local_port(incident: &Value) -> Option<u16> {
    incident.pointer("/connection/local")?.as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// 100 processes that live for less than 10 ms collide at once: 100 incidents, each with its own owner.
pub(super) fn hundred_at_once(lab: &mut Lab) -> Result<()> {
    const FIRST: u16 = 37000;
    const COUNT: u16 = 100;
    let mut rules = String::new();
    for port in FIRST..FIRST + COUNT {
        let addresses = Addresses::v4(port);
        let _ = write!(rules, "-A -t {0} -s rr\n-a -t {0} -r {1} -m\n", addresses.local, addresses.backend);
    }
    crate::lab::restore(&rules)?;
    let (born, traced) = lab.trace(&[], usize::from(COUNT), |_| {
        std::fs::copy("/proc/self/exe", "/run/bin/burst")?;
        let text = run(&format!("/run/bin/burst burst {NODE} {FIRST} {COUNT} {}", Addresses::v4(0).remote))?;
        serde_json::from_str::<Vec<(u32, u16, u64)>>(&text).context("the burst's answer")
    })?;
    // The machine is emulated: some are held up for longer.
    let short = born.iter().filter(|(_, _, microseconds)| *microseconds < 10_000).count();
    let mut expected = Vec::new();
    for incident in &traced.incidents {
        let port = local_port(incident).context("an incident without a port")?;
        let (pid, _, _) =
            born.iter().find(|(_, each, _)| *each == port).context("a port that nobody used")?;
        expected.push(one_of_the_burst(port, *pid, FIRST, COUNT)?);
    }
    let mut ports: Vec<u16> = traced.incidents.iter().filter_map(local_port).collect();
    ports.sort_unstable();
    ports.dedup();
    anyhow::ensure!(ports.len() == usize::from(COUNT), "{} different ports, expected {COUNT}", ports.len());
    anyhow::ensure!(short >= born.len() / 2, "only {short} processes lived for less than 10 ms");
    assert_incidents(&traced, &expected)
}

fn one_of_the_burst(port: u16, pid: u32, first: u16, count: u16) -> Result<Value> {
    let addresses = Addresses::v4(port);
    let connect = probe(&addresses.local, &addresses.remote)?;
    let client = crate::client::Ended { pid, local: None, error: None };
    let command = format!("/run/bin/burst burst {NODE} {first} {count} {}", addresses.remote);
    Collision::new(&addresses, &connect, &client)
        .with("/duration_ms", json!({"<between>": [0, 2000]}))
        .with("/connection/syn_retransmits", json!({"<between>": [0, 1]}))
        .with("/advice", json!([advice_to_reserve(&format!("{first}-{}", first + count - 1))]))
        .with("/owner/comm", json!(format!("probe-{port}")))
        .with("/owner/exe", json!({"<one of>": [null, "/run/bin/burst"]}))
        .with("/owner/cmdline", json!(command))
        .hijacked("backend")
}

/// Time that a connect from a free port may take in a control: the machine is emulated.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
