//! The node: addresses, pods with their own veth and /32 route, kube-proxy's settings and rules, IPv4 and IPv6.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use crate::process::{run, run_with_input, sysctl};

/// The node's address, as in the seed's incident.
pub const NODE: &str = "10.23.77.129";
/// The same, IPv6.
pub const NODE6: &str = "fd00:10:23:77::129";
/// Address of the probed pod.
pub const POD: &str = "10.23.77.138";
/// The same, IPv6.
pub const POD6: &str = "fd00:10:23:77::138";
/// Address of the backend's pod.
pub const BACKEND: &str = "10.23.77.139";
/// The same, IPv6.
pub const BACKEND6: &str = "fd00:10:23:77::139";
/// A ClusterIP, on kube-ipvs0 as kube-proxy has it.
pub const CLUSTER_IP: &str = "10.96.0.10";

/// Pods: name of the namespace, IPv4, IPv6.
const PODS: &[(&str, &str, &str)] = &[("pod", POD, POD6), ("backend", BACKEND, BACKEND6)];

/// What kube-proxy sets in IPVS mode; it is gone when the module is loaded anew. Without the first, IPVS drops for a
/// minute what comes to the port of a collision whose service is gone.
pub const KUBE_PROXY_SETTINGS: &[(&str, &str)] = &[
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    ("net/ipv4/vs/expire_quiescent_template", "1"),
    ("net/ipv4/vs/conntrack", "1"),
];

/// Sets the whole node up. Services and servers are a scenario's business.
pub fn set_up() -> Result<()> {
    set_up_without_pods()?;
    PODS.iter().try_for_each(|(name, v4, v6)| add_pod(name, v4, v6))
}

/// Sets the node up for pods that a container runtime makes.
pub fn set_up_without_pods() -> Result<()> {
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
    ]
    .iter()
    .chain(KUBE_PROXY_SETTINGS)
    {
        sysctl(name, value)?;
    }
    ip(&format!(
        "link set lo up\n\
         link add node0 type dummy\n\
         addr add {NODE}/32 dev node0\n\
         addr add {NODE6}/128 dev node0 nodad\n\
         link set node0 up\n\
         link add kube-ipvs0 type dummy\n\
         addr add {CLUSTER_IP}/32 dev kube-ipvs0\n"
    ))?;
    masquerade_rules()
}

/// A namespace with one veth to the node, a /32 and a /128 address and a default route, as CNI plugins make it.
pub fn add_pod(name: &str, v4: &str, v6: &str) -> Result<()> {
    let mut inside = String::from("link set lo up\n");
    let _ = write!(inside, "addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\nlink set eth0 up\n");
    inside.push_str("route add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1\n");
    inside.push_str("route add ::/0 via fe80::1 dev eth0\n");
    ip(&format!(
        "netns add {name}\n\
         link add v{name} type veth peer name eth0 netns {name}\n\
         addr add 169.254.1.1/32 dev v{name} scope link\n\
         addr add fe80::1/64 dev v{name} nodad\n\
         link set v{name} up\n"
    ))?;
    ip_in(name, &inside)?;
    ip(&format!(
        "route add {v4}/32 dev v{name} src {NODE}\n\
         route add {v6}/128 dev v{name} src {NODE6}\n"
    ))
}

/// kube-proxy's mark and MASQUERADE, in nftables. They also make the kernel track connections.
fn masquerade_rules() -> Result<()> {
    let mut rules = String::new();
    for (family, addresses) in [("ip", format!("{NODE}, {CLUSTER_IP}")), ("ip6", NODE6.to_owned())] {
        let _ = write!(
            rules,
            "table {family} kube-proxy {{
               chain mark-output {{ type nat hook output priority -100; {family} daddr {{ {addresses} }} meta l4proto tcp ct state new jump mark-masq; }}
               chain mark-input {{ type nat hook prerouting priority -100; {family} daddr {{ {addresses} }} meta l4proto tcp ct state new jump mark-masq; }}
               chain mark-masq {{ meta mark set mark or 0x4000; }}
               chain post {{ type nat hook postrouting priority 100; meta mark and 0x4000 != 0x4000 return; meta mark set mark xor 0x4000; masquerade; }}
             }}\n"
        );
    }
    run_with_input("nft -f -", &rules).map(drop).context("kube-proxy's rules")
}

/// Runs a batch of `ip` commands, one a line, in the node's namespace.
pub fn ip(batch: &str) -> Result<()> {
    run_with_input("ip -batch -", batch).map(drop)
}

/// Runs a batch of `ip` commands in a named namespace.
pub fn ip_in(name: &str, batch: &str) -> Result<()> {
    run_with_input(&format!("ip -n {name} -batch -"), batch).map(drop)
}

/// Runs `ipvsadm` in the node's namespace.
pub fn ipvsadm(arguments: &str) -> Result<()> {
    run(&format!("ipvsadm {arguments}")).map(drop)
}
