//! `portclash serve`: stays, tells in every way that it has, survives what happens around it, and leaves nothing behind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::expected::{Addresses, Collision, timed_out};
use crate::client::{Connect, Ended};
use crate::expect::differences;
use crate::lab::{Lab, compare, probe, read};
use crate::offline;
use crate::process::sysctl;
use crate::reliability::{sources, trouble};
use crate::sidecar::{Sidecar, Stopped};

const CAPTURES: &str = "/run/captures";
const INCIDENTS: &str = "portclash_incidents_total";

/// Notes for the case that the scenario fails.
fn note(lab: &mut Lab, stopped: &Stopped) {
    lab.note("/proc/net/ip_vs", &read("/proc/net/ip_vs"));
    lab.note("portclash serve said", &stopped.messages);
    for incident in stopped.incidents.iter().take(3) {
        lab.note("incident", &format!("{incident:#}"));
    }
}

/// A collision as the sidecar tells it: without the privileges that it dropped it cannot see what file a process executes.
fn collision(addresses: &Addresses, connect: &Connect, client: &Ended) -> Collision {
    Collision::new(addresses, connect, client).with("/owner/exe", Value::Null)
}

/// The seed's incident: on standard output, over HTTP, as a capture that an analysis reads the same from, and in metrics.
pub(super) fn seed(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36760);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    let mut running = Sidecar::start(&["--record", CAPTURES])?;
    let client = connect.run()?;
    running.wait_for_incidents(1)?;
    running.wait_for_captures(1)?;
    let told = running.incidents();
    let id = told.first().and_then(|incident| incident.get("id")?.as_str()).context("no id")?.to_owned();
    let id = id.replace('[', "%5B").replace(']', "%5D");
    let listed = running.get_ok("/incidents")?.json()?;
    let one = running.get_ok(&format!("/incidents/{id}"))?.json()?;
    let capture = running.get_ok(&format!("/incidents/{id}/capture"))?.body;
    let report = running.get_ok(&format!("/incidents/{id}/report"))?.text();
    let unknown = running.get("/incidents/none")?.status;
    let metrics = running.metrics()?;
    let stopped = running.stop()?;
    note(lab, &stopped);
    timed_out(&client)?;
    compare(&stopped.incidents, &[collision(&addresses, &connect, &client).hijacked("backend")?])?;
    ensure!(listed == json!(told), "/incidents lists {listed:#}");
    ensure!(Some(&one) == told.first(), "/incidents/{id} is {one:#}");
    ensure!(report.contains("<svg") && report.contains(&addresses.local), "the report lacks its picture");
    ensure!(unknown == 404, "an unknown incident is answered with {unknown}");
    let file = "/tmp/serve-seed.pcapng";
    lab.takes_away(file);
    std::fs::write(file, capture)?;
    offline::says_the_same(file, &told)?;
    let labels = ["verdict=\"collision\"", "outcome=\"hijacked\"", "service_kind=\"unknown\""];
    ensure!(metrics.count(INCIDENTS, &labels) == 1, "metrics count {metrics:#?}");
    ensure!(metrics.count(INCIDENTS, &[]) == 1, "metrics count more: {metrics:#?}");
    ensure!(metrics.count("portclash_recorder_captures_written_total", &[]) == 1, "no capture: {metrics:#?}");
    ensure!(metrics.count("portclash_services", &["protocol=\"tcp\""]) == 1, "services: {metrics:#?}");
    ensure!(metrics.lost() == 0, "events were lost: {metrics:#?}");
    std::fs::remove_dir_all(CAPTURES)?;
    Ok(())
}

