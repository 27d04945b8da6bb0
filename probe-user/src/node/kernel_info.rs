//! What this kernel and this process's privileges allow, for `portclash doctor`.
//!
//! Everything is read below a root directory (`/`), so that a copy of another node's files serves as well.
//! A fact that cannot be read is `None` or "not known"; it is never taken for "no".

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::mounts::cgroup2_mount;

/// Oldest kernel that has what the programs need (BPF ring buffers).
pub const FLOOR: KernelVersion = KernelVersion(5, 8, 0);

/// Version of a kernel. Distributions port changes back, so it decides about [`FLOOR`] and messages, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32, pub u32);

impl KernelVersion {
    /// From a release such as `6.1.0-50-amd64`, `7.2-rc1` or `5.10.0+`.
    pub fn parse(release: &str) -> Option<Self> {
        let end = release.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(release.len());
        let mut numbers = release.get(..end)?.split('.').map(str::parse);
        let major = numbers.next()?.ok()?;
        let minor = numbers.next()?.ok()?;
        let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
        Some(Self(major, minor, patch))
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// State of the lockdown LSM, which can forbid BPF to read kernel memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// `none`, or a kernel without the LSM.
    Off,
    /// The kernel must not be changed; reading is allowed.
    Integrity,
    /// Kernel memory must not be read: kprobes and tracing programs are refused.
    Confidentiality,
    /// securityfs is not mounted, or cannot be read.
    NotKnown,
}

impl fmt::Display for Lockdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
            Self::NotKnown => "not known",
        })
    }
}

/// Whether a kernel module is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleState {
    /// Loaded as a module.
    Loaded,
    /// Compiled into the kernel.
    BuiltIn,
    /// Not there now; it may be loaded later.
    Absent,
    /// Neither /proc/modules nor /sys/module can be read.
    NotKnown,
}

impl fmt::Display for ModuleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loaded => "loaded",
            Self::BuiltIn => "built in",
            Self::Absent => "not loaded",
            Self::NotKnown => "not known",
        })
    }
}

/// The capabilities that some need of this program depends on, with their numbers (linux/capability.h).
pub const CAPABILITIES: &[(u8, &str)] = &[
    (1, "CAP_DAC_OVERRIDE"),
    (2, "CAP_DAC_READ_SEARCH"),
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (24, "CAP_SYS_RESOURCE"),
    (34, "CAP_SYSLOG"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// A set of effective capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// True if the named capability (such as `CAP_BPF`) is in the set; `None` for a name not in [`CAPABILITIES`].
    pub fn has(self, name: &str) -> Option<bool> {
        let (bit, _) = CAPABILITIES.iter().find(|(_, known)| *known == name)?;
        Some((self.0 >> bit) & 1 == 1)
    }
}

/// A resource limit; `None` = unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Soft limit in bytes.
    pub soft: Option<u64>,
    /// Hard limit in bytes.
    pub hard: Option<u64>,
}

/// All facts together. `None` = not known, unless the field says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// As `uname -r` prints it.
    pub release: Option<String>,
    /// The numbers of `release`.
    pub version: Option<KernelVersion>,
    /// State of lockdown.
    pub lockdown: Lockdown,
    /// Effective capabilities of this process.
    pub capabilities: Option<Capabilities>,
    /// Size of the kernel's BTF (`/sys/kernel/btf/vmlinux`) in bytes; `None` = there is none.
    pub btf_bytes: Option<u64>,
    /// IPVS.
    pub ip_vs: ModuleState,
    /// Connection tracking.
    pub conntrack: ModuleState,
    /// The file that shows that kprobes are there; `None` = none was seen.
    pub kprobes: Option<PathBuf>,
    /// `kernel.unprivileged_bpf_disabled`: 0 no, 1 yes for good, 2 yes.
    pub unprivileged_bpf_disabled: Option<u32>,
    /// Limit of locked memory (RLIMIT_MEMLOCK), which counts BPF maps before 5.11.
    pub memlock: Option<Limit>,
    /// Where cgroup v2 is mounted; `None` = nowhere.
    pub cgroup2: Option<PathBuf>,
}

