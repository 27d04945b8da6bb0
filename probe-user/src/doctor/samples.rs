//! Fixed machines, so that tests depend on none.

use std::collections::BTreeMap;

use super::environment::{Environment, Services, Tracefs};
use super::trial::Trial;
use super::{Doctor, judge};
use crate::kernel::hook::Hook;
use crate::kernel::ladder::{Hooks, LADDER, Need, PACKETS};
use crate::kernel::selftest::SelfTest;
use crate::node::kernel_info::{Capabilities, KernelInfo, KernelVersion, Limit, Lockdown, ModuleState};
use crate::node::netns::NetnsSpec;
use crate::node::sysctl::{EphemeralRange, NetSysctls};

/// A Debian node with kube-proxy in IPVS mode, seen by root.
pub(crate) fn node() -> (Environment, Trial) {
    let environment = Environment {
        kernel: KernelInfo {
            release: Some("6.1.0-50-amd64".into()),
            version: Some(KernelVersion(6, 1, 0)),
            lockdown: Lockdown::Off,
            capabilities: Some(Capabilities(0x1ff_ffff_ffff)),
            btf_bytes: Some(5_500_000),
            ip_vs: ModuleState::Loaded,
            conntrack: ModuleState::Loaded,
            kprobes: Some("/sys/bus/event_source/devices/kprobe".into()),
            unprivileged_bpf_disabled: Some(2),
            memlock: Some(Limit { soft: Some(8 << 20), hard: Some(8 << 20) }),
            cgroup2: Some("/sys/fs/cgroup".into()),
        },
        tracefs: Tracefs::Usable("/sys/kernel/tracing".into()),
        netns_spec: NetnsSpec::Pid(1),
        netns: Ok(4_026_531_840),
        own_netns: Some(4_026_531_840),
        initial_pids: Some(true),
        sysctls: Ok(NetSysctls {
            local_port_range: Some(EphemeralRange { first: 32768, last: 60999 }),
            reserved_ports: Some("30000-32767".parse().unwrap()),
            vs_conntrack: Some(1),
            vs_conn_reuse_mode: Some(1),
            vs_expire_nodest_conn: Some(1),
            problems: Vec::new(),
        }),
        services: Services::Read {
            count: 2013,
            unreadable: 0,
            source: "IPVS table /proc/1/net/ip_vs".into(),
            note: None,
        },
        memory_limit: None,
    };
    let hooks = LADDER.iter().chain(PACKETS).map(|(need, ways)| {
        let way = ways
            .iter()
            .find(|way| way.limit.is_none() && !(*need == Need::Reset && way.name == "tracepoint"));
        (*need, Hook { way: way.map(|way| way.name), ..Hook::default() })
    });
    let trial = Trial {
        hooks_allowed: Hooks::Auto,
        load_failure: None,
        hooks: hooks.collect(),
        self_test: Some(Ok(SelfTest { pids_match: true, owner_seen: true, ipv6: true })),
        map_bytes: Some(30 << 20),
    };
    (environment, trial)
}

/// A kernel without kprobes that refuses fentry, without IPVS and tracefs.
pub(crate) fn sandbox() -> (Environment, Trial) {
    let (mut environment, mut trial) = node();
    let kernel = &mut environment.kernel;
    (kernel.release, kernel.version) = (Some("6.18.44".into()), Some(KernelVersion(6, 18, 44)));
    kernel.lockdown = Lockdown::NotKnown;
    (kernel.ip_vs, kernel.conntrack) = (ModuleState::Absent, ModuleState::BuiltIn);
    kernel.kprobes = None;
    environment.tracefs = Tracefs::Absent;
    environment.services = Services::Read { count: 0, unreadable: 0, source: "no IPVS".into(), note: None };
    environment.netns =
        Err("cannot open network namespace /proc/1/ns/net: Permission denied (os error 13); this needs CAP_SYS_PTRACE".into());
    if let Ok(sysctls) = &mut environment.sysctls {
        (sysctls.vs_conntrack, sysctls.vs_conn_reuse_mode, sysctls.vs_expire_nodest_conn) =
            (None, None, None);
        sysctls.reserved_ports = Some(crate::node::port_ranges::PortRanges::default());
    }
    let refused = |ways: &[&'static str]| -> Vec<(&'static str, String)> {
        ways.iter()
            .map(|way| match *way {
                "tracepoint" => (*way, "no tracefs is mounted".into()),
                "kprobe" | "kretprobe" => (*way, "the perf_event type kprobe does not exist".into()),
                _ => (*way, "the BPF_PROG_LOAD syscall returned Operation not permitted (os error 1) (not permitted although the capabilities are there: a sandbox or security module, or this kernel)".into()),
            })
            .collect()
    };
    let mut set = |need, way, ways: &[&'static str]| {
        trial.hooks.insert(need, Hook { way, limit: None, refused: refused(ways) });
    };
    set(Need::Connect, Some("sockops"), &["fentry", "kprobe"]);
    set(Need::ConnectEnd, None, &["fexit", "kretprobe", "tracepoint"]);
    set(Need::Reset, Some("tracepoint"), &[]);
    set(Need::ModuleChange, None, &[]);
    for need in [Need::Hijack, Need::NoBackend, Need::TableChange] {
        let refused = vec![("kprobe", "ip_vs is not loaded (attached when it is)".into())];
        trial.hooks.insert(need, Hook { refused, ..Hook::default() });
    }
    (environment, trial)
}

/// The same node, asked by a user without privileges.
pub(crate) fn unprivileged() -> (Environment, Trial) {
    let (mut environment, mut trial) = node();
    environment.kernel.capabilities = Some(Capabilities(0));
    environment.kernel.lockdown = Lockdown::NotKnown;
    environment.tracefs = Tracefs::Unreadable("/sys/kernel/tracing".into());
    environment.netns =
        Err("cannot open network namespace /proc/1/ns/net: Permission denied (os error 13); this needs CAP_SYS_PTRACE".into());
    trial.hooks = BTreeMap::new();
    trial.self_test = None;
    trial.map_bytes = None;
    trial.load_failure = Some("load the BPF object: map error: failed to create map `CALLS`: Operation not permitted (os error 1) (not permitted without CAP_BPF and CAP_PERFMON)".into());
    (environment, trial)
}

pub(crate) fn complete() -> Doctor {
    let (environment, trial) = node();
    fixed(&environment, &trial)
}

pub(crate) fn reduced() -> Doctor {
    let (environment, trial) = sandbox();
    fixed(&environment, &trial)
}

pub(crate) fn impossible() -> Doctor {
    let (environment, trial) = unprivileged();
    fixed(&environment, &trial)
}

/// Without the version of the day.
fn fixed(environment: &Environment, trial: &Trial) -> Doctor {
    Doctor { version: "1.2.3".to_owned(), ..judge(environment, trial) }
}
