//! What kind of backend is given the reply, and what becomes of it.

use anyhow::Result;
use serde_json::json;

use super::expected::{Addresses, Collision, timed_out};
use crate::lab::{Lab, assert_incidents, probe};
use crate::netns;
use crate::node::{NODE, NODE6, ip, ip_in, ipvsadm};
use crate::process::{run_with_input, sysctl};

/// Nobody listens on the backend's port: its stack resets without a socket.
pub(super) fn port_closed(lab: &mut Lab) -> Result<()> {
    closed(lab, Addresses::v4(36710), "10.23.77.139:9999")
}

/// The same over IPv6.
pub(super) fn port_closed_v6(lab: &mut Lab) -> Result<()> {
    closed(lab, Addresses::v6(36710), "[fd00:10:23:77::139]:9999")
}

fn closed(lab: &mut Lab, mut addresses: Addresses, backend: &str) -> Result<()> {
    backend.clone_into(&mut addresses.backend);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(&[], 1, |_| connect.run())?;
    timed_out(&client)?;
    let expected = Collision::new(&addresses, &connect, &client).backend_closed();
    assert_incidents(&traced, &[expected.hijacked("backend")?])
}

/// The backend is a pod on the node's own network: the node's stack resets.
pub(super) fn on_host_network(lab: &mut Lab) -> Result<()> {
    lab.serve("node", 8081)?;
    let addresses = Addresses { backend: format!("{NODE}:8081"), ..Addresses::v4(36711) };
    collide(lab, &addresses, "node")
}

/// The backend is on another node: its reset comes over the wire and no hook of this kernel sees it being made.
/// Here a namespace plays that node; its packet filter answers, which is not the TCP stack that the tracer hooks.
pub(super) fn on_another_node(lab: &mut Lab) -> Result<()> {
    lab.pod("node2", "10.23.77.140", "fd00:10:23:77::140")?;
    for module in ["nf_reject_ipv4", "nf_reject_ipv6", "nft_reject", "nft_reject_inet", "nft_reject_ipv4"] {
        crate::guest::load_module(module)?;
    }
    let reject = "table ip remote { chain in { type filter hook input priority 0; \
                  tcp flags syn,ack / syn,ack reject with tcp reset; }; }\n";
    run_with_input("ip netns exec node2 nft -f -", reject)?;
    let addresses = Addresses { backend: "10.23.77.140:8443".to_owned(), ..Addresses::v4(36712) };
    lab.service(&addresses.local, &[&addresses.backend])?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(&[], 1, |_| connect.run())?;
    timed_out(&client)?;
    assert_incidents(&traced, &[Collision::new(&addresses, &connect, &client).hijacked_with(json!([]), &[])])
}

/// ClientIP affinity.
pub(super) fn persistent_service(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36713);
    ipvsadm(&format!("-A -t {} -s rr -p 10800", addresses.local))?;
    ipvsadm(&format!("-a -t {} -r {} -m", addresses.local, addresses.backend))?;
    traced_collision(lab, &addresses, "backend")
}

/// A service without backends: no reset at all, ICMP port unreachable instead.
pub(super) fn none(lab: &mut Lab) -> Result<()> {
    no_backend(lab, &Addresses::v4(36714))
}

/// The same over IPv6.
pub(super) fn none_v6(lab: &mut Lab) -> Result<()> {
    no_backend(lab, &Addresses::v6(36714))
}

fn no_backend(lab: &mut Lab, addresses: &Addresses) -> Result<()> {
    lab.service(&addresses.local, &[])?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(&[], 1, |_| connect.run())?;
    timed_out(&client)?;
    let expected = Collision::new(addresses, &connect, &client).with("/service/backends", json!([]));
    assert_incidents(&traced, &[expected.no_backend()])
}

