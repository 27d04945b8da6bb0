//! The incidents that scenarios expect, whole.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::{Connect, Ended};
use crate::netns;
use crate::node::{BACKEND, BACKEND6, NODE, NODE6, POD, POD6};

/// Addresses of one collision, `address:port`.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    /// The node's side of the connect, which is the service.
    pub(super) local: String,
    /// The probed pod's server.
    pub(super) remote: String,
    /// The backend.
    pub(super) backend: String,
}

impl Addresses {
    /// Node, pod and backend over IPv4, with a service on `port`.
    pub(super) fn v4(port: u16) -> Self {
        Self {
            local: format!("{NODE}:{port}"),
            remote: format!("{POD}:80"),
            backend: format!("{BACKEND}:8443"),
        }
    }

    /// The same over IPv6.
    pub(super) fn v6(port: u16) -> Self {
        Self {
            local: format!("[{NODE6}]:{port}"),
            remote: format!("[{POD6}]:80"),
            backend: format!("[{BACKEND6}]:8443"),
        }
    }
}

/// Fails unless the client's time ran out: that is all it ever sees of a collision.
pub(super) fn timed_out(client: &Ended) -> Result<()> {
    let error = client.error.as_deref();
    ensure!(
        matches!(error, Some("EINPROGRESS" | "ETIMEDOUT")),
        "the client was to time out, it got {error:?}"
    );
    Ok(())
}

/// The advice against collisions, where nothing is reserved and `ports` are to be.
pub(super) fn advice_to_reserve(ports: &str) -> Value {
    json!({
        "setting": "net.ipv4.ip_local_reserved_ports",
        "value": ports,
        "command": format!("sysctl -w net.ipv4.ip_local_reserved_ports={ports}"),
        "persist": format!("/etc/sysctl.d/90-nodeports.conf: net.ipv4.ip_local_reserved_ports = {ports}"),
        "why": "<text>",
    })
}

/// A piece of advice of any kind, complete.
pub(super) fn any_advice() -> Value {
    let text_or_null = json!({"<one of>": [null, "<text>"]});
    json!({
        "setting": "<text>",
        "value": text_or_null,
        "command": text_or_null,
        "persist": text_or_null,
        "why": "<text>",
    })
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(_, port)| port)
}

/// A collision as an incident, whole. The methods at the end of a chain give the JSON.
pub(super) struct Collision {
    incident: Value,
    addresses: Addresses,
    /// Why the backend's stack resets.
    backend_reason: &'static str,
    /// What names pods, probes and Services among the evidence.
    notes: Vec<String>,
    /// Its end was not seen.
    open: bool,
}

impl Collision {
    /// What all collisions have in common.
    pub(super) fn new(addresses: &Addresses, connect: &Connect, client: &Ended) -> Self {
        let incident = json!({
            "schema": "portclash.incident/v1",
            "id": "<text>",
            "verdict": "collision",
            "confidence": "proven",
            "started_at": "<time>",
            "duration_ms": {"<between>": [1000, 4000]},
            "connection": {
                "local": addresses.local,
                "remote": addresses.remote,
                "netns": netns::inode("node").ok(),
                "isn": "<isn>",
                "syn_retransmits": {"<between>": [1, 3]},
            },
            "service": {
                "protocol": "TCP",
                "address": addresses.local,
                "scheduler": "rr",
                "name": null,
                "kind": null,
                "backends": [addresses.backend],
            },
            "owner": {
                "pid": client.pid,
                "comm": connect.name,
                "exe": connect.path(),
                "cmdline": connect.command_line(),
                "cgroup": connect.cgroup,
                "container_id": null,
                "pod": null,
                "confidence": "proven",
            },
            "probe": null,
            "log_lines": [],
            "evidence": null,
            "advice": [advice_to_reserve(port_of(&addresses.local))],
        });
        Self {
            incident,
            addresses: addresses.clone(),
            backend_reason: TCP_FLAGS,
            notes: Vec::new(),
            open: false,
        }
    }

