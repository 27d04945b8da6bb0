//! Judges the kernel, the privileges, the node and IPVS, one finding per thing.

use std::fmt::Write;

use super::environment::{Environment, Services, Tracefs};
use super::needs::{UNLOCK, present};
use super::trial::Trial;
use super::{Area, Finding, Status};
use crate::kernel::ladder::Need;
use crate::node::kernel_info::{Capabilities, FLOOR, KernelVersion, Lockdown};
use crate::node::netns::NetnsSpec;

/// Every finding, in the order of output.
pub fn all(environment: &Environment, trial: &Trial) -> Vec<Finding> {
    let mut findings = vec![
        kernel_version(environment),
        btf(environment),
        lockdown(environment),
        kprobes(environment),
        tracefs(environment, trial),
        cgroup2(environment),
        memory(environment, trial),
        programs(trial),
        self_test(trial),
    ];
    findings.extend(CAPABILITIES.iter().map(|capability| capability.judge(environment, trial)));
    findings.extend([network_namespace(environment), process_ids(environment, trial)]);
    findings.extend(super::settings::ports(environment));
    findings.extend([ip_vs(environment), service_table(environment), conntrack(environment)]);
    findings.extend(super::settings::ipvs(environment));
    findings
}

pub(super) fn finding(
    area: Area,
    name: &str,
    value: Option<String>,
    status: Status,
    why: &str,
    get: Option<&str>,
) -> Finding {
    let get = (status != Status::Ok).then_some(get).flatten().map(str::to_owned);
    Finding { area, name: name.to_owned(), value, status, why: why.to_owned(), get }
}

fn kernel_version(environment: &Environment) -> Finding {
    let status = match environment.kernel.meets_floor() {
        Some(true) => Status::Ok,
        Some(false) => Status::Missing,
        None => Status::Reduced,
    };
    let why = format!("BPF ring buffers, which carry the events, exist from {}.{} on", FLOOR.0, FLOOR.1);
    let get = Some("a newer kernel; if the version is not known, /proc must be readable");
    finding(Area::Kernel, "kernel", environment.kernel.release.clone(), status, &why, get)
}

fn btf(environment: &Environment) -> Finding {
    let (value, status) = match environment.kernel.btf_bytes {
        Some(bytes) => (mebibytes(bytes), Status::Ok),
        None => ("none".to_owned(), Status::Missing),
    };
    finding(
        Area::Kernel,
        "BTF",
        Some(value),
        status,
        "the kernel's type information says where its structures keep addresses and ports; portclash does not guess",
        Some("a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, /sys of the host"),
    )
}

fn lockdown(environment: &Environment) -> Finding {
    let lockdown = environment.kernel.lockdown;
    let known = lockdown != Lockdown::NotKnown;
    finding(
        Area::Kernel,
        "lockdown",
        known.then(|| lockdown.to_string()),
        if lockdown == Lockdown::Confidentiality { Status::Missing } else { Status::Ok },
        if known {
            "under \"confidentiality\" BPF programs may not read kernel memory"
        } else {
            "securityfs is not mounted; whether anything is refused was tried out, see the needs"
        },
        Some(UNLOCK),
    )
}

fn kprobes(environment: &Environment) -> Finding {
    let there = environment.kernel.kprobes.is_some();
    finding(
        Area::Kernel,
        "kprobes",
        Some(if there { "there" } else { "none seen" }.to_owned()),
        if there { Status::Ok } else { Status::Reduced },
        "nothing else sees IPVS hand a reply to a backend, or its table change",
        Some("a kernel with CONFIG_KPROBES=y and CONFIG_KPROBE_EVENTS=y, as those of all distributions"),
    )
}

