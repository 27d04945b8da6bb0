//! Who the processes are that connect: looked up while they live, told from what the kernel side recorded after that.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use probe_ebpf::CountKey;

use crate::kernel::event::comm_text;
use crate::node::cgroup::container_of_path;
use crate::node::cgroup_id::CgroupPaths;
use crate::node::process::{identify, is_running};

/// A process that is silent for so long is looked for; a dead one needs no answer sooner.
const CHECK: Duration = Duration::from_secs(2);
/// Where nobody can be looked for (a nested pid namespace), silence for so long is taken for the end.
const SILENT: Duration = Duration::from_mins(1);
/// Processes that are looked for at one time, so that thousands of idle ones cost little.
const MOST_CHECKS: usize = 500;

/// One process for all time: a pid is used again, with another start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start, CLOCK_BOOTTIME nanoseconds; 0 if not known.
    pub start_ns: u64,
}

impl ProcessId {
    /// The process of a count.
    pub const fn of(key: &CountKey) -> Self {
        Self { pid: key.pid, start_ns: key.start_ns }
    }
}

/// What is known of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Task name.
    pub comm: Option<String>,
    /// Executable.
    pub exe: Option<String>,
    /// Container id.
    pub container_id: Option<String>,
    /// cgroup path.
    pub cgroup: Option<String>,
    /// cgroup v2 id.
    pub cgroup_id: u64,
}

struct Known {
    who: Who,
    comm: [u8; 16],
    /// When it last connected, or was found to be there.
    seen: Duration,
    ended: bool,
}

/// Looks processes up and remembers them until they end.
pub struct Owners {
    proc_root: PathBuf,
    pids_match: bool,
    cgroups: Option<CgroupPaths>,
    known: HashMap<ProcessId, Known>,
}

impl Owners {
    /// Reads processes below `proc_root` (`/proc`), unless the pids there are not the kernel side's.
    pub fn new(proc_root: &Path, pids_match: bool) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            pids_match,
            cgroups: CgroupPaths::open(proc_root).ok(),
            known: HashMap::new(),
        }
    }

    /// Who connected, at `now` since the beginning.
    pub fn see(&mut self, key: &CountKey, now: Duration) -> Who {
        let id = ProcessId::of(key);
        if let Some(known) = self.known.get_mut(&id).filter(|known| known.comm == key.comm) {
            known.seen = now;
            return known.who.clone();
        }
        // New, or another name: it has called exec.
        let (who, ended) = self.look_up(key);
        self.known.insert(id, Known { who: who.clone(), comm: key.comm, seen: now, ended });
        who
    }

    fn look_up(&mut self, key: &CountKey) -> (Who, bool) {
        let mut who = Who { comm: comm_text(&key.comm), cgroup_id: key.cgroup_id, ..Who::default() };
        let mut ended = false;
        if self.pids_match {
            let facts = identify(&self.proc_root, key.pid, known(key.start_ns));
            ended = facts.gone;
            who.cgroup = facts.cgroup;
            who.exe = facts.exe;
            who.container_id = facts.container_id;
        }
        if who.cgroup.is_none() && key.cgroup_id != 0 {
            who.cgroup = self.cgroups.as_mut().and_then(|paths| paths.path_of(key.cgroup_id));
            who.container_id = who.cgroup.as_deref().and_then(|path| container_of_path(path).container_id);
        }
        (who, ended)
    }

    /// The processes that have ended since the last call; they are forgotten here.
    pub fn take_ended(&mut self, now: Duration) -> Vec<(ProcessId, Who)> {
        let mut checks = 0;
        for (id, known) in &mut self.known {
            let silent = now.saturating_sub(known.seen);
            if known.ended || silent < CHECK {
                continue;
            }
            if !self.pids_match {
                known.ended = silent >= SILENT;
            } else if checks < MOST_CHECKS {
                checks += 1;
                known.ended = !is_running(&self.proc_root, id.pid, self::known(id.start_ns));
                known.seen = now;
            }
        }
        let mut ended = Vec::new();
        self.known.retain(|id, known| {
            if known.ended {
                ended.push((*id, std::mem::take(&mut known.who)));
            }
            !known.ended
        });
        // Whoever reads the result relies on an order that does not depend on the hash.
        ended.sort_unstable_by_key(|(id, _)| *id);
        ended
    }
}

const fn known(start_ns: u64) -> Option<u64> {
    if start_ns == 0 { None } else { Some(start_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: u32, start_ns: u64, comm: &str) -> CountKey {
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm.as_bytes());
        CountKey {
            start_ns,
            cgroup_id: 0,
            local: [0; 16],
            remote: [0; 16],
            comm: name,
            pid,
            netns: 1,
            remote_port: 80,
            padding: [0; 3],
        }
    }

    #[test]
    fn a_living_process_is_named_and_does_not_end() {
        let mut owners = Owners::new(Path::new("/proc"), true);
        let who = owners.see(&key(std::process::id(), 0, "own"), Duration::ZERO);
        let exe = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        assert_eq!((who.comm.as_deref(), who.exe), (Some("own"), Some(exe)));
        assert_eq!(owners.take_ended(Duration::from_secs(100)), []);
    }

    #[test]
    fn a_process_that_lived_for_a_moment_is_what_the_kernel_side_saw_and_has_ended() {
        let mut owners = Owners::new(Path::new("/proc"), true);
        // Started at another time than whoever has the pid now.
        let short = key(std::process::id(), 1, "curl");
        let who = owners.see(&short, Duration::ZERO);
        assert_eq!((who.comm.as_deref(), who.exe.as_deref()), (Some("curl"), None));
        let ended = owners.take_ended(Duration::ZERO);
        assert_eq!(ended, [(ProcessId::of(&short), who)]);
        assert_eq!(owners.take_ended(Duration::ZERO), [], "it ends once");
    }

    #[test]
    fn where_pids_are_not_ours_nothing_is_looked_up_and_silence_is_the_end() {
        let mut owners = Owners::new(Path::new("/proc"), false);
        let who = owners.see(&key(std::process::id(), 0, "x"), Duration::ZERO);
        assert_eq!(who.exe, None);
        assert_eq!(owners.take_ended(Duration::from_secs(59)), []);
        assert_eq!(owners.take_ended(Duration::from_mins(1)).len(), 1);
    }
}