/// The same service and owner again and again: told once, then counted.
pub(super) fn repeats(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36761);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut connects = Vec::new();
    // Each with another server: where IPVS has an entry of an earlier connect it schedules nothing.
    for port in 80..83 {
        if port > 80 {
            lab.serve("pod", port)?;
        }
        connects.push(probe(&addresses.local, &addresses.remote.replace(":80", &format!(":{port}")))?);
    }
    let mut running = Sidecar::start(&["--repeat-every", "1h"])?;
    let first = connects.first().context("no connect")?;
    let client = first.run()?;
    running.wait_for_incidents(1)?;
    for connect in connects.iter().skip(1) {
        timed_out(&connect.run()?)?;
    }
    trouble::wait_for_collisions(&mut running, 3)?;
    let metrics = running.metrics()?;
    let listed = running.get_ok("/incidents")?.json()?;
    let stopped = running.stop()?;
    note(lab, &stopped);
    compare(&stopped.incidents, &[collision(&addresses, first, &client).hijacked("backend")?])?;
    let expected = json!([{
        "schema": "portclash.repeats/v1",
        "service": addresses.local,
        "service_name": null,
        "owner": {"comm": first.name, "exe": null, "container_id": null, "pod": null},
        "verdict": "collision",
        "several": false,
        "count": 2,
        "since": "<time>",
        "until": "<time>",
        "last_id": "<text>",
    }]);
    let found = differences(&expected, &json!(stopped.repeats));
    ensure!(found.is_empty(), "repeats are not as expected:\n{}", found.join("\n"));
    ensure!(metrics.count("portclash_repeated_incidents_total", &[]) == 2, "{metrics:#?}");
    ensure!(listed.as_array().is_some_and(|listed| listed.len() == 3), "/incidents: {listed:#}");
    Ok(())
}

/// Told to end while a connection is open: what is known of it is told, with its capture, and it ends in order.
pub(super) fn sigterm_drains(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36762);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut connect = probe(&addresses.local, &addresses.remote)?;
    connect.timeout = Duration::from_secs(4);
    let mut running = Sidecar::start(&["--record", CAPTURES, "--drain", "3s"])?;
    let client = connect.start()?;
    let one = |open: Option<f64>| open == Some(1.0);
    running.wait_for_metric("portclash_open_connections", &[], Duration::from_secs(10), one)?;
    std::thread::sleep(Duration::from_millis(500));
    let begun = std::time::Instant::now();
    let stopped = running.stop()?;
    let took = begun.elapsed();
    let captures = std::fs::read_dir(CAPTURES)?.count();
    let client = client.wait()?;
    note(lab, &stopped);
    std::fs::remove_dir_all(CAPTURES)?;
    timed_out(&client)?;
    // The connection was open to the end.
    let expected = collision(&addresses, &connect, &client)
        .with("/duration_ms", Value::Null)
        .with("/connection/syn_retransmits", json!({"<between>": [0, 3]}))
        .hijacked_and_open("backend")?;
    compare(&stopped.incidents, &[expected])?;
    ensure!(captures == 1, "{captures} captures instead of 1");
    ensure!(took < Duration::from_secs(5), "it took {took:?} to end");
    Ok(())
}

/// Killed: no program, map, link or pin is left, and the next one starts.
pub(super) fn sigkill_leaves_nothing(lab: &mut Lab) -> Result<()> {
    trouble::sigkill(lab, 1).map(drop)
}

/// Two at once both find what collides.
pub(super) fn two_instances(lab: &mut Lab) -> Result<()> {
    trouble::two_instances(lab).map(drop)
}

const SETTING: &str = "net/ipv4/ip_local_reserved_ports";

/// Another agent writes a setting over: told once for each change, and counted (kubespray's task, which reserves nothing
/// but the range of node ports).
// kubernetes-sigs/kubespray, release 2.31: "Ensure nodePort range is reserved".
pub(super) fn exposure_setting_changes_back(lab: &mut Lab) -> Result<()> {
    let (ours, theirs) = ("30000-32767,36763", "30000-32767");
    sysctl(SETTING, ours)?;
    let addresses = Addresses::v4(36763);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let mut running = Sidecar::start(&["--check-every", "300ms"])?;
    wait_for_a_check(&mut running)?;
    let mut expected = Vec::new();
    for (number, (before, after)) in [(ours, theirs), (theirs, ours), (ours, theirs)].into_iter().enumerate()
    {
        sysctl(SETTING, after)?;
        let name = "net.ipv4.ip_local_reserved_ports";
        let changes = u32::try_from(number)? + 1;
        let counted = |count: Option<f64>| count == Some(f64::from(changes));
        let labels = [format!("setting=\"{name}\"")];
        let labels = labels.each_ref().map(String::as_str);
        running.wait_for_metric(
            "portclash_setting_changes_total",
            &labels,
            Duration::from_secs(10),
            counted,
        )?;
        expected.push((json!(name), json!(before), json!(after), json!(changes), number > 0));
    }
    // More looks find nothing new.
    wait_for_a_check(&mut running)?;
    wait_for_a_check(&mut running)?;
    let stopped = running.stop()?;
    note(lab, &stopped);
    lab.note("changes", &format!("{:#?}", stopped.changes));
    let get = |line: &Value, key: &str| line.get(key).cloned().unwrap_or_default();
    let settings: Vec<_> = stopped
        .changes
        .iter()
        .filter(|line| line.get("setting").is_some_and(Value::is_string))
        .map(|line| {
            let back = get(line, "kind") == json!("setting_changed_back");
            (get(line, "setting"), get(line, "before"), get(line, "after"), get(line, "changes"), back)
        })
        .collect();
    ensure!(settings == expected, "expected {expected:#?}\nfound {settings:#?}");
    ensure!(stopped.incidents.is_empty(), "{} incidents", stopped.incidents.len());
    Ok(())
}