fn tracefs(environment: &Environment, trial: &Trial) -> Finding {
    let (value, get) = match &environment.tracefs {
        Tracefs::Usable(path) => (path.display().to_string(), None),
        Tracefs::Unreadable(path) => (
            format!("{}, closed to this user", path.display()),
            Some("run as root, or with CAP_DAC_READ_SEARCH"),
        ),
        Tracefs::NoSyscalls(path) => (
            format!("{}, without system calls", path.display()),
            Some("a kernel with CONFIG_FTRACE_SYSCALLS=y"),
        ),
        Tracefs::Absent => ("not mounted".to_owned(), Some("mount -t tracefs tracefs /sys/kernel/tracing")),
    };
    let served = trial.hooks.get(&Need::ConnectEnd).is_some_and(|hook| hook.way.is_some());
    let status = if get.is_none() || served { Status::Ok } else { Status::Reduced };
    let why = "only needed to see how connect() ended where neither fexit nor kprobes can be used";
    finding(Area::Kernel, "tracefs", Some(value), status, why, get)
}

fn cgroup2(environment: &Environment) -> Finding {
    let path = environment.kernel.cgroup2.as_ref();
    finding(
        Area::Kernel,
        "cgroup2",
        Some(path.map_or_else(|| "not mounted".to_owned(), |path| path.display().to_string())),
        if path.is_some() { Status::Ok } else { Status::Reduced },
        "names the container of a process that has ended already; and it is where connects are seen when neither \
         fentry nor kprobes can be used",
        Some("mount -t cgroup2 none /sys/fs/cgroup/unified; in a container, /sys/fs/cgroup of the host"),
    )
}

fn memory(environment: &Environment, trial: &Trial) -> Finding {
    let kernel = &environment.kernel;
    let maps = trial
        .map_bytes
        .map_or_else(|| "maps not loaded".to_owned(), |bytes| format!("maps {}", mebibytes(bytes)));
    let group = environment.memory_limit.map_or_else(
        || "no cgroup limit seen".to_owned(),
        |limit| format!("cgroup limit {}", mebibytes(limit)),
    );
    // From 5.11 on maps are charged to the cgroup, not to RLIMIT_MEMLOCK.
    let counts = kernel.version.is_none_or(|version| version < KernelVersion(5, 11, 0));
    let soft = kernel.memlock.map(|limit| limit.soft.map_or_else(|| "unlimited".to_owned(), mebibytes));
    let locked = match (counts, soft) {
        (false, _) => "RLIMIT_MEMLOCK does not matter here".to_owned(),
        (true, Some(soft)) => format!("RLIMIT_MEMLOCK {soft} (raised by itself where allowed)"),
        (true, None) => "RLIMIT_MEMLOCK not known".to_owned(),
    };
    let tight = match (trial.map_bytes, environment.memory_limit) {
        (Some(maps), Some(limit)) => limit < maps.saturating_add(HEADROOM),
        _ => false,
    };
    let refused =
        trial.map_bytes.is_none() && counts && kernel.memlock.is_some_and(|limit| limit.hard.is_some());
    finding(
        Area::Kernel,
        "memory",
        Some(format!("{maps}; {group}; {locked}")),
        if tight || refused { Status::Reduced } else { Status::Ok },
        "the kernel keeps room for 262,144 services from the start",
        Some("a memory limit of 64 MiB or more; before kernel 5.11 also: ulimit -l unlimited"),
    )
}

/// What the program itself needs beside its maps.
const HEADROOM: u64 = 20 * 1024 * 1024;

fn programs(trial: &Trial) -> Finding {
    let served = trial.hooks.values().filter(|hook| hook.way.is_some()).count();
    let (value, status) = match &trial.load_failure {
        None => (
            format!("loaded and attached for {served} of {} needs, and removed again", trial.hooks.len()),
            Status::Ok,
        ),
        Some(failure) => (failure.clone(), Status::Missing),
    };
    finding(
        Area::Kernel,
        "BPF programs",
        Some(value),
        status,
        "this was tried with the programs that trace loads",
        Some("see the findings that are missing"),
    )
}

