//! The incident: all evidence about one failed connection, as the contract (`portclash.incident/v1`) writes it.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// What happened. `none` is never an incident; it is a count in the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The connection's own (protocol, address, port) is an IPVS service.
    Collision,
    /// The same, by a source port that masquerading chose on the wire.
    CollisionSnat,
    /// A listener could not get a port, or holds one that is a service.
    ListenConflict,
    /// connect() failed with EADDRNOTAVAIL: no free source port towards that destination.
    Exhaustion,
    /// A reused port cost one retransmit (conn_reuse_mode), and the handshake completed.
    ReuseDelay,
    /// Reset, but not because of IPVS.
    OtherReset,
    /// Nothing of the above.
    None,
}

/// How the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A backend was given the reply.
    Hijacked,
    /// The service has no backend: the reply was answered with ICMP port unreachable.
    NoBackend,
    /// The handshake completed.
    Survived,
    /// It died; the path is not proven.
    Failed,
    /// Still open when the trace ended, nothing decided.
    Pending,
}

/// How sure the verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Some evidence is missing.
    Possible,
    /// All but the hijack itself was seen.
    Likely,
    /// The hijack itself was seen.
    Proven,
}

/// The connection. Unknown fields are `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// `address:port` of this node's side.
    pub local: Option<String>,
    /// `address:port` of the other side.
    pub remote: Option<String>,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// Initial sequence number of the SYN.
    pub isn: Option<u32>,
    /// Times the SYN was sent again.
    pub syn_retransmits: u32,
}

/// The IPVS service that the source port belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceInfo {
    /// `TCP`
    pub protocol: String,
    /// `address:port`
    pub address: String,
    /// Scheduler, such as `rr`.
    pub scheduler: Option<String>,
    /// Kubernetes name, `namespace/name:port`.
    pub name: Option<String>,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalIP`.
    pub kind: Option<String>,
    /// `address:port` of each backend.
    pub backends: Vec<String>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: Option<String>,
}

/// The process that called connect().
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnerInfo {
    /// Process id in the initial pid namespace.
    pub pid: Option<u32>,
    /// Task name at connect time.
    pub comm: Option<String>,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Command line, secrets masked.
    pub cmdline: Option<String>,
    /// Path in the cgroup hierarchy.
    pub cgroup: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
    /// The pod of that container.
    pub pod: Option<Pod>,
    /// `proven` when taken in process context at connect time; `null` if the owner is unknown.
    pub confidence: Option<Confidence>,
}

/// The kubelet probe that the connection belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// `liveness`, `readiness` or `startup`.
    pub r#type: String,
    /// `httpGet`, `tcpSocket`, `grpc`.
    pub handler: String,
    /// The probed pod.
    pub pod: Pod,
    /// The probed container.
    pub container: String,
    /// `address:port`
    pub target: Option<String>,
    /// Period in seconds; `null` where only the kubelet's log tells of the probe.
    pub period_s: Option<u32>,
    /// Timeout in seconds; `null` where nothing tells.
    pub timeout_s: Option<u32>,
    /// How sure the match is.
    pub confidence: Confidence,
}

/// The connection that IPVS made for the SYN-ACK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hijack {
    /// Sender of the SYN-ACK: the remote side of the connect.
    pub client: String,
    /// The service address: the local side of the connect.
    pub r#virtual: String,
    /// The backend that was given the SYN-ACK.
    pub backend: String,
    /// State of the IPVS connection, where the table was read.
    pub state: Option<String>,
}

/// One RST that a SYN-ACK of this connection was answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResetInfo {
    /// RFC 3339, UTC, nanoseconds.
    pub at: String,
    /// Namespace of the resetting stack.
    pub netns: Option<u32>,
    /// Who resets, `address:port`.
    pub local: String,
    /// Whom, `address:port`.
    pub remote: String,
    /// Sequence number of the RST (ISN + 1).
    pub seq: u32,
    /// The kernel's reason, where it gives one.
    pub reason: Option<String>,
}

/// A line of a log that belongs to the incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// RFC 3339, UTC, nanoseconds.
    pub at: String,
    /// File or unit.
    pub file: String,
    /// Line number from 1.
    pub line: Option<u64>,
    /// The line.
    pub text: String,
}

/// One fact, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// RFC 3339, UTC, nanoseconds.
    pub at: String,
    /// Where it was seen.
    pub source: String,
    /// What was seen.
    pub text: String,
}

/// What to do against the cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Advice {
    /// What is to be changed, such as `net.ipv4.ip_local_reserved_ports`.
    pub setting: String,
    /// Its complete new value; `null` where only the node's owner can know it.
    pub value: Option<String>,
    /// Command for the running system.
    pub command: Option<String>,
    /// File and content that keep it after a reboot.
    pub persist: Option<String>,
    /// Why, and what it does not fix.
    pub why: String,
}

/// `portclash.incident/v1`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Incident {
    /// `portclash.incident/v1`
    pub schema: &'static str,
    /// Names this incident: start time, local and remote, so the same connection has the same id everywhere.
    pub id: String,
    /// What happened.
    pub verdict: Verdict,
    /// How the connection ended.
    pub outcome: Outcome,
    /// How sure that is.
    pub confidence: Confidence,
    /// Time of the first SYN: RFC 3339, UTC, nanoseconds.
    pub started_at: String,
    /// From the first SYN to the end of the connection, milliseconds; `null` while it is open.
    pub duration_ms: Option<u64>,
    /// The connection.
    pub connection: Connection,
    /// The service that its source port belongs to.
    pub service: Option<ServiceInfo>,
    /// Who called connect().
    pub owner: OwnerInfo,
    /// The kubelet probe it was.
    pub probe: Option<Probe>,
    /// The connection IPVS made for the reply.
    pub hijack: Option<Hijack>,
    /// RSTs seen.
    pub resets: Vec<ResetInfo>,
    /// Log lines that belong to it.
    pub log_lines: Vec<LogLine>,
    /// Everything that was seen, oldest first.
    pub evidence: Vec<Evidence>,
    /// What to do.
    // Incidents with one cause share it: it may list thousands of ports.
    #[serde(serialize_with = "shared")]
    #[schemars(with = "Vec<Advice>")]
    pub advice: Arc<[Advice]>,
}

fn shared<S: Serializer>(advice: &Arc<[Advice]>, serializer: S) -> Result<S::Ok, S::Error> {
    (**advice).serialize(serializer)
}

/// `portclash.summary/v1`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Summary {
    /// `portclash.summary/v1`
    pub schema: &'static str,
    /// Incidents per verdict.
    pub verdicts: std::collections::BTreeMap<Verdict, u64>,
    /// Connects that passed the connect hook; `null` where nothing counts them.
    pub connects_seen: Option<u64>,
    /// Failed probes in the kubelet's log that are about none of the incidents: they failed for another reason. `null`
    /// where no log was read.
    pub probe_failures_elsewhere: Option<u64>,
    /// Failed probes in the kubelet's log that fit several connections equally well. `null` where no log was read.
    pub probe_failures_ambiguous: Option<u64>,
    /// What was lost: program → reason → count. Empty = nothing.
    pub lost: std::collections::BTreeMap<String, std::collections::BTreeMap<String, u64>>,
    /// Need → the rung that served it.
    pub hooks: std::collections::BTreeMap<String, String>,
    /// What the evidence lacks, one sentence each. Empty = complete.
    pub incomplete: Vec<String>,
}