    /// Evidence that names pods, probes and Services, each text as it is.
    pub(super) fn noted(mut self, notes: &[String]) -> Self {
        self.notes.extend_from_slice(notes);
        self
    }

    /// Changes one field, named by its JSON pointer.
    pub(super) fn with(mut self, pointer: &str, value: Value) -> Self {
        if let Some(field) = self.incident.pointer_mut(pointer) {
            *field = value;
        }
        self
    }

    /// Nobody listens on the backend's port.
    pub(super) fn backend_closed(mut self) -> Self {
        self.backend_reason = NO_SOCKET;
        self
    }

    /// A backend in namespace `resetting` was given the reply and reset it.
    pub(super) fn hijacked(self, resetting: &str) -> Result<Value> {
        let (resets, texts) = self.resets_of_the_backend(resetting)?;
        Ok(self.hijacked_with(resets, &texts))
    }

    /// The same, and the connection was open to the end.
    pub(super) fn hijacked_and_open(mut self, resetting: &str) -> Result<Value> {
        self.open = true;
        self.hijacked(resetting)
    }

    /// A backend in namespace `resetting` reset the reply, which IPVS gave it by an entry of an earlier connect: it
    /// scheduled nothing. Its table may have been read in time, or not.
    pub(super) fn hijacked_again(self, resetting: &str) -> Result<Value> {
        let (resets, texts) = self.resets_of_the_backend(resetting)?;
        let row = json!({"<one of>": [null, self.hijack()]});
        let kept = self.kept();
        Ok(self.ended("hijacked", row, resets, &[texts], &kept))
    }

    /// The late reply came when the client had closed, and the node's own stack reset it.
    pub(super) fn reset_by_own_stack(self) -> Result<Value> {
        let Addresses { local, remote, .. } = self.addresses.clone();
        let netns = netns::inode("node")?;
        let reason = reset_reason(NO_SOCKET)?;
        let because = reason.map_or(String::new(), |reason| format!(", reason {reason}"));
        let text = format!(
            "this node's own stack, at {local}, reset the reply of {remote}: \
             RST seq <isn+1> = ISN + 1 (namespace {netns}{because})"
        );
        let reset = json!({
            "at": "<time>",
            "netns": netns,
            "local": local,
            "remote": remote,
            "seq": "<isn+1>",
            "reason": reason,
        });
        // It is not the cause that the advice is for.
        let changed = self
            .with("/verdict", json!("other_reset"))
            .with("/confidence", json!("likely"))
            .with("/advice", json!([]));
        Ok(changed.ended("failed", Value::Null, json!([reset]), &[vec![text]], &[]))
    }

    /// The service is none of IPVS: the handshake completed, and the client was served.
    pub(super) fn survived(self) -> Value {
        self.with("/confidence", json!("likely")).ended("survived", Value::Null, json!([]), &[], &[])
    }

    /// The resets of a backend in namespace `resetting`, and the forms that evidence of them has.
    fn resets_of_the_backend(&self, resetting: &str) -> Result<(Value, Vec<String>)> {
        let netns = netns::inode(resetting)?;
        let reason = reset_reason(self.backend_reason)?;
        let resets = json!({
            "<each>": {
                "at": "<time>",
                "netns": netns,
                "local": self.addresses.backend,
                "remote": self.addresses.remote,
                "seq": "<isn+1>",
                "reason": reason,
            },
            "<between>": [1, 4],
        });
        let because = reason.map_or(String::new(), |reason| format!(", reason {reason}"));
        let backend = &self.addresses.backend;
        let text = format!(
            "the stack of backend {backend} reset it: RST seq <isn+1> = ISN + 1 (namespace {netns}{because})"
        );
        Ok((resets, vec![text]))
    }