fn self_test(trial: &Trial) -> Finding {
    let (value, status, get) = match &trial.self_test {
        None => ("not reached".to_owned(), Status::Missing, "the programs must be loaded first"),
        Some(Err(error)) => (error.clone(), Status::Missing, "try --hooks stable or --hooks kprobe"),
        Some(Ok(test)) => {
            let families = if test.ipv6 { "IPv4 and IPv6" } else { "IPv4; loopback has no IPv6 address" };
            let owner = if test.owner_seen { "" } else { ", but without the process" };
            let status = if test.owner_seen { Status::Ok } else { Status::Reduced };
            (format!("passed over {families}{owner}"), status, "try other hooks (--hooks)")
        }
    };
    finding(
        Area::Kernel,
        "self-test",
        Some(value),
        status,
        "a connect on loopback must come back from the kernel exactly as it was made",
        Some(get),
    )
}

/// A capability, what it is for, and what the lack of it does.
struct Capability {
    name: &'static str,
    /// Status without it.
    without: Status,
    why: &'static str,
    /// A capability that includes it.
    included_in: Option<&'static str>,
}

const CAPABILITIES: &[Capability] = &[
    Capability {
        name: "CAP_BPF",
        without: Status::Missing,
        why: "to load programs and maps; without it nothing can be traced",
        included_in: Some("CAP_SYS_ADMIN"),
    },
    Capability {
        name: "CAP_PERFMON",
        without: Status::Missing,
        why: "for programs that read kernel memory, and for kprobes; without it nothing can be traced",
        included_in: Some("CAP_SYS_ADMIN"),
    },
    Capability {
        name: "CAP_NET_ADMIN",
        without: Status::Reduced,
        why: "to attach cgroup hooks (the last rung for connects) and to read IPVS by netlink where its file is hidden",
        included_in: None,
    },
    Capability {
        name: "CAP_SYS_PTRACE",
        without: Status::Reduced,
        why: "to open pid 1's namespaces and the exe links of other users' processes; without it trace needs --netns, \
              and owners have no exe",
        included_in: None,
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        without: Status::Ok,
        why: "only to read the settings of a network namespace other than our own; and in place of CAP_BPF and \
              CAP_PERFMON",
        included_in: None,
    },
];

impl Capability {
    fn judge(&self, environment: &Environment, trial: &Trial) -> Finding {
        let held = environment.kernel.capabilities;
        let has = |name| held.and_then(|held: Capabilities| held.has(name));
        let included = self.included_in.filter(|other| has(other) == Some(true));
        let (value, status) = match (has(self.name), included) {
            (Some(true), _) => (Some("there".to_owned()), Status::Ok),
            (_, Some(other)) => (Some(format!("not there, but {other} includes it")), Status::Ok),
            // What the trial did without it was not needed.
            (Some(false), None) if self.without == Status::Missing && trial.failure().is_none() => {
                (Some("not there, and not needed".to_owned()), Status::Ok)
            }
            (Some(false), None) => (Some("not there".to_owned()), self.without),
            (None, None) => (None, if trial.failure().is_none() { Status::Ok } else { Status::Reduced }),
        };
        let get = format!(
            "run as root, or add it: setcap, AmbientCapabilities= or securityContext ({})",
            self.name
        );
        finding(Area::Privileges, self.name, value, status, self.why, Some(&get))
    }
}