impl KernelInfo {
    /// Reads the facts below `root`, `/` for this machine.
    pub fn read(root: &Path) -> Self {
        let release = text(root, "proc/sys/kernel/osrelease");
        let status = text(root, "proc/self/status");
        Self {
            version: release.as_deref().and_then(KernelVersion::parse),
            release,
            lockdown: lockdown(root),
            capabilities: status.as_deref().and_then(effective_capabilities),
            btf_bytes: btf_bytes(root),
            ip_vs: module_state(root, "ip_vs"),
            conntrack: module_state(root, "nf_conntrack"),
            kprobes: kprobe_evidence(root),
            unprivileged_bpf_disabled: text(root, "proc/sys/kernel/unprivileged_bpf_disabled")
                .and_then(|value| value.parse().ok()),
            memlock: text(root, "proc/self/limits").as_deref().and_then(memlock),
            cgroup2: cgroup2_mount(&root.join("proc")).ok(),
        }
    }

    /// Whether the kernel is new enough; `None` if its version is not known.
    pub fn meets_floor(&self) -> Option<bool> {
        self.version.map(|version| version >= FLOOR)
    }
}

fn text(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}

/// `[none] integrity confidentiality`, the current one in brackets.
fn lockdown(root: &Path) -> Lockdown {
    let security = root.join("sys/kernel/security");
    match fs::read_to_string(security.join("lockdown")) {
        Ok(text) => {
            let current =
                text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(name, _)| name);
            match current {
                Some("none") => Lockdown::Off,
                Some("integrity") => Lockdown::Integrity,
                Some("confidentiality") => Lockdown::Confidentiality,
                _ => Lockdown::NotKnown,
            }
        }
        // A mounted securityfs always has `lsm`; without `lockdown` beside it the LSM is not active.
        Err(error) if error.kind() == io::ErrorKind::NotFound && security.join("lsm").exists() => {
            Lockdown::Off
        }
        Err(_) => Lockdown::NotKnown,
    }
}

fn effective_capabilities(status: &str) -> Option<Capabilities> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok().map(Capabilities)
}

fn btf_bytes(root: &Path) -> Option<u64> {
    fs::metadata(root.join("sys/kernel/btf/vmlinux")).ok().map(|file| file.len())
}

/// Loaded, built in (has a directory in /sys/module without a line in /proc/modules), or neither.
fn module_state(root: &Path, name: &str) -> ModuleState {
    let modules = fs::read_to_string(root.join("proc/modules"));
    let is_loaded = |modules: &str| modules.lines().any(|line| line.split(' ').next() == Some(name));
    let directory = root.join("sys/module").join(name);
    match modules {
        Ok(modules) if is_loaded(&modules) => ModuleState::Loaded,
        // `initstate` exists for modules only: loaded since, or /proc/modules is hidden.
        _ if directory.join("initstate").exists() => ModuleState::Loaded,
        _ if directory.exists() => ModuleState::BuiltIn,
        Ok(_) => ModuleState::Absent,
        // A kernel without support for modules has no /proc/modules.
        Err(_) if root.join("sys/module").exists() => ModuleState::Absent,
        Err(_) => ModuleState::NotKnown,
    }
}

fn kprobe_evidence(root: &Path) -> Option<PathBuf> {
    let evidence = [
        "sys/bus/event_source/devices/kprobe",
        "sys/kernel/tracing/kprobe_events",
        "sys/kernel/debug/tracing/kprobe_events",
    ];
    let found = evidence.into_iter().find(|path| root.join(path).exists())?;
    Some(Path::new("/").join(found))
}

/// `Max locked memory         8388608              unlimited            bytes`
fn memlock(limits: &str) -> Option<Limit> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    let mut fields = line.split_ascii_whitespace();
    let mut limit = || match fields.next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    Some(Limit { soft: limit()?, hard: limit()? })
}

#[cfg(test)]
#[path = "kernel_info_tests.rs"]
pub(crate) mod tests;
