//! Least privilege: once everything is attached and opened, the sidecar gives up what it does not need any more.
//!
//! Capabilities, Landlock's rules and the filter of system calls belong to a *thread* and are inherited by the threads that
//! it starts. So [`confine`] is called by the main thread while it is the only one, and whoever starts a thread later
//! that is to have less still starts it in [`Confined::sealed`].

mod calls;
mod capabilities;
mod files;
mod filter;
mod status;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::thread;

use caps::{CapSet, Capability, CapsHashSet};

pub use capabilities::{renounce, renounce_in_child};
pub use filter::Violations;
pub use status::{ThreadStatus, threads};

/// What must still be possible afterwards.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Files and directories (with all below) that may be read. Those that are not there are noted, see
    /// [`Confined::notes`].
    pub reads: Vec<PathBuf>,
    /// Directories in which files may be made, written, renamed and removed.
    pub writes: Vec<PathBuf>,
    /// `journalctl` may be started again when it ended.
    pub executes_journalctl: bool,
    /// Capabilities that are kept, as far as they are there, until [`Confined::release_hooks`], because a hook is still to
    /// be attached; see [`for_hooks`]. Empty = none is.
    pub keep_for_hooks: CapsHashSet,
    /// The only TCP ports that may be connected to, where the kernel can tell (6.7 and later); `None` = all.
    pub tcp_ports: Option<Vec<u16>>,
    /// What happens to a system call that is not on the list.
    pub violations: Violations,
}

/// What every sidecar reads again and again, as far as it is there.
const READS: &[&str] = &[
    // Processes, tables, sysctls, itself.
    "/proc",
    "/sys/fs/cgroup",
    "/sys/module",
    "/sys/devices/system/cpu",
    "/sys/kernel/btf",
    // Names of hosts, for the C library.
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    // Names of namespaces.
    "/run/netns",
    // What sets the port range, for the check of exposure, besides sysctl files.
    "/etc/kubernetes/manifests",
    // Authorities of public servers, links followed.
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/kubernetes/pki/ca.crt",
    // Token and authority of the service account: the directory, because the files in it are replaced.
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "/var/lib/kubelet/pki/kubelet.crt",
];

/// Kubeconfigs that a node may have, and where what they name is. In a pod none of them is there.
const OF_A_NODE: &[(&str, &[&str])] = &[
    ("/etc/kubernetes/kubelet.conf", &["/var/lib/kubelet/pki"]),
    ("/var/lib/rancher/k3s/agent/kubelet.kubeconfig", &["/var/lib/rancher/k3s/agent"]),
];

/// What has to be there to attach kprobes: the type of their events.
const FOR_KPROBES: &[&str] = &["/sys/bus/event_source", "/sys/devices/kprobe", "/sys/kernel/tracing"];

impl Plan {
    /// What every sidecar needs: nothing is written, no program started, no capability kept.
    pub fn new() -> Self {
        let mut reads: Vec<PathBuf> = READS.iter().map(PathBuf::from).collect();
        for (file, more) in OF_A_NODE.iter().filter(|(file, _)| Path::new(file).exists()) {
            reads.push(file.into());
            reads.extend(more.iter().map(PathBuf::from));
        }
        Self { reads, ..Self::default() }
    }

    /// Lets a directory of container logs be read, whose files are links into those of the runtime.
    pub fn read_container_logs(&mut self, directory: &Path) {
        self.reads.push(directory.to_owned());
        let usual = ["/var/log/pods", "/var/lib/docker/containers"];
        self.reads.extend(usual.iter().map(PathBuf::from).filter(|path| path.exists()));
    }

    /// Lets a file be read that is replaced now and then, by renaming or behind symbolic links: its directory, and
    /// the one where the links end.
    pub fn read_replaced(&mut self, file: &Path) {
        let end = std::fs::canonicalize(file).ok();
        for file in [Some(file.to_owned()), end].into_iter().flatten() {
            // A file in the root directory must not open all of it.
            match file.parent() {
                Some(parent) if parent.parent().is_some() => self.reads.push(parent.to_owned()),
                _ => self.reads.push(file),
            }
        }
    }
}

