//! The table of all metrics, and where each is taken from.

use super::metrics::{Family, Samples};
use super::metrics_incidents::{incidents, pod_incidents};
use super::metrics_text::{Kind, Value};
use crate::kernel::ladder::Need;
use crate::serve::snapshot::{HookView, Snapshot};

type Name = &'static str;

const fn counter(
    name: Name,
    labels: &'static [Name],
    help: Name,
    samples: fn(&Snapshot, &mut Samples),
) -> Family {
    Family { name, kind: Kind::Counter, labels, help, samples }
}

const fn gauge(
    name: Name,
    labels: &'static [Name],
    help: Name,
    samples: fn(&Snapshot, &mut Samples),
) -> Family {
    Family { name, kind: Kind::Gauge, labels, help, samples }
}

const fn info(
    name: Name,
    labels: &'static [Name],
    help: Name,
    samples: fn(&Snapshot, &mut Samples),
) -> Family {
    Family { name, kind: Kind::Info, labels, help, samples }
}

/// Every metric, in the order of the page. A new one is one entry here and its row in docs/metrics.md.
pub const FAMILIES: &[Family] = &[
    info("portclash_build", &["version"], "The version of portclash.", |_, out| {
        out.add([env!("CARGO_PKG_VERSION")], true);
    }),
    info("portclash_node", &["node", "kernel"], "The node that is watched, and its kernel.", |now, out| {
        let [node, kernel] = [&now.node, &now.kernel].map(|name| name.as_deref().unwrap_or_default());
        if !node.is_empty() || !kernel.is_empty() {
            out.add([node, kernel], true);
        }
    }),
    gauge(
        "portclash_ready",
        &[],
        "1 if the hooks are attached and the service table was read, else 0.",
        |now, out| {
            out.add([], now.not_ready.is_empty());
        },
    ),
    gauge(
        "portclash_evidence_gaps",
        &[],
        "Reasons why incidents may be missed or only partly seen; 0 if the evidence is complete. The status page names them.",
        |now, out| out.add([], now.incomplete.len() as u64),
    ),
    counter(
        "portclash_incidents",
        &["verdict", "outcome", "service_kind"],
        "Connections that something was found about, by what happened, how they ended, and the kind of service their source port \
         belongs to.",
        incidents,
    ),
    counter(
        "portclash_pod_incidents",
        &["pod_namespace", "pod_name"],
        "The same by the pod that was hit, with --label-pods only; beyond its bound as pod _other.",
        pod_incidents,
    ),
    counter(
        "portclash_repeated_incidents",
        &[],
        "Incidents that were counted instead of written to standard output, because the same had happened a moment before.",
        |now, out| out.add([], now.repeats),
    ),
    gauge("portclash_open_connections", &[], "Connections that are watched now.", |now, out| {
        out.add([], now.open_connections);
    }),
    counter("portclash_connects", &[], "Outgoing TCP connects of the node.", |now, out| {
        out.known([], now.connects);
    }),
    counter(
        "portclash_connects_out_of_ports",
        &[],
        "Connects that failed because no source port was free (EADDRNOTAVAIL).",
        |now, out| out.known([], out_of_ports(now)),
    ),
    gauge(
        "portclash_exposure_check_timestamp_seconds",
        &[],
        "When the exposure was checked last.",
        |now, out| out.known([], now.exposure.as_ref().map(|exposure| Value::Nanos(exposure.checked_at))),
    ),
    gauge(
        "portclash_exposed_ports",
        &[],
        "Service ports that the node may also use as source ports: each connect that gets one fails.",
        |now, out| out.known([], now.exposure.as_ref().and_then(|exposure| exposure.exposed_ports)),
    ),
    gauge("portclash_reachable_ports", &[], "Exposed ports that connect() picks by itself.", |now, out| {
        out.known([], now.exposure.as_ref().and_then(|exposure| exposure.reachable_ports));
    }),
    gauge(
        "portclash_collision_chance_ratio",
        &[],
        "Chance that one connect gets an exposed port, from 0 to 1.",
        |now, out| out.known([], now.exposure.as_ref().and_then(|exposure| exposure.chance_per_connect)),
    ),
    gauge(
        "portclash_expected_failures_per_hour",
        &[],
        "Connects that are expected to fail in an hour, by that chance and the node's rate of connects.",
        |now, out| {
            out.known([], now.exposure.as_ref().and_then(|exposure| exposure.expected_failures_per_hour));
        },
    ),
    counter(
        "portclash_setting_changes",
        &["setting"],
        "Times that a setting which decides on source ports was changed, by its name.",
        |now, out| {
            for (setting, count) in now.exposure.iter().flat_map(|exposure| &exposure.setting_changes) {
                out.add([setting], *count);
            }
        },
    ),
    counter(
        "portclash_newly_exposed_ports",
        &[],
        "Ports of services that became exposed since the start.",
        |now, out| out.known([], now.exposure.as_ref().map(|exposure| exposure.newly_exposed)),
    ),
    gauge("portclash_services", &["protocol"], "IPVS services of the node; mark: firewall marks.", services),
    gauge(
        "portclash_service_table_read_timestamp_seconds",
        &[],
        "When the IPVS service table was read last; absent with --ipvs, because a file is read only once.",
        |now, out| out.known([], now.table.read_at.filter(|_| !now.table.is_file).map(Value::Nanos)),
    ),
    counter(
        "portclash_service_table_reads",
        &[],
        "Times that the IPVS service table was read.",
        |now, out| {
            out.add([], now.table.reads);
        },
    ),
    counter(
        "portclash_service_table_read_failures",
        &[],
        "Times that the IPVS service table could not be read.",
        |now, out| out.add([], now.table.failures),
    ),
    gauge(
        "portclash_service_table_unreadable_rows",
        &[],
        "Rows of the IPVS service table that were not understood the last time.",
        |now, out| out.known([], now.table.read_at.map(|_| now.table.unreadable)),
    ),
    counter(
        "portclash_events_lost",
        &["program", "reason"],
        "Events that were lost between the kernel and portclash, by BPF program and reason.",
        |now, out| {
            for (program, reasons) in &now.lost {
                for (reason, count) in reasons {
                    out.add([program, reason], *count);
                }
            }
        },
    ),
    info(
        "portclash_hook",
        &["need", "way"],
        "What serves each need of tracing on this kernel.",
        |now, out| {
            for hook in &now.hooks {
                hook.way.iter().for_each(|way| out.add([hook.need, way], true));
            }
        },
    ),
    gauge(
        "portclash_hook_served",
        &["need"],
        "1 if something serves this need of tracing, else 0; absent if nothing does and nothing is missed by it.",
        |now, out| {
            let told = now.hooks.iter().filter(|hook| hook.way.is_some() || !hook.excused);
            told.for_each(|hook| out.add([hook.need], hook.way.is_some()));
        },
    ),
    counter(
        "portclash_bpf_runs",
        &["program"],
        "Runs of each BPF program; the kernel counts them while kernel.bpf_stats_enabled is 1.",
        |now, out| now.programs.iter().for_each(|program| out.add([&program.name], program.runs)),
    ),
    counter(
        "portclash_bpf_run_seconds",
        &["program"],
        "Processor time of each BPF program; the kernel counts it while kernel.bpf_stats_enabled is 1.",
        |now, out| {
            for program in &now.programs {
                out.add([&program.name], Value::Nanos(i64::try_from(program.run_ns).unwrap_or(i64::MAX)));
            }
        },
    ),
    gauge("portclash_pods", &[], "Pods that are known.", |now, out| {
        out.known([], (!now.pods.is_empty()).then_some(now.pods_known));
    }),
    gauge(
        "portclash_pod_source_up",
        &["source"],
        "1 if this source of pods says what it should, else 0.",
        |now, out| now.pods.iter().for_each(|source| out.add([source.source], source.trouble.is_none())),
    ),
    gauge(
        "portclash_pod_source_last_word_timestamp_seconds",
        &["source"],
        "When this source of pods said anything last.",
        |now, out| {
            now.pods.iter().for_each(|source| out.known([source.source], source.last_word.map(Value::Nanos)));
        },
    ),
    counter(
        "portclash_pod_source_errors",
        &["source"],
        "Times that this source of pods had trouble.",
        |now, out| {
            now.pods.iter().for_each(|source| out.add([source.source], source.errors));
        },
    ),
    gauge(
        "portclash_pod_source_unreadable_entries",
        &["source"],
        "Entries of this source's last list that were not understood.",
        |now, out| now.pods.iter().for_each(|source| out.add([source.source], source.unreadable)),
    ),
    counter(
        "portclash_probe_failures_elsewhere",
        &[],
        "Failed probes in the kubelet's log that are about no incident: they failed for another reason.",
        |now, out| out.known([], now.probe_failures_elsewhere),
    ),
    gauge("portclash_recorder_up", &[], "1 if the flight recorder can write, else 0.", |now, out| {
        out.known([], now.recorder.as_ref().map(|recorder| recorder.trouble.is_none()));
    }),
    gauge("portclash_recorder_captures", &[], "Captures that the flight recorder keeps.", |now, out| {
        out.known([], now.recorder.as_ref().map(|recorder| recorder.captures));
    }),
    gauge("portclash_recorder_size_bytes", &[], "Size of the captures that are kept.", |now, out| {
        out.known([], now.recorder.as_ref().map(|recorder| recorder.bytes));
    }),
    counter("portclash_recorder_captures_written", &[], "Captures written since the start.", |now, out| {
        out.known([], now.recorder.as_ref().map(|recorder| recorder.written));
    }),
    counter(
        "portclash_recorder_captures_removed",
        &[],
        "Captures removed because of the limits of count and size.",
        |now, out| out.known([], now.recorder.as_ref().map(|recorder| recorder.removed)),
    ),
    counter(
        "portclash_recorder_captures_failed",
        &["reason"],
        "Captures that were not written, by reason.",
        |now, out| {
            let failed = now.recorder.iter().flat_map(|recorder| recorder.failed.by_reason());
            failed.for_each(|(reason, count)| out.add([reason], count));
        },
    ),
    counter(
        "portclash_recorder_packets_dropped",
        &["reason"],
        "Packets of watched connections that are in no capture, by reason.",
        |now, out| {
            let dropped = now.recorder.iter().flat_map(|recorder| recorder.packets_dropped.by_reason());
            dropped.for_each(|(reason, count)| out.add([reason], count));
        },
    ),
    gauge(
        "portclash_delivery_up",
        &["sink"],
        "0 after an attempt to tell this sink failed, until something arrives and nothing that failed waits, or until nothing waits and nothing failed for 15 minutes; else 1.",
        |now, out| {
            now.deliveries.iter().for_each(|(sink, delivery)| out.add([sink], delivery.trouble.is_none()));
        },
    ),
    counter(
        "portclash_delivery_sent",
        &["sink"],
        "Incidents that arrived at this sink; of otlp_metrics, exports.",
        |now, out| {
            now.deliveries.iter().for_each(|(sink, delivery)| out.add([sink], delivery.sent));
        },
    ),
    counter(
        "portclash_delivery_failures",
        &["sink"],
        "Attempts to tell this sink that failed.",
        |now, out| {
            now.deliveries.iter().for_each(|(sink, delivery)| out.add([sink], delivery.failed));
        },
    ),
    counter(
        "portclash_delivery_dropped",
        &["sink"],
        "Incidents that this sink was not told of in the end; of otlp_metrics only the last export, because the next makes up for others.",
        |now, out| {
            now.deliveries.iter().for_each(|(sink, delivery)| out.add([sink], delivery.dropped));
        },
    ),
    gauge("process_start_time_seconds", &[], "When portclash started.", |now, out| {
        out.add([], Value::Nanos(now.started_at));
    }),
    counter("process_cpu_seconds", &[], "Processor time of portclash, user and system.", |now, out| {
        out.known([], now.process.cpu_seconds);
    }),
    gauge("process_resident_memory_bytes", &[], "Resident memory of portclash.", |now, out| {
        out.known([], now.process.resident_bytes);
    }),
    gauge("process_virtual_memory_bytes", &[], "Address space of portclash.", |now, out| {
        out.known([], now.process.virtual_bytes);
    }),
    gauge("process_open_fds", &[], "File descriptors that portclash has open.", |now, out| {
        out.known([], now.process.open_fds);
    }),
    gauge("process_max_fds", &[], "File descriptors that portclash may have open.", |now, out| {
        out.known([], now.process.max_fds);
    }),
    gauge("process_threads", &[], "Threads of portclash.", |now, out| out.known([], now.process.threads)),
];

/// Connects without a free port; unknown where nothing sees how connect() ends.
pub(super) fn out_of_ports(now: &Snapshot) -> Option<u64> {
    let unseen = |hook: &HookView| hook.need == Need::ConnectEnd.name() && hook.way.is_none();
    (!now.hooks.iter().any(unseen)).then_some(now.ports_used_up)
}

fn services(now: &Snapshot, out: &mut Samples) {
    if now.table.read_at.is_none() {
        return;
    }
    let mut services = now.table.services.clone();
    for protocol in ["tcp", "udp", "sctp", "mark"] {
        services.entry(protocol).or_default();
    }
    for (protocol, count) in services {
        out.add([protocol], count);
    }
}
