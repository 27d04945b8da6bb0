//! Judges how each need of tracing is met, and says what would meet it better.

use super::environment::{Environment, Tracefs};
use super::trial::Trial;
use super::{NeedReport, Refusal, Status};
use crate::kernel::hook::Hook;
use crate::kernel::ladder::{self, Attach, Hooks, LADDER, Need, PACKETS, Rung, Way};
use crate::node::kernel_info::{Lockdown, ModuleState};

/// What helps under lockdown.
pub(super) const UNLOCK: &str = "boot without lockdown=confidentiality; lockdown=integrity is no obstacle";

/// Order in output: what tracing cannot do without comes first.
const ORDER: [Need; 8] = [
    Need::Connect,
    Need::ConnectEnd,
    Need::Outcome,
    Need::Reset,
    Need::Hijack,
    Need::NoBackend,
    Need::TableChange,
    Need::ModuleChange,
];

/// A report on every need.
pub fn all(environment: &Environment, trial: &Trial) -> Vec<NeedReport> {
    ORDER.iter().map(|need| report(*need, environment, trial)).collect()
}

fn report(need: Need, environment: &Environment, trial: &Trial) -> NeedReport {
    // Where nothing was loaded, every need has the same reason.
    let failed = || {
        let reason = trial.load_failure.clone().unwrap_or_else(|| "it was not tried".to_owned());
        Hook { refused: vec![("load", reason)], ..Hook::default() }
    };
    let hook = trial.hooks.get(&need).cloned().unwrap_or_else(failed);
    let status = if trial.hooks.is_empty() { Status::Missing } else { status(need, &hook, environment) };
    let limit = match hook.way {
        Some(_) => hook.limit,
        None if status == Status::Ok => None,
        None => Some(need.without()),
    };
    NeedReport {
        need: need.name().to_owned(),
        status,
        purpose: purpose(need).to_owned(),
        way: hook.way.map(str::to_owned),
        limit: limit.map(str::to_owned),
        get: (status != Status::Ok).then(|| remedy(need, &hook, environment, trial)),
        refused: hook.refused.into_iter().map(|(way, why)| Refusal { way: way.to_owned(), why }).collect(),
    }
}

fn status(need: Need, hook: &Hook, environment: &Environment) -> Status {
    match (hook.way, hook.limit) {
        (Some(_), None) => Status::Ok,
        (Some(_), Some(_)) => Status::Reduced,
        // What is part of the kernel is neither loaded nor unloaded.
        (None, _) if need == Need::ModuleChange && environment.kernel.ip_vs == ModuleState::BuiltIn => {
            Status::Ok
        }
        // Polling does the same, later.
        (None, _) if matches!(need, Need::TableChange | Need::ModuleChange | Need::Packets) => {
            Status::Reduced
        }
        (None, _) => Status::Missing,
    }
}

const fn purpose(need: Need) -> &'static str {
    match need {
        Need::Connect => "a connect with its final addresses, its owner and its sequence number",
        Need::ConnectEnd => "how connect() itself ended: no free source port",
        Need::Outcome => "whether the connection came about, and how often its SYN was sent",
        Need::Reset => "resets sent by any network namespace of this node",
        Need::Hijack => "IPVS gives a reply to a backend: the proof",
        Need::NoBackend => "IPVS has no backend to give a reply to",
        Need::TableChange => "a service is added or removed: noticed at once",
        Need::ModuleChange => "ip_vs is loaded or unloaded: noticed at once",
        Need::Packets => "packets of connections from service ports, with trace --write",
    }
}

