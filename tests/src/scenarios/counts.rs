//! `portclash ports`: who uses up the ephemeral ports, by each way to count.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::client::{CGROUP_VARIABLE, Connect};
use crate::lab::Lab;
use crate::node::{BACKEND, NODE, POD};
use crate::process::sysctl;
use crate::server::Server;
use crate::{expect, netns};

/// Where node-local-dns listens, as in the seed's incident.
const DNS: &str = "169.254.20.10";
const ID: &str = "8f1c2a9e4b7d60315c8e2f4a6b9d0c1e3f5a7b8c9d0e1f2a3b4c5d6e7f809a1b";
const POD_UID: &str = "3daea6ef-f286-43f2-8825-51edaa3994d3";
const CONNECTS: u32 = 20;

/// What `portclash ports` said.
struct Counted {
    rows: Vec<Value>,
    summary: Value,
    status: Option<i32>,
}

/// Counts while `work` runs; `pods` is where their names come from.
fn count<T>(
    lab: &mut Lab,
    hooks: &str,
    pods: &str,
    work: impl FnOnce(&mut Lab) -> Result<T>,
) -> Result<(T, Counted)> {
    let mut child = Command::new("portclash")
        .args(["ports", "-o", "json", "--duration", "5m", "--hooks", hooks, "--pods", pods])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start portclash")?;
    let mut messages = BufReader::new(child.stderr.take().context("no messages")?);
    let mut first = String::new();
    messages.read_line(&mut first)?;
    if !first.starts_with("counting: ") {
        messages.read_to_string(&mut first)?;
        bail!("portclash ports does not count: {first}");
    }
    let done = work(lab);
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    lab.note("portclash ports said", &text);
    let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let (summary, rows) = lines.split_last().context("no summary")?;
    Ok((done?, Counted { rows: rows.to_vec(), summary: summary.clone(), status: output.status.code() }))
}

/// The one row of those that `wanted` picks.
fn row_of<'a>(counted: &'a Counted, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<&'a Value> {
    let found: Vec<&Value> = counted.rows.iter().filter(|row| wanted(row)).collect();
    match found.as_slice() {
        [row] => Ok(row),
        rows => bail!("{} rows of {what}", rows.len()),
    }
}

fn container_cgroup() -> String {
    let pod = format!("kubepods-besteffort-pod{}.slice", POD_UID.replace('-', "_"));
    format!("/kubepods.slice/kubepods-besteffort.slice/{pod}/cri-containerd-{ID}.scope")
}

/// A list with the pod of the container and another, as `kubectl get pods -A -o json` prints it.
fn listed_pods() -> Result<String> {
    let pod = |name: &str, uid: &str, id: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": "kube-system", "name": name, "uid": uid},
            "spec": {"hostNetwork": true, "containers": [{"name": "node-cache", "image": "node-cache:1"}]},
            "status": {
                "phase": "Running",
                "containerStatuses": [{"name": "node-cache", "containerID": format!("containerd://{id}")}],
            },
        })
    };
    let other = pod("node-local-dns-2p9mz", "0b3c1d52-2f7e-4a51-9f2e-6f3d1c8b7a90", &ID.replace('8', "9"));
    let items = [other, pod("node-local-dns-x7k2p", POD_UID, ID)];
    let path = "/run/counts-pods.json";
    std::fs::write(path, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    Ok(format!("file:{path}"))
}

fn program(name: &str) -> Result<String> {
    let path = format!("/run/bin/{name}");
    std::fs::create_dir_all("/run/bin")?;
    std::fs::copy("/proc/self/exe", &path)?;
    Ok(path)
}

/// A process that has connected to itself and stays.
struct ToItself {
    child: Child,
    _output: BufReader<ChildStdout>,
}

impl ToItself {
    fn start(address: &str) -> Result<Self> {
        let mut child = Command::new(program("node-cache")?)
            .args(["itself", address, &CONNECTS.to_string()])
            .env(CGROUP_VARIABLE, container_cgroup())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        ensure!(line.trim() == child.id().to_string(), "the process that connects to itself said {line:?}");
        Ok(Self { child, _output: output })
    }
}

impl Drop for ToItself {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

pub(super) fn to_itself_fentry(lab: &mut Lab) -> Result<()> {
    to_itself(lab, "fentry", 8081)
}

pub(super) fn to_itself_kprobe(lab: &mut Lab) -> Result<()> {
    to_itself(lab, "kprobe", 8082)
}

pub(super) fn to_itself_stable(lab: &mut Lab) -> Result<()> {
    to_itself(lab, "stable", 8083)
}

/// Listed with pid, name, container, pod, destination, rate, ports and expected collisions, all of it exact.
fn to_itself(lab: &mut Lab, hooks: &str, port: u16) -> Result<()> {
    lab.address(DNS)?;
    lab.service(&format!("{DNS}:36704"), &[&format!("{BACKEND}:8443")])?;
    let address = format!("{DNS}:{port}");
    let (process, counted) = count(lab, hooks, &listed_pods()?, |_| ToItself::start(&address))?;
    let row = row_of(&counted, "the process", |row| {
        row.pointer("/owner/pid").and_then(Value::as_u64) == Some(u64::from(process.child.id()))
    })?;
    let expected = json!({
        "schema": "portclash.ports/v1",
        "owner": {
            "pid": process.child.id(),
            "ended": false,
            "processes": 1,
            "comm": "node-cache",
            "exe": "/run/bin/node-cache",
            "container_id": ID,
            "pod": {"namespace": "kube-system", "name": "node-local-dns-x7k2p", "uid": POD_UID},
        },
        "netns": netns::inode("node")?,
        "destination": address,
        "connects": CONNECTS,
        "connects_per_second": row.get("connects_per_second"),
        "local_ports_in_use": CONNECTS,
        "time_wait": CONNECTS,
        "owners_of_destination": 1,
        "share_of_range": f64::from(CONNECTS) / 28_232.0,
        "outlook": row.get("outlook"),
        "seconds_until_used_up": null,
        "expected_collisions_per_hour": row.get("expected_collisions_per_hour"),
        "unavailable": 0,
    });
    let found = expect::differences(&expected, row);
    ensure!(found.is_empty(), "not as expected:\n{}", found.join("\n"));
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_f64).context("no number");
    let rate = number(row, "connects_per_second")?;
    let counted_rate = f64::from(CONNECTS) / number(&counted.summary, "seconds")?;
    ensure!((rate / counted_rate - 1.0).abs() < 0.001, "{rate} connects/s are not {counted_rate}");
    // One service of the low end's parity among half of the range.
    let collisions = number(row, "expected_collisions_per_hour")?;
    let predicted = rate * 3600.0 / 14_116.0;
    ensure!((collisions / predicted - 1.0).abs() < 0.001, "{collisions} collisions/h are not {predicted}");
    served_by(&counted, hooks)?;
    ensure!(counted.summary.get("lost") == Some(&json!({})), "lost {:?}", counted.summary.get("lost"));
    Ok(())
}

