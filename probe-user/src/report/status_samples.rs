//! Snapshots of the sidecar for tests, and the incidents beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnosis::incident::{Outcome, Verdict};
use crate::report::samples;
use crate::serve::recent::Kept;
use crate::serve::snapshot::{
    CapturesFailed, DeliveryView, ExposureView, HookView, IncidentKind, PacketsDropped, PodLabel,
    PodSourceView, ProcessView, ProgramCost, RecorderView, Snapshot, TableView,
};

const STARTED: i64 = 1_663_268_000_000_000_000;
const NOW: i64 = 1_663_269_942_500_000_000;

fn kind(verdict: Verdict, outcome: Outcome, service: Option<&str>) -> IncidentKind {
    IncidentKind { verdict, outcome, service_kind: service.map(str::to_owned) }
}

/// A sidecar to which everything has happened.
pub(crate) fn busy() -> Snapshot {
    let lost = BTreeMap::from([("ring_full".to_owned(), 12), ("map_full".to_owned(), 0)]);
    let delivery = |sent, trouble: Option<&str>| DeliveryView {
        sent,
        failed: 4,
        dropped: 1,
        trouble: trouble.map(str::to_owned),
    };
    Snapshot {
        at: NOW,
        started_at: STARTED,
        kernel: Some("6.12.63+deb13-amd64".to_owned()),
        node: Some("worker-3".to_owned()),
        not_ready: Vec::new(),
        incomplete: vec!["12 events were lost: the ring buffer was full".to_owned()],
        incidents: BTreeMap::from([
            (kind(Verdict::Collision, Outcome::Hijacked, Some("NodePort")), 41),
            (kind(Verdict::Collision, Outcome::Survived, None), 2),
            (kind(Verdict::OtherReset, Outcome::Failed, None), 7),
            (kind(Verdict::None, Outcome::Survived, None), 3),
        ]),
        by_pod: BTreeMap::from([(
            PodLabel { namespace: "default".to_owned(), pod: "nginx-5dfb7c896c-x2q2w".to_owned() },
            40,
        )]),
        by_other_pods: 3,
        label_pods: true,
        open_connections: 5,
        connects: Some(1_234_567),
        ports_used_up: 9,
        lost: BTreeMap::from([("connect".to_owned(), lost)]),
        hooks: vec![
            HookView { need: "connect", way: Some("fentry"), excused: false },
            HookView { need: "hijack", way: Some("kprobe"), excused: false },
            HookView { need: "no_backend", way: None, excused: false },
            HookView { need: "table_change", way: None, excused: true },
        ],
        programs: vec![ProgramCost {
            name: "connect_fentry".to_owned(),
            runs: 1_234_567,
            run_ns: 98_765_432,
        }],
        table: TableView {
            services: BTreeMap::from([("tcp", 312), ("udp", 4)]),
            reads: 1942,
            failures: 1,
            is_file: false,
            read_at: Some(NOW - 300_000_000),
            unreadable: 2,
        },
        exposure: Some(exposure()),
        pods: pods(),
        pods_known: 31,
        probe_failures_elsewhere: Some(6),
        process: ProcessView {
            resident_bytes: Some(13_107_200),
            virtual_bytes: Some(60_000_000),
            cpu_seconds: Some(2.75),
            open_fds: Some(48),
            max_fds: Some(1024),
            threads: Some(2),
        },
        recorder: Some(RecorderView {
            captures: 40,
            bytes: 81_920,
            written: 43,
            removed: 3,
            failed: CapturesFailed { queue: 0, rate: 2, write: 1 },
            packets_dropped: PacketsDropped { late: 5, of_long_connections: 70, no_room: 0 },
            trouble: Some("write /var/lib/portclash: no space left on device".to_owned()),
        }),
        deliveries: BTreeMap::from([
            ("stdout", delivery(44, None)),
            ("webhook", delivery(39, Some("connect to alerts.example:443: connection refused"))),
        ]),
        repeats: 17,
    }
}

fn exposure() -> ExposureView {
    ExposureView {
        checked_at: NOW - 60_000_000_000,
        exposed_ports: Some(18),
        reachable_ports: Some(9),
        chance_per_connect: Some(0.000_637),
        expected_failures_per_hour: Some(3.44),
        setting_changes: BTreeMap::from([("net.ipv4.ip_local_reserved_ports".to_owned(), 1)]),
        newly_exposed: 2,
    }
}

fn pods() -> Vec<PodSourceView> {
    vec![
        PodSourceView {
            source: "kubelet",
            last_word: Some(NOW - 5_000_000_000),
            trouble: None,
            errors: 0,
            unreadable: 1,
        },
        PodSourceView {
            source: "api",
            last_word: None,
            trouble: Some("connect to 10.0.0.1:443: timed out".to_owned()),
            errors: 8,
            unreadable: 0,
        },
    ]
}

/// A sidecar that has just become ready and has seen nothing.
pub(crate) fn quiet() -> Snapshot {
    Snapshot {
        incomplete: Vec::new(),
        incidents: BTreeMap::new(),
        lost: BTreeMap::new(),
        exposure: Some(ExposureView {
            exposed_ports: Some(0),
            reachable_ports: Some(0),
            chance_per_connect: Some(0.0),
            expected_failures_per_hour: Some(0.0),
            newly_exposed: 0,
            setting_changes: BTreeMap::new(),
            ..exposure()
        }),
        hooks: vec![HookView { need: "connect", way: Some("fentry"), excused: false }],
        pods: Vec::new(),
        recorder: None,
        deliveries: BTreeMap::new(),
        label_pods: false,
        ..busy()
    }
}

/// Incidents of [`busy`], the newest first.
pub(crate) fn latest() -> Vec<Kept> {
    let all = [samples::hijacked(), samples::survived(), samples::other_reset()];
    let mut kept: Vec<Kept> =
        all.into_iter().map(|incident| Kept { incident: Arc::new(incident), capture: None }).collect();
    kept[0].capture = Some("first.pcapng".into());
    kept
}
