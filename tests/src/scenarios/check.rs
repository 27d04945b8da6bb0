//! `portclash check` on a node whose services are in the kernel: what it says, and whether its advice helps.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::port_choice::{Chosen, RANGE, SEED, farm};
use crate::expect;
use crate::host::say;
use crate::lab::{Lab, read, restore, wait_until};
use crate::netns;
use crate::node::{BACKEND, CLUSTER_IP, NODE, POD};
use crate::process::{run, sysctl};

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
    seeds_node(lab)?;
    connects_in_time_wait()?;
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
        ("error", ["ip_local_port_range", "quotes", "(/etc/sysctl.d/50-ports.conf:2)"]),
        ("error", ["ip_local_reserved_ports", "EN DASH", "(/etc/sysctl.d/50-ports.conf:3)"]),
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
    lab.service(&format!("{NODE}:36704"), &[])?;
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
        TcpStream::connect((POD, 80))?;
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

/// The seed's settings and services, on its two addresses; besides, a ClusterIP, a UDP service and a program that listens.
fn seeds_node(lab: &mut Lab) -> Result<()> {
    sysctl("net/ipv4/ip_local_port_range", RANGE)?;
    sysctl(KEY, RESERVED)?;
    lab.address(DNS)?;
    let mut rules = format!("-A -t {CLUSTER_IP}:8443 -s rr\n-A -u {NODE}:30053 -s rr\n");
    for port in SEED {
        for address in [NODE, DNS] {
            rules += &format!("-A -t {address}:{port} -s rr\n-a -t {address}:{port} -r {BACKEND}:8443 -m\n");
        }
    }
    restore(&rules)?;
    lab.serve("node", LISTENER)?;
    lab.file(SERVICES_FILE, &services().to_string())
}

/// As `kubectl get svc -A -o json` lists them.
fn services() -> Value {
    let service = |name: &str, kind: &str, ip: &str, ports: &[(&str, u16, u16)], health: Option<u16>| {
        let ports = ports.iter().map(|(name, port, node_port)| {
            json!({"name": name, "port": port, "protocol": "TCP", "targetPort": port, "nodePort": node_port})
        });
        let mut spec =
            json!({"type": kind, "clusterIP": ip, "clusterIPs": [ip], "ports": ports.collect::<Vec<_>>()});
        if let (Some(health), Some(spec)) = (health, spec.as_object_mut()) {
            spec.insert("externalTrafficPolicy".to_owned(), json!("Local"));
            spec.insert("healthCheckNodePort".to_owned(), json!(health));
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "kube-system"},
            "spec": spec,
        })
    };
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            service("kubernetes-dashboard", "NodePort", "10.23.254.52", &[("https", 443, 36_704)], None),
            service(
                "traefik-ingress",
                "LoadBalancer",
                "10.23.192.176",
                &[("web", 80, 32_080), ("websecure", 443, 32_443)],
                Some(HEALTH_CHECK),
            ),
        ],
    })
}

fn name_of(port: u16) -> Option<&'static str> {
    match port {
        36_704 => Some("kube-system/kubernetes-dashboard:https"),
        32_080 => Some("kube-system/traefik-ingress:web"),
        32_443 => Some("kube-system/traefik-ingress:websecure"),
        _ => None,
    }
}

/// Connects that this side closes first.
fn connects_in_time_wait() -> Result<()> {
    let before = time_wait()?.values().sum::<u32>();
    for _ in 0..CONNECTS {
        TcpStream::connect((POD, 80))?;
    }
    wait_until("the connects are in TIME-WAIT", Duration::from_secs(20), || {
        Ok(time_wait()?.values().sum::<u32>() >= before + CONNECTS)
    })
}

/// Sockets in TIME-WAIT by local address, counted here: on a port of the range that is neither reserved nor the
/// listener's.
fn time_wait() -> Result<BTreeMap<IpAddr, u32>> {
    const TIME_WAIT: &str = "06";
    let mut counts = BTreeMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(file)?.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state)) = (words.get(1), words.get(3)) else { continue };
            let (ip, port) = local.split_once(':').context("a socket without a port")?;
            let port = u16::from_str_radix(port, 16)?;
            let reserved = port == 10_250 || (50_000..=50_010).contains(&port) || port == LISTENER;
            if *state == TIME_WAIT && (1024..=65_000).contains(&port) && !reserved {
                *counts.entry(address(ip)?).or_default() += 1;
            }
        }
    }
    Ok(counts)
}

