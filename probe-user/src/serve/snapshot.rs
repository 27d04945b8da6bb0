//! What the sidecar knows about itself and the node at one moment: plain data, for `/metrics` and the status page.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, oneshot};

use crate::diagnosis::incident::{Outcome, Verdict};
pub use crate::kernel::counters::ProgramCost;
use crate::observation::Nanos;

/// Somebody wants a snapshot; the loop that traces answers.
pub type Request = oneshot::Sender<Box<Snapshot>>;
/// Asks for snapshots.
pub type Requests = mpsc::Sender<Request>;

/// Incidents are counted by these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IncidentKind {
    /// What happened.
    pub verdict: Verdict,
    /// How the connection ended.
    pub outcome: Outcome,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalIP`; `None` = not known.
    pub service_kind: Option<String>,
}

/// The pod that an incident hit, where labels for pods are asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodLabel {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
}

/// How one need is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookView {
    /// `connect`, `reset`, … ([`crate::kernel::ladder::Need::name`]).
    pub need: &'static str,
    /// The way that serves it: `fentry`, `kprobe`, …; `None` = nothing does.
    pub way: Option<&'static str>,
    /// Where nothing does, no evidence is missed by it ([`crate::sources::account::excused`]).
    pub excused: bool,
}

/// The service table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableView {
    /// Services by protocol: `tcp`, `udp`, `sctp`, `mark`.
    pub services: BTreeMap<&'static str, u64>,
    /// How often the table was read.
    pub reads: u64,
    /// How often it could not be read.
    pub failures: u64,
    /// It is a file of the user's, which is read only once.
    pub is_file: bool,
    /// When it was read last.
    pub read_at: Option<Nanos>,
    /// Rows that could not be read the last time.
    pub unreadable: u64,
}

/// What the last check of the exposure found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExposureView {
    /// When it was checked.
    pub checked_at: Nanos,
    /// Service ports that can become source ports; `None` = not known.
    pub exposed_ports: Option<u64>,
    /// Of these, the ones that connect() picks by itself; `None` = not known.
    pub reachable_ports: Option<u64>,
    /// Chance that one connect() collides; `None` = not known.
    pub chance_per_connect: Option<f64>,
    /// `None` = not known.
    pub expected_failures_per_hour: Option<f64>,
    /// Times that a setting changed since the start, by its name (`net.ipv4.ip_local_reserved_ports`).
    pub setting_changes: BTreeMap<String, u64>,
    /// Pairs of service and port that became exposed since the start, each told once.
    pub newly_exposed: u64,
}

/// One source of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSourceView {
    /// `kubelet`, `api`, `cri`, `file`.
    pub source: &'static str,
    /// When it last said anything.
    pub last_word: Option<Nanos>,
    /// What keeps it from saying more.
    pub trouble: Option<String>,
    /// How often it had trouble.
    pub errors: u64,
    /// Entries of its last list that could not be read.
    pub unreadable: u64,
}

/// What this process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessView {
    /// Resident memory, bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, bytes.
    pub virtual_bytes: Option<u64>,
    /// Processor time, user and system, seconds.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Most that it may have open.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

/// Packets that are in no capture, although their connection was flagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketsDropped {
    /// They came after their connection was concluded.
    pub late: u64,
    /// Their connection had more packets than are kept of one.
    pub of_long_connections: u64,
    /// Too many waited, and their connection was the oldest.
    pub no_room: u64,
}

impl PacketsDropped {
    /// Each reason, as metrics name it, and how many packets.
    pub const fn by_reason(self) -> [(&'static str, u64); 3] {
        [("late", self.late), ("long_connection", self.of_long_connections), ("no_room", self.no_room)]
    }
}

/// Captures that were not written, although there were packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapturesFailed {
    /// Too many waited for the disk.
    pub queue: u64,
    /// There were more incidents than are captured in such a time.
    pub rate: u64,
    /// They could not be written.
    pub write: u64,
}

impl CapturesFailed {
    /// Each reason, as metrics name it, and how many captures.
    pub const fn by_reason(self) -> [(&'static str, u64); 3] {
        [("queue", self.queue), ("rate", self.rate), ("write", self.write)]
    }
}

/// The flight recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecorderView {
    /// Captures that are kept.
    pub captures: u64,
    /// Their size, bytes.
    pub bytes: u64,
    /// Captures written since the start.
    pub written: u64,
    /// Captures removed because of the limits.
    pub removed: u64,
    /// Captures that were not written.
    pub failed: CapturesFailed,
    /// Packets that are in no capture.
    pub packets_dropped: PacketsDropped,
    /// Why captures cannot be written, while that lasts.
    pub trouble: Option<String>,
}

/// One way that incidents take out of here: `stdout`, `webhook`, `event`, `otlp`; or exports of metrics: `otlp_metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryView {
    /// Incidents, or exports, that arrived.
    pub sent: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Incidents that were given up. Of exports only the last one: any other is made up for by the next.
    pub dropped: u64,
    /// Why the last attempt failed, while that lasts.
    pub trouble: Option<String>,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// This moment.
    pub at: Nanos,
    /// When the sidecar started.
    pub started_at: Nanos,
    /// `uname -r`; `None` = not known.
    pub kernel: Option<String>,
    /// Name of the node in the cluster; `None` = not known.
    pub node: Option<String>,
    /// What keeps it from being ready, one sentence each; empty = ready.
    pub not_ready: Vec<String>,
    /// What the evidence lacks, one sentence each; empty = complete.
    pub incomplete: Vec<String>,
    /// Concluded incidents since the start.
    pub incidents: BTreeMap<IncidentKind, u64>,
    /// The same by pod, where that is asked for.
    pub by_pod: BTreeMap<PodLabel, u64>,
    /// Incidents of pods that got no label of their own because there were too many.
    pub by_other_pods: u64,
    /// Whether incidents are counted by pod.
    pub label_pods: bool,
    /// Connections that are watched now.
    pub open_connections: u64,
    /// Connects since the start; `None` = nothing counts them.
    pub connects: Option<u64>,
    /// Connects that failed with EADDRNOTAVAIL since the start.
    pub ports_used_up: u64,
    /// Program → reason → events lost; 0 for what may be lost and was not.
    pub lost: BTreeMap<String, BTreeMap<String, u64>>,
    /// How each need is served.
    pub hooks: Vec<HookView>,
    /// What each program costs; empty where the kernel does not count.
    pub programs: Vec<ProgramCost>,
    /// The service table.
    pub table: TableView,
    /// The exposure; `None` until the first check.
    pub exposure: Option<ExposureView>,
    /// The sources of pods.
    pub pods: Vec<PodSourceView>,
    /// Pods that are known now.
    pub pods_known: u64,
    /// Failed probes in the kubelet's log that are about no incident; `None` = no log is read.
    pub probe_failures_elsewhere: Option<u64>,
    /// This process.
    pub process: ProcessView,
    /// The flight recorder; `None` = not asked for.
    pub recorder: Option<RecorderView>,
    /// The ways out, by name.
    pub deliveries: BTreeMap<&'static str, DeliveryView>,
    /// Incidents that were counted instead of told on standard output.
    pub repeats: u64,
}

impl Snapshot {
    /// What was lost, without zeros.
    pub fn losses(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut lost = self.lost.clone();
        lost.retain(|_, reasons| {
            reasons.retain(|_, count| *count > 0);
            !reasons.is_empty()
        });
        lost
    }
}