fn network_namespace(environment: &Environment) -> Finding {
    let own = environment.own_netns;
    let allowed =
        environment.kernel.capabilities.is_some_and(|held| held.has("CAP_SYS_PTRACE") == Some(true));
    let (value, status) = match &environment.netns {
        Ok(inode) if Some(*inode) == own => {
            (format!("{inode}, {}, which is our own", described(&environment.netns_spec)), Status::Ok)
        }
        Ok(inode) => (format!("{inode}, {}", described(&environment.netns_spec)), Status::Ok),
        Err(error) => {
            let instead =
                own.map_or_else(String::new, |own| format!("; what follows is about our own, {own}"));
            (format!("{error}{instead}"), Status::Reduced)
        }
    };
    finding(
        Area::Node,
        "network namespace",
        Some(value),
        status,
        "services and connects of one namespace are compared; kubelet's is that of pid 1",
        Some(if allowed {
            "CAP_SYS_PTRACE is there, so a sandbox or security module refuses it; where our own namespace is the \
             node's, add --netns /proc/self/ns/net"
        } else {
            "run in the host's pid namespace (hostPID) with CAP_SYS_PTRACE; or, where our own namespace is the node's, \
             add --netns /proc/self/ns/net"
        }),
    )
}

fn described(spec: &NetnsSpec) -> String {
    match spec {
        NetnsSpec::Pid(pid) => format!("that of pid {pid}"),
        NetnsSpec::Path(path) => path.display().to_string(),
    }
}

fn process_ids(environment: &Environment, trial: &Trial) -> Finding {
    let tested = trial.self_test.as_ref().and_then(|result| result.as_ref().ok());
    let matching =
        tested.filter(|test| test.owner_seen).map(|test| test.pids_match).or(environment.initial_pids);
    let (value, status) = match matching {
        Some(true) => (Some("the host's".to_owned()), Status::Ok),
        Some(false) => (Some("those of a nested pid namespace".to_owned()), Status::Reduced),
        None => (None, Status::Reduced),
    };
    finding(
        Area::Node,
        "process ids",
        value,
        status,
        "the kernel reports the host's pids; exe, cgroup and container can only be looked up where /proc shows the same",
        Some("run on the host, or in a pod with hostPID: true"),
    )
}

fn ip_vs(environment: &Environment) -> Finding {
    let state = environment.kernel.ip_vs;
    finding(
        Area::Ipvs,
        "ip_vs",
        Some(state.to_string()),
        if present(state) { Status::Ok } else { Status::Reduced },
        "without IPVS no collision can happen, and its hooks could not be tried out",
        Some("modprobe ip_vs (kube-proxy does so in IPVS mode), and ask again"),
    )
}

fn service_table(environment: &Environment) -> Finding {
    let (value, status) = match &environment.services {
        Services::Read { count: 0, .. } if !present(environment.kernel.ip_vs) => {
            (WITHOUT_IPVS.to_owned(), Status::Ok)
        }
        Services::Read { count, unreadable, source, note } => {
            let mut value = format!("{count} service{}, {source}", if *count == 1 { "" } else { "s" });
            if *unreadable > 0 {
                let _ = write!(value, "; {unreadable} rows could not be read");
            }
            if let Some(note) = note {
                let _ = write!(value, "; {note}");
            }
            (value, if *unreadable == 0 && note.is_none() { Status::Ok } else { Status::Reduced })
        }
        Services::Unreadable(error) => (error.clone(), Status::Reduced),
    };
    finding(
        Area::Ipvs,
        "service table",
        Some(value),
        status,
        "a connect is compared with these services",
        Some(
            "/proc must show the namespace's files (hidepid=0, hostPID); with CAP_NET_ADMIN netlink is used instead",
        ),
    )
}

/// Value of what belongs to IPVS where there is no IPVS.
pub(super) const WITHOUT_IPVS: &str = "none, without ip_vs";

fn conntrack(environment: &Environment) -> Finding {
    let state = environment.kernel.conntrack;
    finding(
        Area::Ipvs,
        "nf_conntrack",
        Some(state.to_string()),
        Status::Ok,
        "without connection tracking in IPVS, every SYN-ACK of a collision is reset, whatever conn_reuse_mode says",
        None,
    )
}

pub(super) fn mebibytes(bytes: u64) -> String {
    if bytes < 1 << 20 {
        return format!("{} KiB", bytes >> 10);
    }
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