/// Why privileges could not be given up. None of it is harmless: the sidecar must not go on as if nothing had happened.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// Threads that would stay as they are.
    #[error(
        "privileges must be dropped while there is one thread, but there is also: {0}; this is an error of portclash"
    )]
    OtherThreads(String),
    /// A set of capabilities.
    #[error("drop capabilities ({set}): {reason}")]
    Capabilities {
        /// Which set.
        set: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// no_new_privs.
    #[error("set no_new_privs: {0}")]
    NoNewPrivs(#[source] nix::errno::Errno),
    /// Landlock.
    #[error("restrict files with Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// The filter of system calls.
    #[error("filter system calls (seccomp): {0}; is CONFIG_SECCOMP_FILTER in the kernel?")]
    Filter(String),
    /// What became of this process cannot be read.
    #[error("read what privileges are left from {path}: {source}")]
    Status {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread could not be started, or panicked.
    #[error("start a thread without privileges: {0}")]
    Thread(String),
}

/// A process that has given up what it could.
#[derive(Debug)]
pub struct Confined {
    /// What is kept until hooks are attached.
    kept_for_hooks: CapsHashSet,
    /// Map look-ups need CAP_BPF on this kernel.
    keeps_for_maps: bool,
    violations: Violations,
    executes: bool,
    landlock: String,
    notes: Vec<String>,
}

/// Gives up everything that the plan does not ask for, for the calling thread and all that it starts later. `map`: any
/// map of the kernel side that may be read, to find out whether that needs CAP_BPF here (it does before 6.0, where
/// `kernel.unprivileged_bpf_disabled` is not 0); without one that is not found out, and nothing is kept for it.
///
/// The order matters: what is later in it is needed to do what is before.
pub fn confine(plan: &Plan, map: Option<BorrowedFd<'_>>) -> Result<Confined, PrivilegesError> {
    status::only_thread()?;
    let mut notes = Vec::new();
    nix::sys::prctl::set_no_new_privs().map_err(PrivilegesError::NoNewPrivs)?;
    let keeps_for_maps = match map {
        Some(map) => capabilities::maps_need_one(map)?,
        None => false,
    };
    let kept = with_maps(plan.keep_for_hooks.clone(), keeps_for_maps);
    let left = capabilities::keep_only(&kept, &mut notes)?;
    let kept_for_hooks: CapsHashSet = plan.keep_for_hooks.intersection(&left).copied().collect();
    let landlock = files::restrict(plan, &mut notes)?;
    filter::install(plan.violations, plan.executes_journalctl, !kept_for_hooks.is_empty())?;
    Ok(Confined {
        kept_for_hooks,
        keeps_for_maps,
        violations: plan.violations,
        executes: plan.executes_journalctl,
        landlock,
        notes,
    })
}

/// What attaching a hook takes. `kprobes_need_sys_admin`: whether this kernel wants CAP_SYS_ADMIN for kprobes, as those of
/// Debian and Ubuntu do by default (`kernel.perf_event_paranoid`). Where one of the newer capabilities was not given, it
/// takes their place, too.
pub fn for_hooks(kprobes_need_sys_admin: bool) -> CapsHashSet {
    let mut kept = CapsHashSet::from([Capability::CAP_BPF, Capability::CAP_PERFMON]);
    let has = |capability: &Capability| caps::has_cap(None, CapSet::Permitted, *capability).unwrap_or(false);
    if kprobes_need_sys_admin || !kept.iter().all(has) {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    kept
}

fn with_maps(mut kept: CapsHashSet, maps: bool) -> CapsHashSet {
    if maps {
        kept.insert(Capability::CAP_BPF);
    }
    kept
}

impl Confined {
    /// Gives up what was kept for hooks. The filter becomes as strict as that of everybody else.
    pub fn release_hooks(&mut self) -> Result<(), PrivilegesError> {
        if !self.keeps_for_hooks() {
            return Ok(());
        }
        capabilities::keep_only(&with_maps(CapsHashSet::new(), self.keeps_for_maps), &mut Vec::new())?;
        filter::install(self.violations, self.executes, false)?;
        self.kept_for_hooks.clear();
        Ok(())
    }

    /// Whether [`Self::release_hooks`] has something left to give up.
    pub fn keeps_for_hooks(&self) -> bool {
        !self.kept_for_hooks.is_empty()
    }

    /// Whether CAP_BPF is kept for good, because this kernel asks for it with every look-up in a map.
    pub const fn keeps_for_maps(&self) -> bool {
        self.keeps_for_maps
    }

    /// What this kernel or the surroundings did not allow, for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// One line for people: what is in force now.
    pub fn summary(&self) -> String {
        let kept = match (self.keeps_for_hooks(), self.keeps_for_maps) {
            (true, _) => {
                let mut names: Vec<_> = self.kept_for_hooks.iter().map(ToString::to_string).collect();
                names.sort_unstable();
                &format!("{} are kept until ip_vs is loaded and hooked", names.join(" and "))
            }
            (false, true) => "CAP_BPF is kept, this kernel asks for it with every look-up in a map",
            (false, false) => "no capability is left",
        };
        let filter = match self.violations {
            Violations::Refuse => "system calls are filtered",
            Violations::Log => "system calls off the list are logged, but not refused",
        };
        format!("privileges dropped: {kept}; {}; {filter}", self.landlock)
    }

    /// Runs `work` in a thread without any capability and with the strict filter, and returns its value. Every thread
    /// that `work` starts is like that for good, whatever is kept here.
    pub fn sealed<T, F>(&self, work: F) -> Result<T, PrivilegesError>
    where
        T: Send,
        F: FnOnce() -> T + Send,
    {
        let keeps = self.keeps_for_hooks() || self.keeps_for_maps;
        in_thread(|| {
            if keeps {
                capabilities::keep_only(&CapsHashSet::new(), &mut Vec::new())?;
            }
            if self.keeps_for_hooks() {
                filter::install(self.violations, self.executes, false)?;
            }
            Ok(work())
        })
    }
}

/// Runs `work` in a thread of its own.
fn in_thread<T: Send>(
    work: impl FnOnce() -> Result<T, PrivilegesError> + Send,
) -> Result<T, PrivilegesError> {
    thread::scope(|scope| {
        let started = thread::Builder::new().name("sealed".into()).spawn_scoped(scope, work);
        let thread = started.map_err(|error| PrivilegesError::Thread(error.to_string()))?;
        thread.join().map_err(|_| PrivilegesError::Thread("it panicked".to_owned()))?
    })
}