/// What would meet the need, or meet it better. The first cause that applies.
fn remedy(need: Need, hook: &Hook, environment: &Environment, trial: &Trial) -> String {
    let ways =
        LADDER.iter().chain(PACKETS).find(|(other, _)| *other == need).map_or(&[][..], |(_, ways)| ways);
    let untried = ladder::allowed(ways, trial.hooks_allowed).len() < ways.len();
    if trial.hooks.is_empty() || (need == Need::Connect && trial.load_failure.is_some()) {
        return whole_remedy(environment);
    }
    if trial.hooks_allowed != Hooks::Auto && untried {
        return "allow every kind of hook: --hooks auto".to_owned();
    }
    if ladder::needs_ipvs(need) && !present(environment.kernel.ip_vs) {
        return "load it: modprobe ip_vs (kube-proxy does so in IPVS mode); a running trace notices that and attaches \
                this hook then"
            .to_owned();
    }
    if environment.kernel.lockdown == Lockdown::Confidentiality {
        return UNLOCK.to_owned();
    }
    if let Some(capabilities) = missing_capabilities(environment) {
        return format!("run as root, or with {capabilities}");
    }
    if need == Need::ModuleChange {
        return "nothing is to be done: the service table is read every second anyway (--poll)".to_owned();
    }
    if let Some(remedy) = tracefs_remedy(ways, &environment.tracefs) {
        return remedy;
    }
    if uses(ways, Rung::Kprobe) && environment.kernel.kprobes.is_none() {
        return "a kernel with kprobes (CONFIG_KPROBES=y, CONFIG_KPROBE_EVENTS=y), as those of all distributions"
            .to_owned();
    }
    if need == Need::Reset && hook.way.is_some() {
        return "kernel 6.10 or later, or one that allows fentry programs or kprobes".to_owned();
    }
    "see above why each way is refused".to_owned()
}

/// Where nothing at all can be loaded.
fn whole_remedy(environment: &Environment) -> String {
    let kernel = &environment.kernel;
    if kernel.meets_floor() == Some(false) {
        return "kernel 5.8 or later".to_owned();
    }
    if kernel.lockdown == Lockdown::Confidentiality {
        return UNLOCK.to_owned();
    }
    if let Some(capabilities) = missing_capabilities(environment) {
        return format!("run as root, or with {capabilities}");
    }
    if kernel.btf_bytes.is_none() {
        return "a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, /sys of the host".to_owned();
    }
    "what the first message says; a container's seccomp profile or a security module can refuse bpf() too"
        .to_owned()
}

fn tracefs_remedy(ways: &[Way], tracefs: &Tracefs) -> Option<String> {
    let mut steps = ways.iter().flat_map(|way| way.steps);
    if !steps.any(|(_, attach)| matches!(attach, Attach::Tracepoint(..))) {
        return None;
    }
    match tracefs {
        Tracefs::Usable(_) => None,
        Tracefs::Unreadable(path) => Some(format!("run as root, or with CAP_DAC_READ_SEARCH: {} is closed", path.display())),
        Tracefs::NoSyscalls(_) => {
            Some("a kernel with CONFIG_FTRACE_SYSCALLS=y, or one that allows fexit programs or kprobes".to_owned())
        }
        Tracefs::Absent => Some(
            "mount -t tracefs tracefs /sys/kernel/tracing (in a container, mount the host's there); or a kernel that \
             allows fexit programs or kprobes"
                .to_owned(),
        ),
    }
}

fn uses(ways: &[Way], rung: Rung) -> bool {
    ways.iter().any(|way| way.rung == rung)
}

pub(super) const fn present(module: ModuleState) -> bool {
    matches!(module, ModuleState::Loaded | ModuleState::BuiltIn)
}

/// Those of CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN that this process lacks and nothing replaces.
fn missing_capabilities(environment: &Environment) -> Option<String> {
    let held = environment.kernel.capabilities?;
    let has = |name| held.has(name) == Some(true);
    let missing: Vec<&str> =
        [("CAP_BPF", has("CAP_SYS_ADMIN")), ("CAP_PERFMON", has("CAP_SYS_ADMIN")), ("CAP_NET_ADMIN", false)]
            .into_iter()
            .filter(|(name, replaced)| !has(name) && !replaced)
            .map(|(name, _)| name)
            .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}
