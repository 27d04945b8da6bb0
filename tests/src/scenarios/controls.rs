//! What must yield nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::clients::PATIENCE;
use super::expected::Addresses;
use crate::client::{Connect, Then};
use crate::lab::{Lab, assert_incidents, assert_summary, probe, wait_until};
use crate::node::{CLUSTER_IP, NODE, POD, ip, ipvsadm};
use crate::process::{run, run_with_input};

/// The service has the port, but another address.
pub(super) fn same_port_other_address(lab: &mut Lab) -> Result<()> {
    ip("addr replace 10.23.77.130/32 dev node0\n")?;
    let addresses = Addresses::v4(36760);
    lab.service(&addresses.local, &[&addresses.backend])?;
    quiet(lab, &connect("10.23.77.130:36760", &addresses.remote)?, None)
}

/// A UDP service has the address and the port.
pub(super) fn udp_service(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36761);
    ipvsadm(&format!("-A -u {} -s rr", addresses.local))?;
    ipvsadm(&format!("-a -u {} -r {} -m", addresses.local, addresses.backend))?;
    quiet(lab, &connect(&addresses.local, &addresses.remote)?, None)
}

/// A firewall-mark service whose mark is the port's number.
pub(super) fn firewall_mark_service(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36762);
    ipvsadm("-A -f 36762 -s rr")?;
    ipvsadm(&format!("-a -f 36762 -r {} -m", addresses.backend))?;
    quiet(lab, &connect(&addresses.local, &addresses.remote)?, None)
}

/// From a port that is a service to a service: IPVS knows the reply as its own.
pub(super) fn to_cluster_ip_from_a_service_port(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36763);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let cluster = format!("{CLUSTER_IP}:443");
    lab.service(&cluster, &[&addresses.backend])?;
    quiet(lab, &connect(&addresses.local, &cluster)?, None)
}

/// A pod connects in its own namespace from a port that is a service of the node.
pub(super) fn from_a_pods_own_namespace(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36764);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut connect = connect(&format!("{POD}:36764"), &addresses.backend)?;
    connect.namespace = "pod";
    quiet(lab, &connect, None)
}

/// Nobody listens where the client connects to.
pub(super) fn refused(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36765);
    lab.service(&addresses.local, &[&addresses.backend])?;
    quiet(lab, &connect(&format!("{NODE}:41000"), &format!("{POD}:9999"))?, Some("ECONNREFUSED"))
}

/// Nobody listens where the client connects to from a service port. The answer, RST and ACK, opens no connection for
/// IPVS and reaches the client: a connect was watched, and it was a false alarm.
pub(super) fn refused_from_a_service_port(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses { remote: format!("{POD}:9999"), ..Addresses::v4(36769) };
    lab.service(&addresses.local, &[&addresses.backend])?;
    let connect = connect(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(&[], 0, |_| {
        let ended = connect.run();
        std::thread::sleep(Duration::from_millis(500));
        ended
    })?;
    ensure!(client.error.as_deref() == Some("ECONNREFUSED"), "the client got {:?}", client.error);
    ensure!(traced.incidents.is_empty(), "{} incidents, expected none", traced.incidents.len());
    assert_summary(&traced.summary, &json!({"none": 1}))?;
    ensure!(traced.status == Some(0), "exit status is {:?}, expected 0", traced.status);
    Ok(())
}

/// The client closes with data unread, which sends a reset.
pub(super) fn closed_with_unread_data(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36766);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut connect = connect(&format!("{NODE}:41001"), &addresses.remote)?;
    connect.then = Then::CloseUnread;
    quiet(lab, &connect, None)
}

/// The client aborts with SO_LINGER 0.
pub(super) fn aborted(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36767);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut connect = connect(&format!("{NODE}:41002"), &addresses.remote)?;
    connect.then = Then::Abort;
    quiet(lab, &connect, None)
}

/// The look-alike: the SYN-ACK comes when the client has given up, and the node's own stack resets it. On the wire
/// that is the same as after a hijack.
pub(super) fn late_syn_ack(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36768);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut connect = connect(&format!("{NODE}:41003"), &addresses.remote)?;
    connect.timeout = Duration::from_millis(300);
    // The pod's first SYN-ACK is held back; the one it sends again after a second comes late.
    let hold = "table ip hold { chain out { type filter hook output priority 0; tcp sport 80 drop; }; }\n";
    let (client, traced) = lab.trace(&[], 0, |_| {
        run_with_input("ip netns exec pod nft -f -", hold)?;
        let ended = connect.run();
        let before = resets_sent()?;
        run("ip netns exec pod nft delete table ip hold")?;
        wait_until("the late SYN-ACK is reset", Duration::from_secs(6), || Ok(resets_sent()? > before))?;
        ended
    })?;
    super::expected::timed_out(&client)?;
    assert_incidents(&traced, &[])
}

/// `OutRsts` of the node's namespace.
fn resets_sent() -> Result<u64> {
    let text = crate::lab::read("/proc/net/snmp");
    let mut rows = text.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (mut names, mut values) = (rows.next().context("no Tcp row")?, rows.next().context("no Tcp values")?);
    let column = names.position(|name| name == "OutRsts").context("no OutRsts")?;
    Ok(values.nth(column).context("a short row")?.parse()?)
}

fn connect(local: &str, remote: &str) -> Result<Connect> {
    let mut connect = probe(local, remote)?;
    connect.timeout = PATIENCE;
    Ok(connect)
}

/// The connect ends as given, and the tracer says nothing about it.
fn quiet(lab: &mut Lab, connect: &Connect, error: Option<&str>) -> Result<()> {
    let (client, traced) = lab.trace(&[], 0, |_| {
        let ended = connect.run();
        // A false incident would come within this time.
        std::thread::sleep(Duration::from_millis(500));
        ended
    })?;
    ensure!(client.error.as_deref() == error, "the client got {:?}, expected {error:?}", client.error);
    assert_incidents(&traced, &[])
}