/// An address as /proc/net/tcp has it: words of 32 bits, each as a number of this machine.
fn address(text: &str) -> Result<IpAddr> {
    let word = |from: usize| -> Result<[u8; 4]> {
        let digits = text.get(from..from + 8).context("a short address")?;
        Ok(u32::from_str_radix(digits, 16)?.to_ne_bytes())
    };
    if text.len() == 8 {
        return Ok(Ipv4Addr::from(word(0)?).into());
    }
    let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
    let bytes: [u8; 16] = words.try_into().ok().context("an address of another length")?;
    Ok(IpAddr::from(bytes).to_canonical())
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

/// A number that was computed another way.
fn near(value: f64) -> Value {
    json!({"<between>": [value * (1.0 - 1e-9), value * (1.0 + 1e-9)]})
}

fn expected_report(counts: &BTreeMap<IpAddr, u32>) -> Result<Value> {
    let netns = netns::inode("node")?;
    let chance = 7.0 / f64::from(STARTS);
    let per_second = f64::from(counts.values().sum::<u32>()) / 60.0;
    let exposed = [NODE.parse::<IpAddr>()?, DNS.parse()?];
    let at_risk: u32 = exposed.iter().filter_map(|ip| counts.get(ip)).sum();
    let per_hour = f64::from(at_risk) / 60.0 * chance * 3600.0;
    let ports = SEED.map(|port| {
        json!({
            "port": port,
            "addresses": [NODE, DNS],
            "services": name_of(port).into_iter().collect::<Vec<_>>(),
            "hit_by_connect": port % 2 == 0,
        })
    });
    let mut addresses: Vec<IpAddr> = exposed.iter().chain(counts.keys()).copied().collect();
    addresses.sort_unstable();
    addresses.dedup();
    let sources = addresses.iter().map(|ip| {
        let carries = exposed.contains(ip);
        json!({
            "address": ip,
            "exposed_count": if carries { 18 } else { 0 },
            "reachable_count": if carries { 7 } else { 0 },
            "assumed_like": null,
            "chance_per_connect": near(if carries { chance } else { 0.0 }),
            "connects_per_second": near(f64::from(counts.get(ip).copied().unwrap_or_default()) / 60.0),
        })
    });
    Ok(json!({
        "schema": "portclash.check/v1",
        "node": format!("this node, network namespace {netns} (pid 1)"),
        "status": "fail",
        "ephemeral": {"first": 1024, "last": 65_000, "source": "the running kernel"},
        "reserved": ["10250", "50000-50010"],
        "reserved_source": "the running kernel",
        "ipvs_in_use": true,
        "services_tcp": 37,
        "exposed_ports": ports,
        "exposed_count": 18,
        "reachable_count": 7,
        "node_port_range": {"first": 20_000, "last": 40_000, "source": "--node-port-range"},
        "overlap_count": 20_001,
        "overlap_unreserved": 20_001,
        "chance_per_connect": near(chance),
        "starting_points": STARTS,
        "chances": {
            "connect": near(chance),
            "bind_zero": near(11.0 / f64::from(STARTS)),
            "bind_zero_reuseaddr": near(11.0 / f64::from(STARTS)),
            "ip_local_port_range_option": near(18.0 / f64::from(STARTS)),
        },
        "sources": sources.collect::<Vec<_>>(),
        "connects_per_second": near(per_second),
        "rate_source": "TIME-WAIT",
        "expected_failures_per_hour": near(per_hour),
        "expected_failures_range": {
            "low": {"<between>": [per_hour / 3.0, per_hour]},
            "high": {"<between>": [per_hour, per_hour * 3.0]},
        },
        "seconds_to_first": near(3600.0 / per_hour),
        "port_search": "per_destination",
        "to_reserve": ["20000-40000"],
        "advice": [],
        "findings": [],
        "incomplete": [],
    }))
}