    /// The connection that IPVS made of the reply.
    fn hijack(&self) -> Value {
        let Addresses { local, remote, backend } = &self.addresses;
        json!({
            "client": remote,
            "virtual": local,
            "backend": backend,
            "state": {"<one of>": [null, "SYN_RECV", "CLOSE"]},
        })
    }

    /// How evidence names that connection where the table was read.
    fn kept(&self) -> [String; 2] {
        let Addresses { local, remote, backend } = &self.addresses;
        ["SYN_RECV", "CLOSE"].map(|state| {
            format!(
                "IPVS keeps the connection it made of the reply: \
                 client {remote}, service {local}, backend {backend}, state {state}"
            )
        })
    }

    /// A backend was given the reply; the resets are as given, and evidence of one of the `texts`.
    pub(super) fn hijacked_with(self, resets: Value, texts: &[String]) -> Value {
        let Addresses { local, remote, backend } = &self.addresses;
        let handed = format!(
            "IPVS handed the reply of {remote} to backend {backend} as if it were a new connection to service {local}"
        );
        let mut steps = vec![[std::slice::from_ref(&handed), &self.kept()].concat()];
        if !texts.is_empty() {
            steps.push(texts.to_vec());
        }
        let hijack = self.hijack();
        self.ended("hijacked", hijack, resets, &steps, &[])
    }

    /// The service had no backend for the reply.
    pub(super) fn no_backend(self) -> Value {
        let text = format!(
            "IPVS took the reply of {} for a new connection to service {}, which has no backend for it, \
             and answered with ICMP port unreachable",
            self.addresses.remote, self.addresses.local
        );
        self.ended("no_backend", Value::Null, json!([]), &[vec![text]], &[])
    }

    /// `steps`: what has to be among the evidence beside the connect itself, each in one of several forms; `perhaps`:
    /// what may be.
    fn ended(
        mut self,
        outcome: &str,
        hijack: Value,
        resets: Value,
        steps: &[Vec<String>],
        perhaps: &[String],
    ) -> Value {
        let Addresses { local, remote, .. } = &self.addresses;
        let began = format!("{local} sent its first SYN to {remote} (sequence number <isn>)");
        let end = if outcome == "survived" { "the handshake completed" } else { CLOSED };
        let usual = ["no reply had reached the socket: the SYN was sent again", end].map(str::to_owned);
        let mut allowed = [std::slice::from_ref(&began), &usual, perhaps, &self.notes].concat();
        allowed.extend(steps.iter().flatten().cloned());
        let entry =
            |texts: &[String]| json!({"at": "<time>", "source": "<text>", "text": {"<one of>": texts}});
        let mut wanted = vec![entry(&[began])];
        wanted.extend((!self.open).then(|| entry(&[end.to_owned()])));
        wanted.extend(steps.iter().map(|texts| entry(texts)));
        wanted.extend(self.notes.iter().map(|note| entry(std::slice::from_ref(note))));
        let evidence = json!({"<each>": entry(&allowed), "<some>": wanted, "<between>": [wanted.len(), 20]});
        for (key, value) in
            [("outcome", json!(outcome)), ("hijack", hijack), ("resets", resets), ("evidence", evidence)]
        {
            if let Some(incident) = self.incident.as_object_mut() {
                incident.insert(key.to_owned(), value);
            }
        }
        self.incident
    }
}

/// Why a listener resets a SYN-ACK: it has flags that do not fit.
const TCP_FLAGS: &str = "TCP_FLAGS";
/// Why a stack resets what comes to a port that nobody has.
const NO_SOCKET: &str = "NO_SOCKET";
const CLOSED: &str = "its process closed the socket before the handshake completed";

/// The reason of a reset as this kernel tells it: nothing before 6.10.
fn reset_reason(reason: &'static str) -> Result<Option<&'static str>> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (major, minor) =
        (numbers.next().context("no release")??, numbers.next().context("a short release")??);
    Ok(((major, minor) >= (6, 10)).then_some(reason))
}
