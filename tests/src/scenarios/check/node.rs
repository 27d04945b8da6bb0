//! The node that is checked, and what the lab itself counts on it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::port_choice::{RANGE, SEED};
use super::{CONNECTS, DNS, HEALTH_CHECK, KEY, LISTENER, RESERVED, SERVICES_FILE};
use crate::lab::{Lab, restore, wait_until};
use crate::node::{BACKEND, CLUSTER_IP, NODE, POD};
use crate::process::sysctl;

/// The seed's settings and services, on its two addresses; besides, a ClusterIP, a UDP service and a program that listens.
pub(super) fn seeds_node(lab: &mut Lab) -> Result<()> {
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

pub(super) fn name_of(port: u16) -> Option<&'static str> {
    match port {
        36_704 => Some("kube-system/kubernetes-dashboard:https"),
        32_080 => Some("kube-system/traefik-ingress:web"),
        32_443 => Some("kube-system/traefik-ingress:websecure"),
        _ => None,
    }
}

/// Connects that this side closes first, until so many are in TIME-WAIT: a late reset of the server's side ends some.
pub(super) fn connects_in_time_wait() -> Result<()> {
    let wanted = time_wait()?.values().sum::<u32>() + CONNECTS;
    wait_until("the connects are in TIME-WAIT", Duration::from_secs(30), || {
        let missing = wanted.saturating_sub(time_wait()?.values().sum());
        for _ in 0..missing {
            TcpStream::connect((POD, 80))?;
        }
        Ok(missing == 0)
    })
}

/// Sockets in TIME-WAIT by local address, counted here: on a port of the range that is neither reserved nor the
/// listener's.
pub(super) fn time_wait() -> Result<BTreeMap<IpAddr, u32>> {
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
