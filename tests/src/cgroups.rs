//! The guest's cgroup hierarchies, of either version, and how a process enters one of its cgroups.

use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::client::{CGROUP, CGROUP_VARIABLE};

const ROOT: &str = "/sys/fs/cgroup";

/// Word of the kernel's command line that asks for version 1.
const V1: &str = "lab.cgroups=v1";

/// Version 1 hierarchies as systemd mounts them: directory and mount options. The named one has no controller and
/// holds every process.
const V1_HIERARCHIES: &[(&str, &str)] = &[
    ("systemd", "none,name=systemd"),
    ("cpu,cpuacct", "cpu,cpuacct"),
    ("cpuset", "cpuset"),
    ("blkio", "blkio"),
    ("memory", "memory"),
    ("devices", "devices"),
    ("freezer", "freezer"),
    ("net_cls,net_prio", "net_cls,net_prio"),
    ("perf_event", "perf_event"),
    ("pids", "pids"),
];

/// Mounts what the kernel's command line asks for: version 2 unless it says otherwise. A controller that this kernel
/// does not offer to version 1 is left out.
pub fn mount_all() -> Result<()> {
    let words = std::fs::read_to_string("/proc/cmdline").context("no kernel command line")?;
    if !words.split_whitespace().any(|word| word == V1) {
        return mount_at("cgroup2", ROOT, None);
    }
    mount_at("tmpfs", ROOT, Some("mode=755"))?;
    for (name, options) in V1_HIERARCHIES {
        let directory = format!("{ROOT}/{name}");
        std::fs::create_dir_all(&directory)?;
        if mount_at("cgroup", &directory, Some(options)).is_err() {
            std::fs::remove_dir(&directory)?;
        }
    }
    Ok(())
}

fn mount_at(kind: &str, target: &str, options: Option<&str>) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("cannot mount {kind} on {target} ({options:?})"))
}

/// Moves this process into a cgroup, in every hierarchy where that is possible without further settings; it is made if
/// it is not there.
pub fn join(path: &str) -> Result<()> {
    for root in hierarchies()? {
        let directory = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot enter {}", directory.display()))?;
    }
    Ok(())
}

/// Enters the cgroup that the lab asks a client to run in; kubelet's unless it says otherwise. Empty = where it is: in a
/// container, whose runtime has chosen.
pub fn join_asked() -> Result<()> {
    match std::env::var(CGROUP_VARIABLE) {
        Ok(path) if path.is_empty() => Ok(()),
        Ok(path) => join(&path),
        Err(_) => join(CGROUP),
    }
}

/// Roots of the hierarchies that a process can simply be put into: not cpuset of version 1, which first wants to be
/// told its CPUs.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = PathBuf::from(ROOT);
    if root.join("cgroup.procs").exists() {
        return Ok(vec![root]);
    }
    let names = std::fs::read_dir(&root).context("no cgroups")?.flatten();
    Ok(names.map(|entry| entry.path()).filter(|path| !path.ends_with("cpuset")).collect())
}