fn served_by(counted: &Counted, hooks: &str) -> Result<()> {
    let hook = counted.summary.pointer("/hooks/connect").and_then(Value::as_str);
    let expected = if hooks == "stable" { "tracepoint" } else { hooks };
    ensure!(hook == Some(expected), "connects are counted by {hook:?}, not by {expected}");
    let incomplete = counted.summary.get("incomplete");
    ensure!(incomplete == Some(&json!([])), "incomplete: {incomplete:?}");
    Ok(())
}

pub(super) fn none_left_fentry(lab: &mut Lab) -> Result<()> {
    none_left(lab, "fentry", false)
}

pub(super) fn none_left_kprobe(lab: &mut Lab) -> Result<()> {
    none_left(lab, "kprobe", false)
}

pub(super) fn none_left_stable(lab: &mut Lab) -> Result<()> {
    none_left(lab, "stable", false)
}

/// v4-mapped addresses on an IPv6 socket: both functions that could count it return.
pub(super) fn none_left_v4_mapped(lab: &mut Lab) -> Result<()> {
    ["fentry", "kprobe"].iter().try_for_each(|hooks| none_left(lab, hooks, true))
}

/// EADDRNOTAVAIL is counted for the process and destination, and is no connect.
fn none_left(lab: &mut Lab, hooks: &str, mapped: bool) -> Result<()> {
    // A listener keeps its port from being chosen.
    let _listeners = [Server::start("node", 40100)?, Server::start("node", 40101)?];
    let mut connect = Connect::new(None, format!("{POD}:80").parse()?);
    connect.cgroup = container_cgroup();
    connect.mapped = mapped;
    let (client, counted) = count(lab, hooks, "none", |_| {
        sysctl("net/ipv4/ip_local_port_range", "40100 40101")?;
        connect.run()
    })?;
    ensure!(client.error.as_deref() == Some("EADDRNOTAVAIL"), "the client got {:?}", client.error);
    let row = row_of(&counted, "the client", |row| {
        row.pointer("/owner/pid").and_then(Value::as_u64) == Some(u64::from(client.pid))
    })?;
    for (path, expected) in [
        ("/destination", json!(format!("{POD}:80"))),
        ("/owner/comm", json!("kubelet")),
        ("/owner/container_id", json!(ID)),
        ("/owner/ended", json!(true)),
        ("/connects", json!(0)),
        ("/unavailable", json!(1)),
        ("/outlook", json!("used_up")),
    ] {
        ensure!(row.pointer(path) == Some(&expected), "{path} is {:?}, not {expected}", row.pointer(path));
    }
    ensure!(counted.summary.get("unavailable") == Some(&json!(1)), "the summary counts otherwise");
    ensure!(counted.status == Some(1), "exit status is {:?}, expected 1", counted.status);
    served_by(&counted, hooks)
}

/// A hundred processes of one container that live for a moment, each under its own name: one row.
pub(super) fn of_short_lived_processes(lab: &mut Lab) -> Result<()> {
    const COUNT: u64 = 100;
    let remote = format!("{POD}:80");
    let burst = program("burst")?;
    let (born, counted) = count(lab, "auto", "none", |_| {
        let output = Command::new(&burst)
            .args(["burst", NODE, "38100", &COUNT.to_string(), &remote])
            .env(CGROUP_VARIABLE, container_cgroup())
            .output()?;
        serde_json::from_slice::<Vec<(u32, u16, u64)>>(&output.stdout).context("the burst's answer")
    })?;
    ensure!(born.len() as u64 == COUNT, "{} processes were born", born.len());
    let row = row_of(&counted, "the container", |row| {
        row.pointer("/owner/container_id").and_then(Value::as_str) == Some(ID)
    })?;
    for (path, expected) in [
        ("/destination", json!(remote)),
        ("/owner/processes", json!(COUNT)),
        ("/owner/pid", Value::Null),
        ("/owner/ended", json!(true)),
        ("/connects", json!(COUNT)),
    ] {
        ensure!(row.pointer(path) == Some(&expected), "{path} is {:?}, not {expected}", row.pointer(path));
    }
    ensure!(counted.summary.get("lost") == Some(&json!({})), "lost {:?}", counted.summary.get("lost"));
    Ok(())
}
