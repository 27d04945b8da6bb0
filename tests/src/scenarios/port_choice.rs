//! The prediction of `portclash check` against the kernel's own choice of source ports.
//!
//! Each connect goes to a destination of its own: the kernel draws its starting point anew, so that the connects are
//! independent and the number of collisions is binomial. The seed's node has so few of them that only far too many, or
//! the wrong parity, can be told from chance; a node with many services tells the rate to a few percent.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::host::say;
use crate::lab::{Lab, restore};
use crate::node::{BACKEND, NODE, ip, ip_in};
use crate::process::{run, sysctl};
use crate::tracer::Tracer;

/// `ip_local_port_range` of the seed's node.
pub(super) const RANGE: &str = "1024 65000";
/// The seed's node ports.
pub(super) const SEED: [u16; 18] = [
    20869, 21980, 23593, 24795, 24855, 28796, 29385, 29515, 31221, 32080, 32443, 35723, 35934, 36321, 36704,
    37629, 38820, 39080,
];
/// How far from the prediction the count may be, in standard deviations: chance alone fails one run in 10,000.
const SIGMAS: f64 = 4.0;
/// How many more it may be: small numbers stray further than the bell curve has it.
const FEW: f64 = 3.0;
/// The pod that answers for all destinations.
const FARM: &str = "10.23.77.150";
/// Where the client finds the service ports.
const PORTS_FILE: &str = "/run/service-ports";

/// 20,000 connects of the seed's node.
pub(super) fn seed_connect(lab: &mut Lab) -> Result<()> {
    compare(lab, &SEED, "connect", 20_000)
}

/// The same with bind() to port 0, which has the other parity.
pub(super) fn seed_bind(lab: &mut Lab) -> Result<()> {
    compare(lab, &SEED, "bind", 20_000)
}

/// A node with 1350 services.
pub(super) fn many_connect(lab: &mut Lab) -> Result<()> {
    compare(lab, &many(), "connect", 8_000)
}

/// The same with bind() to port 0.
pub(super) fn many_bind(lab: &mut Lab) -> Result<()> {
    compare(lab, &many(), "bind", 8_000)
}

/// 900 even and 450 odd ports in the seed's NodePort range: the two ways must differ, and neither is the share of the
/// services in the whole range.
fn many() -> Vec<u16> {
    (20_000..39_800).step_by(22).chain((20_001..39_800).step_by(44)).collect()
}

/// The tracer finds exactly the collisions that the client counts.
pub(super) fn traced(lab: &mut Lab) -> Result<()> {
    node(lab, &many())?;
    let mut running = Tracer::start(&[])?;
    let chosen = Chosen::of("connect", 1000, 0)?;
    let waited = running.wait_for_incidents(chosen.collisions.len());
    let (traced, messages) = running.stop()?;
    lab.note("portclash trace said", &messages);
    lab.note("summary", &format!("{:#}", traced.summary));
    let mut found: Vec<u16> = traced
        .incidents
        .iter()
        .filter(|incident| incident.get("verdict").and_then(Value::as_str) == Some("collision"))
        .filter_map(|incident| {
            incident.pointer("/connection/local")?.as_str()?.rsplit_once(':')?.1.parse().ok()
        })
        .collect();
    let mut counted = chosen.collisions.clone();
    found.sort_unstable();
    counted.sort_unstable();
    say(&format!("{} connects: {} collisions, traced {}", chosen.connects, counted.len(), found.len()));
    waited?;
    ensure!(!counted.is_empty(), "no connect of {} collided", chosen.connects);
    ensure!(found == counted, "traced ports {found:?}, the client's own {counted:?}");
    Ok(())
}

/// Do connects to other destinations move the search for a port towards one? `check` says so by the kernel's version.
pub(super) fn search(lab: &mut Lab) -> Result<()> {
    const OTHERS: u16 = 50;
    node(lab, &SEED)?;
    let said = check()?;
    let chosen = Chosen::of("connect", 2000, OTHERS)?;
    let pairs = chosen.home.iter().zip(chosen.home.iter().skip(1));
    let mut steps: Vec<u16> = pairs.map(|(before, after)| after.wrapping_sub(*before)).collect();
    steps.sort_unstable();
    let median = *steps.get(steps.len() / 2).context("no steps")?;
    // One search for all moves by two at least with each connect; one per destination by 16 at most with its own.
    let found = if median >= 2 * OTHERS { "global" } else { "per_destination" };
    let release = crate::lab::read("/proc/sys/kernel/osrelease");
    say(&format!(
        "{}: {OTHERS} connects elsewhere, then back to one destination: {median} ports further (median), so {found}",
        release.trim()
    ));
    let said = said.get("port_search").and_then(Value::as_str);
    ensure!(said.is_none_or(|said| said == found), "check says {said:?}");
    Ok(())
}