/// All backends have weight 0, as kube-proxy sets it while a pod terminates: as good as none.
pub(super) fn weight_zero(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36715);
    ipvsadm(&format!("-A -t {} -s rr", addresses.local))?;
    ipvsadm(&format!("-a -t {} -r {} -m -w 0", addresses.local, addresses.backend))?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(&[], 1, |_| connect.run())?;
    timed_out(&client)?;
    assert_incidents(&traced, &[Collision::new(&addresses, &connect, &client).no_backend()])
}

/// Pods on one bridge without br_netfilter: the backend's reset reaches the pod past IPVS, untranslated.
pub(super) fn bridge_without_br_netfilter(lab: &mut Lab) -> Result<()> {
    ip("link add br0 type bridge\naddr add 10.23.78.1/24 dev br0\nlink set br0 up\n")?;
    for (name, address) in [("brpod", "10.23.78.138"), ("brback", "10.23.78.139")] {
        lab.namespace(name)?;
        ip(&format!(
            "link add v{name} type veth peer name eth0 netns {name}\nlink set v{name} master br0\nlink set v{name} up\n"
        ))?;
        ip_in(
            name,
            &format!(
                "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via 10.23.78.1\n"
            ),
        )?;
    }
    lab.serve("brpod", 80)?;
    lab.serve("brback", 8443)?;
    let addresses = Addresses {
        local: format!("{NODE}:36716"),
        remote: "10.23.78.138:80".to_owned(),
        backend: "10.23.78.139:8443".to_owned(),
    };
    let outcome = collide(lab, &addresses, "brback");
    ip("link del br0\n")?;
    outcome
}

/// The peer is a server of the node itself: the SYN-ACK is hijacked where it leaves, on loopback.
pub(super) fn peer_on_own_host(lab: &mut Lab) -> Result<()> {
    lab.serve("node", 8082)?;
    let addresses = Addresses { remote: format!("{NODE}:8082"), ..Addresses::v4(36717) };
    collide(lab, &addresses, "backend")
}

/// The same over IPv6.
pub(super) fn peer_on_own_host_v6(lab: &mut Lab) -> Result<()> {
    lab.serve("node", 8082)?;
    let addresses = Addresses { remote: format!("[{NODE6}]:8082"), ..Addresses::v6(36717) };
    collide(lab, &addresses, "backend")
}

/// The table of a namespace other than the node's, with `--netns`.
pub(super) fn ipvs_in_another_namespace(lab: &mut Lab) -> Result<()> {
    lab.pod("other", "10.23.77.150", "fd00:10:23:77::150")?;
    netns::run_in("other", || sysctl("net/ipv4/ip_forward", "1"))?;
    let addresses = Addresses { local: "10.23.77.150:36718".to_owned(), ..Addresses::v4(0) };
    for arguments in [
        format!("-A -t {} -s rr", addresses.local),
        format!("-a -t {} -r {} -m", addresses.local, addresses.backend),
    ] {
        crate::process::run(&format!("ip netns exec other ipvsadm {arguments}"))?;
    }
    let mut connect = probe(&addresses.local, &addresses.remote)?;
    connect.namespace = "other";
    let (client, traced) = lab.trace(&["--netns", "/run/netns/other"], 1, |_| connect.run())?;
    timed_out(&client)?;
    let expected = Collision::new(&addresses, &connect, &client);
    let expected = expected.with("/connection/netns", json!(netns::inode("other")?));
    assert_incidents(&traced, &[expected.hijacked("backend")?])
}

fn collide(lab: &mut Lab, addresses: &Addresses, resetting: &str) -> Result<()> {
    lab.service(&addresses.local, &[&addresses.backend])?;
    traced_collision(lab, addresses, resetting)
}

fn traced_collision(lab: &mut Lab, addresses: &Addresses, resetting: &str) -> Result<()> {
    let connect = probe(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(&[], 1, |_| connect.run())?;
    timed_out(&client)?;
    assert_incidents(&traced, &[Collision::new(addresses, &connect, &client).hijacked(resetting)?])
}
