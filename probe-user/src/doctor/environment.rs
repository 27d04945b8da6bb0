//! Reads what decides about tracing on this machine. What cannot be read is kept as not known, with the reason.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::node::kernel_info::KernelInfo;
use crate::node::netns::{NetNs, NetnsSpec};
use crate::node::process::in_initial_pid_namespace;
use crate::node::sysctl::{self, NetSysctls};
use crate::sources::table::{TableRead, TableReader};

/// Whether tracefs can be used for tracepoints of system calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracefs {
    /// Its directory.
    Usable(PathBuf),
    /// Mounted, but the events cannot be read.
    Unreadable(PathBuf),
    /// Mounted, but this kernel has no events for system calls.
    NoSyscalls(PathBuf),
    /// Not mounted where it belongs.
    Absent,
}

/// The IPVS service table of the namespace, as trace reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Services {
    /// Readable.
    Read {
        /// How many services, of all protocols and firewall marks.
        count: usize,
        /// Rows that could not be read.
        unreadable: usize,
        /// From where.
        source: String,
        /// What the reader noticed.
        note: Option<String>,
    },
    /// There, but it cannot be read.
    Unreadable(String),
}

/// Everything that was read.
#[derive(Debug)]
pub struct Environment {
    /// Kernel and process.
    pub kernel: KernelInfo,
    /// tracefs.
    pub tracefs: Tracefs,
    /// How the traced namespace was named.
    pub netns_spec: NetnsSpec,
    /// Inode of that namespace, or why it cannot be opened.
    pub netns: Result<u32, String>,
    /// Inode of our own namespace.
    pub own_netns: Option<u32>,
    /// Whether /proc shows the pids that the kernel side reports.
    pub initial_pids: Option<bool>,
    /// Settings of the namespace, or of our own if that cannot be opened.
    pub sysctls: Result<NetSysctls, String>,
    /// Service table of the namespace, or of our own if that cannot be opened.
    pub services: Services,
    /// Tightest memory limit of our cgroup and those above it that we see, in bytes; `None` = none or not known.
    pub memory_limit: Option<u64>,
}

/// Reads this machine; `netns_spec` names the namespace that would be traced.
pub fn read(netns_spec: &NetnsSpec) -> Environment {
    let proc_root = Path::new("/proc");
    let named = NetNs::open(netns_spec);
    let own = NetNs::own();
    let opened = named.as_ref().or(own.as_ref());
    let sysctls = match opened {
        Ok(netns) => sysctl::read_of(netns).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let services_of =
        if named.is_ok() { netns_spec.clone() } else { NetnsSpec::Path("/proc/thread-self/ns/net".into()) };
    let kernel = KernelInfo::read(Path::new("/"));
    Environment {
        tracefs: tracefs(Path::new("/sys/kernel")),
        netns_spec: netns_spec.clone(),
        netns: named.as_ref().map(|netns| netns.inode).map_err(ToString::to_string),
        own_netns: own.as_ref().map(|netns| netns.inode).ok(),
        initial_pids: in_initial_pid_namespace(proc_root),
        services: services(services_of),
        memory_limit: memory_limit(Path::new("/"), kernel.cgroup2.as_deref()),
        sysctls,
        kernel,
    }
}

fn tracefs(sys_kernel: &Path) -> Tracefs {
    for path in [sys_kernel.join("tracing"), sys_kernel.join("debug/tracing")] {
        let id = path.join("events/syscalls/sys_enter_connect/id");
        let events = path.join("events").try_exists();
        match (fs::read(id), events) {
            (Ok(_), _) => return Tracefs::Usable(path),
            (Err(error), _) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Tracefs::Unreadable(path);
            }
            (Err(_), Ok(true)) => return Tracefs::NoSyscalls(path),
            _ => {}
        }
    }
    Tracefs::Absent
}

fn services(netns: NetnsSpec) -> Services {
    let TableRead { table, source, trouble, .. } = TableReader::new(None, netns).read_node();
    match table {
        Some(table) => Services::Read {
            count: table.services.len(),
            unreadable: table.unreadable.len(),
            source,
            note: trouble,
        },
        None => Services::Unreadable(trouble.unwrap_or(source)),
    }
}

/// The smallest limit from our cgroup up to the root of what we see, v2 or v1.
fn memory_limit(root: &Path, cgroup2: Option<&Path>) -> Option<u64> {
    let membership = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut limits = Vec::new();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':');
        let (_hierarchy, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (mount, file) = match (controllers, cgroup2) {
            ("", Some(cgroup2)) => (cgroup2.to_owned(), "memory.max"),
            ("memory", _) => (root.join("sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        for level in Path::new(path.trim_start_matches('/')).ancestors() {
            let text = fs::read_to_string(mount.join(level).join(file));
            limits.extend(text.ok().and_then(|text| text.trim().parse::<u64>().ok()));
        }
    }
    // v1 writes "no limit" as a number near 2^63.
    limits.into_iter().filter(|limit| *limit < 1 << 60).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::kernel_info::tests::tree;

    #[test]
    fn tracefs_is_usable_only_with_the_events_of_system_calls() {
        let absent = tree(&[("tracing/x", "")]);
        assert_eq!(tracefs(absent.path()), Tracefs::Absent);
        let debugfs = tree(&[("debug/tracing/events/syscalls/sys_enter_connect/id", "1\n")]);
        assert_eq!(tracefs(debugfs.path()), Tracefs::Usable(debugfs.path().join("debug/tracing")));
        let none = tree(&[("tracing/events/tcp/enable", "0")]);
        assert_eq!(tracefs(none.path()), Tracefs::NoSyscalls(none.path().join("tracing")));
    }

    #[test]
    fn the_tightest_memory_limit_counts_whatever_its_level() {
        let root = tree(&[
            ("proc/self/cgroup", "4:memory:/a/b\n0::/pod/x\n"),
            ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
            ("v2/pod/memory.max", "67108864\n"),
            ("v2/pod/x/memory.max", "max\n"),
        ]);
        assert_eq!(memory_limit(root.path(), Some(&root.path().join("v2"))), Some(67_108_864));
        assert_eq!(memory_limit(root.path(), None), None);
    }
}