/// The seed's settings with services on the node's address, and a pod that answers for many addresses.
fn node(lab: &mut Lab, ports: &[u16]) -> Result<()> {
    sysctl("net/ipv4/ip_local_port_range", RANGE)?;
    sysctl("net/netfilter/nf_conntrack_max", "262144")?;
    let rules = ports
        .iter()
        .map(|port| format!("-A -t {NODE}:{port} -s rr\n-a -t {NODE}:{port} -r {BACKEND}:8443 -m\n"));
    restore(&rules.collect::<String>())?;
    farm(lab, ports.iter().copied())
}

/// A pod that answers for many addresses, and the ports that the client is to look out for.
pub(super) fn farm(lab: &mut Lab, ports: impl Iterator<Item = u16>) -> Result<()> {
    let list: Vec<String> = ports.map(|port| port.to_string()).collect();
    std::fs::write(PORTS_FILE, list.join("\n"))?;
    lab.pod("farm", FARM, "fd00:10:23:77::150")?;
    ip_in("farm", "route add local 10.99.0.0/16 dev lo\n")?;
    ip(&format!("route add 10.99.0.0/16 via {FARM} dev vfarm onlink src {NODE}\n"))?;
    lab.serve("farm", 80)
}

fn compare(lab: &mut Lab, ports: &[u16], way: &str, connects: u16) -> Result<()> {
    node(lab, ports)?;
    let check = check()?;
    lab.note("portclash check", &format!("{check:#}"));
    let chance = match way {
        "connect" => check.get("chance_per_connect"),
        _ => check.pointer("/chances/bind_zero"),
    };
    let chance = chance.and_then(Value::as_f64).context("check gives no chance")?;
    let chosen = Chosen::of(way, connects, 0)?;
    let n = f64::from(connects);
    let (expected, sigma) = (n * chance, (n * chance * (1.0 - chance)).sqrt());
    let observed = f64::from(u32::try_from(chosen.collisions.len())?);
    let distance = (observed - expected) / sigma;
    say(&format!(
        "{connects} connects by {way}, {} services: {observed} collisions, predicted {expected:.1} (chance {chance:.6}, \
         sigma {sigma:.1}): {distance:+.1} sigma; {} of the source ports even, {} connected",
        ports.len(),
        chosen.even,
        chosen.connected
    ));
    ensure!((observed - expected).abs() <= SIGMAS * sigma + FEW, "{distance:+.1} sigma from the prediction");
    // Few ports of the range are in use, so the other parity is never needed.
    let even = if way == "connect" { connects } else { 0 };
    ensure!(chosen.even == even, "{} of {connects} source ports are even, not {even}", chosen.even);
    ensure!(chosen.collisions_connected == 0, "{} collisions connected", chosen.collisions_connected);
    let others = f64::from(connects) - observed;
    ensure!(f64::from(chosen.connected) > others * 0.9, "only {} of {others} connected", chosen.connected);
    Ok(())
}

/// What `portclash check -o json` says about this node.
fn check() -> Result<Value> {
    let output = Command::new("portclash").args(["check", "-o", "json"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).with_context(|| format!("portclash check said {text:?} and {errors}"))
}

/// What the client found out about its own source ports.
pub(super) struct Chosen {
    connects: u16,
    even: u16,
    pub(super) connected: u16,
    home: Vec<u16>,
    /// Source ports that it was to look out for.
    pub(super) collisions: Vec<u16>,
    collisions_connected: u16,
}

impl Chosen {
    /// Connects so often from the node, each time to another destination (every `home`-th time to the same).
    pub(super) fn of(way: &str, connects: u16, home: u16) -> Result<Self> {
        std::fs::copy("/proc/self/exe", "/run/bin/choose")?;
        let text = run(&format!("/run/bin/choose choose {way} {connects} {home} {PORTS_FILE}"))?;
        let value: Value =
            serde_json::from_str(&text).with_context(|| format!("the client said {text:?}"))?;
        let number = |key: &str| {
            let number = value.get(key).and_then(Value::as_u64);
            number.and_then(|number| u16::try_from(number).ok()).with_context(|| format!("no {key}"))
        };
        let ports = |key: &str| {
            let list = value.get(key).cloned().with_context(|| format!("no {key}"))?;
            Ok::<Vec<u16>, anyhow::Error>(serde_json::from_value(list)?)
        };
        Ok(Self {
            connects: number("connects")?,
            even: number("even")?,
            connected: number("connected")?,
            home: ports("home")?,
            collisions: ports("collisions")?,
            collisions_connected: number("collisions_connected")?,
        })
    }
}
