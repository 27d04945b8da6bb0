//! What this kernel and this process's privileges allow, for `portclash doctor`.
//!
//! Everything is read below a root directory (`/`), so that a copy of another node's files serves as well.
//! A fact that cannot be read is `None` or "not known"; it is never taken for "no".

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
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

    /// Those of [`CAPABILITIES`] that are in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        CAPABILITIES.iter().filter(move |(bit, _)| (self.0 >> bit) & 1 == 1).map(|(_, name)| *name)
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

/// Which of these functions `/proc/kallsyms` lists, the kernel's and the modules'. One pass; hidden addresses
/// (`kptr_restrict`) do not matter. Derived names such as `x.cold` do not count as `x`.
pub fn symbols_present(root: &Path, names: &[&str]) -> io::Result<BTreeMap<String, bool>> {
    let mut present: BTreeMap<String, bool> = names.iter().map(|name| ((*name).to_owned(), false)).collect();
    let mut reader = BufReader::with_capacity(1 << 16, File::open(root.join("proc/kallsyms"))?);
    let mut missing = present.len();
    let mut line = Vec::new();
    while missing > 0 && reader.read_until(b'\n', &mut line)? > 0 {
        // address, type, name, and for a module its name in brackets
        let name = line.split(|byte: &u8| byte.is_ascii_whitespace()).nth(2);
        if let Some(found) = name.and_then(|name| present.get_mut(std::str::from_utf8(name).ok()?)) {
            missing -= usize::from(!*found);
            *found = true;
        }
        line.clear();
    }
    Ok(present)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A root folder with these files.
    pub(crate) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn debian_node_with_ipvs() {
        let root = tree(&[
            ("proc/sys/kernel/osrelease", "6.1.0-50-amd64\n"),
            ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("proc/self/status", "Name:\tx\nCapEff:\t000000c000203004\n"),
            ("sys/kernel/btf/vmlinux", "12345"),
            ("proc/modules", "ip_vs_rr 16384 1 - Live 0x0\nip_vs 212992 3 ip_vs_rr, Live 0x0\n"),
            ("sys/module/nf_conntrack/parameters/hashsize", "65536"),
            ("sys/kernel/tracing/kprobe_events", ""),
            ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
            ("proc/self/limits", "Limit  Soft  Hard  Units\nMax locked memory  65536  unlimited  bytes\n"),
            ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"),
        ]);
        let info = KernelInfo::read(root.path());
        let expected = KernelInfo {
            release: Some("6.1.0-50-amd64".into()),
            version: Some(KernelVersion(6, 1, 0)),
            lockdown: Lockdown::Integrity,
            capabilities: Some(Capabilities(0x00c0_0020_3004)),
            btf_bytes: Some(5),
            ip_vs: ModuleState::Loaded,
            conntrack: ModuleState::BuiltIn,
            kprobes: Some("/sys/kernel/tracing/kprobe_events".into()),
            unprivileged_bpf_disabled: Some(2),
            memlock: Some(Limit { soft: Some(65536), hard: None }),
            cgroup2: Some("/sys/fs/cgroup".into()),
        };
        assert_eq!(info, expected);
        assert_eq!(info.meets_floor(), Some(true));
        let names: Vec<&str> = info.capabilities.unwrap().names().collect();
        assert_eq!(
            names,
            [
                "CAP_DAC_READ_SEARCH",
                "CAP_NET_ADMIN",
                "CAP_NET_RAW",
                "CAP_SYS_ADMIN",
                "CAP_PERFMON",
                "CAP_BPF"
            ]
        );
        assert_eq!(info.capabilities.unwrap().has("CAP_SYS_PTRACE"), Some(false));
        assert_eq!(info.capabilities.unwrap().has("CAP_NONE"), None);
    }

    #[test]
    fn nothing_readable_is_not_known_and_not_no() {
        let root = tempfile::tempdir().unwrap();
        let info = KernelInfo::read(root.path());
        assert_eq!(info.release, None);
        assert_eq!(info.meets_floor(), None);
        assert_eq!(info.lockdown, Lockdown::NotKnown);
        assert_eq!(info.ip_vs, ModuleState::NotKnown);
        assert_eq!(info.capabilities, None);
        assert_eq!((info.btf_bytes, info.kprobes, info.cgroup2, info.memlock), (None, None, None, None));
        assert!(symbols_present(root.path(), &["tcp_connect"]).is_err());
    }

    #[test]
    fn lockdown_states() {
        let state = |text| lockdown(tree(&[("sys/kernel/security/lockdown", text)]).path());
        assert_eq!(state("[none] integrity confidentiality\n"), Lockdown::Off);
        assert_eq!(state("none integrity [confidentiality]\n"), Lockdown::Confidentiality);
        assert_eq!(state("none integrity\n"), Lockdown::NotKnown);
        assert_eq!(lockdown(tree(&[("sys/kernel/security/lsm", "capability,yama")]).path()), Lockdown::Off);
    }

    #[test]
    fn module_states() {
        let loaded = tree(&[("sys/module/ip_vs/initstate", "live\n")]);
        assert_eq!(module_state(loaded.path(), "ip_vs"), ModuleState::Loaded);
        let others = tree(&[("proc/modules", "ip_vs_rr 1 0 - Live 0x0\n")]);
        assert_eq!(module_state(others.path(), "ip_vs"), ModuleState::Absent);
        let monolithic = tree(&[("sys/module/kernel/parameters/x", "")]);
        assert_eq!(module_state(monolithic.path(), "ip_vs"), ModuleState::Absent);
    }

    #[test]
    fn symbols_are_whole_names_of_kernel_and_modules() {
        let root = tree(&[(
            "proc/kallsyms",
            "0000000000000000 T tcp_connect.cold\n0000000000000000 T tcp_v4_connect\n\
             0000000000000000 t ip_vs_schedule\t[ip_vs]\nbroken\n",
        )]);
        let found =
            symbols_present(root.path(), &["tcp_connect", "tcp_v4_connect", "ip_vs_schedule"]).unwrap();
        let found: Vec<(&str, bool)> = found.iter().map(|(name, found)| (name.as_str(), *found)).collect();
        assert_eq!(found, [("ip_vs_schedule", true), ("tcp_connect", false), ("tcp_v4_connect", true)]);
    }

    #[test]
    fn versions() {
        let parse = KernelVersion::parse;
        assert_eq!(parse("6.1.0-50-amd64"), Some(KernelVersion(6, 1, 0)));
        assert_eq!(parse("5.10.262"), Some(KernelVersion(5, 10, 262)));
        assert_eq!(parse("7.2-rc1+"), Some(KernelVersion(7, 2, 0)));
        assert_eq!(parse("5.4.291-foo.9"), Some(KernelVersion(5, 4, 291)));
        assert_eq!(parse("linux"), None);
        assert!(parse("5.7.19").unwrap() < FLOOR && parse("5.10.0").unwrap() > FLOOR);
        assert_eq!(FLOOR.to_string(), "5.8.0");
    }

    #[test]
    fn this_machine() {
        let info = KernelInfo::read(Path::new("/"));
        assert_eq!(
            info.release,
            Some(nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned())
        );
        assert!(info.version.is_some() && info.capabilities.is_some() && info.memlock.is_some());
        assert_ne!(info.ip_vs, ModuleState::NotKnown);
    }

    proptest! {
        #[test]
        fn arbitrary_files_do_not_panic(text in "\\PC{0,40}") {
            let _ = KernelVersion::parse(&text);
            let _ = effective_capabilities(&format!("CapEff:{text}"));
            let _ = memlock(&format!("Max locked memory{text}"));
        }
    }
}
