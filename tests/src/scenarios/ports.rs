//! No source port is left.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::client::{Connect, Ended};
use crate::lab::{Lab, assert_incidents};
use crate::netns;
use crate::node::{POD, POD6};
use crate::process::sysctl;

/// EADDRNOTAVAIL, with the process named.
pub(super) fn used_up(lab: &mut Lab) -> Result<()> {
    find_none(lab, &format!("{POD}:80"), &[])
}

/// The same by hooks with a stable interface, which see only the system call and its registers.
pub(super) fn used_up_stable_rung(lab: &mut Lab) -> Result<()> {
    find_none(lab, &format!("{POD}:80"), STABLE)
}

/// An IPv6 address as well: it is read from the memory of the process.
pub(super) fn used_up_stable_rung_v6(lab: &mut Lab) -> Result<()> {
    find_none(lab, &format!("[{POD6}]:80"), STABLE)
}

const STABLE: &[&str] = &["--hooks", "stable"];

fn find_none(lab: &mut Lab, remote: &str, arguments: &[&str]) -> Result<()> {
    for port in [40100, 40101] {
        // A listener keeps its port from being chosen.
        lab.serve("node", port)?;
    }
    let connect = Connect::new(None, remote.parse()?);
    let (client, traced) = lab.trace(arguments, 1, |_| {
        sysctl("net/ipv4/ip_local_port_range", "40100 40101")?;
        connect.run()
    })?;
    ensure!(client.error.as_deref() == Some("EADDRNOTAVAIL"), "the client got {:?}", client.error);
    // A system call does not tell in which namespace its socket is.
    let netns = if arguments == STABLE { None } else { Some(netns::inode("node")?) };
    assert_incidents(&traced, &[exhaustion(remote, netns, &connect, &client)])
}

fn exhaustion(remote: &str, netns: Option<u64>, connect: &Connect, client: &Ended) -> Value {
    json!({
        "schema": "portclash.incident/v1",
        "id": "<text>",
        "verdict": "exhaustion",
        "outcome": "failed",
        "confidence": "proven",
        "started_at": "<time>",
        "duration_ms": {"<one of>": [null, {"<between>": [0, 1000]}]},
        "connection": {
            "local": null,
            "remote": remote,
            "netns": netns,
            "isn": null,
            "syn_retransmits": 0,
        },
        "service": null,
        "owner": {
            "pid": client.pid,
            "comm": "kubelet",
            // The process is gone at once, and /proc with it.
            "exe": {"<one of>": [null, connect.path()]},
            "cmdline": connect.command_line(),
            "cgroup": connect.cgroup,
            "container_id": null,
            "pod": null,
            "confidence": "proven",
        },
        "probe": null,
        "hijack": null,
        "resets": [],
        "log_lines": [],
        "evidence": {"<each>": {"at": "<time>", "source": "<text>", "text": "<text>"}, "<between>": [1, 5]},
        "advice": {"<each>": super::expected::any_advice(), "<between>": [1, 5]},
    })
}
