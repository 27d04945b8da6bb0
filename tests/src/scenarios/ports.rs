//! No source port is left.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::client::Connect;
use crate::lab::{Lab, assert_incidents};
use crate::netns;
use crate::node::POD;
use crate::process::sysctl;

/// EADDRNOTAVAIL, with the process named.
pub(super) fn used_up(lab: &mut Lab) -> Result<()> {
    for port in [40100, 40101] {
        // A listener keeps its port from being chosen.
        lab.serve("node", port)?;
    }
    let connect = Connect::new(None, format!("{POD}:80").parse()?);
    let (client, traced) = lab.trace(&[], 1, |_| {
        sysctl("net/ipv4/ip_local_port_range", "40100 40101")?;
        connect.run()
    })?;
    ensure!(client.error.as_deref() == Some("EADDRNOTAVAIL"), "the client got {:?}", client.error);
    let expected = json!({
        "schema": "portclash.incident/v1",
        "id": "<text>",
        "verdict": "exhaustion",
        "outcome": "failed",
        "confidence": "proven",
        "started_at": "<time>",
        "duration_ms": {"<one of>": [null, {"<between>": [0, 1000]}]},
        "connection": {
            "local": null,
            "remote": format!("{POD}:80"),
            "netns": netns::inode("node")?,
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
    });
    assert_incidents(&traced, &[expected])
}