/// A new service on a source port: told once, however often it is seen.
// kubernetes/kubernetes#111823
pub(super) fn new_node_port_is_told_once(lab: &mut Lab) -> Result<()> {
    let mut running = Sidecar::start(&["--check-every", "300ms"])?;
    wait_for_a_check(&mut running)?;
    let addresses = Addresses::v4(36764);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let one = |count: Option<f64>| count == Some(1.0);
    let limit = Duration::from_secs(10);
    running.wait_for_metric("portclash_newly_exposed_ports_total", &[], limit, one)?;
    wait_for_a_check(&mut running)?;
    wait_for_a_check(&mut running)?;
    let metrics = running.metrics()?;
    let stopped = running.stop()?;
    note(lab, &stopped);
    lab.note("changes", &format!("{:#?}", stopped.changes));
    let [change] = stopped.changes.as_slice() else {
        anyhow::bail!("{} changes were told instead of 1", stopped.changes.len());
    };
    ensure!(change.get("kind") == Some(&json!("newly_exposed")), "{change:#}");
    ensure!(change.pointer("/ports/0/port") == Some(&json!(36764)), "{change:#}");
    ensure!(change.get("port_count") == Some(&json!(1)), "{change:#}");
    let gauge = metrics.count("portclash_exposed_ports", &[]);
    ensure!(gauge == 1 && metrics.count("portclash_newly_exposed_ports_total", &[]) == 1, "{metrics:#?}");
    Ok(())
}

/// Waits until the exposure was looked at once more.
fn wait_for_a_check(running: &mut Sidecar) -> Result<()> {
    let name = "portclash_exposure_check_timestamp_seconds";
    let last = running.metrics()?.sum(name, &[]);
    running.wait_for_metric(name, &[], Duration::from_secs(20), |at| at.is_some() && at != last)
}

/// The module goes and comes back.
pub(super) fn module_reloaded(lab: &mut Lab) -> Result<()> {
    trouble::module_reloaded(lab, 2).map(drop)
}

/// The disk of the captures is full: said once, counted, and over when there is room.
pub(super) fn disk_full(lab: &mut Lab) -> Result<()> {
    trouble::disk_full(lab).map(drop)
}

/// The smallest ring: what does not fit is counted.
pub(super) fn ring_minimum(lab: &mut Lab) -> Result<()> {
    trouble::ring_minimum(lab, Duration::from_secs(1)).map(drop)
}

/// The clock is set while it watches.
pub(super) fn clock_stepped(lab: &mut Lab) -> Result<()> {
    trouble::clock_stepped(lab, &[3600, -3600]).map(drop)
}

/// It does not get to run for a while.
pub(super) fn sigstop(lab: &mut Lab) -> Result<()> {
    trouble::sigstop(lab, Duration::from_secs(2), &[]).map(drop)
}

/// A thousand services at once; `cargo xtask reliability` makes ten thousand.
pub(super) fn services_changed(lab: &mut Lab) -> Result<()> {
    trouble::services_changed(lab, 1000).map(drop)
}

/// Kubelet goes and comes back with another certificate and token.
pub(super) fn kubelet_gone(lab: &mut Lab) -> Result<()> {
    sources::kubelet_gone(lab).map(drop)
}

/// The API server goes and comes back with another certificate and token.
pub(super) fn api_gone(lab: &mut Lab) -> Result<()> {
    sources::api_gone(lab).map(drop)
}

/// Namespaces come and go.
pub(super) fn netns_churn(lab: &mut Lab) -> Result<()> {
    trouble::netns_churn(lab, 50).map(drop)
}
