//! Who called connect(): what the kernel side recorded at that moment, completed from /proc while the process lives.

use std::path::{Path, PathBuf};

use probe_ebpf::{CMDLINE_LEN, Event};

use crate::kernel::event::comm_text;
use crate::node::cgroup::container_of_path;
use crate::node::cgroup_id::CgroupPaths;
use crate::node::cmdline::masked_cmdline_from_bytes;
use crate::node::process::identify;
use crate::observation::Owner;

/// Completes owners.
pub struct Owners {
    proc_root: PathBuf,
    cgroups: Option<CgroupPaths>,
    /// False in a nested pid namespace: /proc shows other pids than the kernel side reports.
    pids_match: bool,
}

impl Owners {
    /// Reads processes below `proc_root` (`/proc`), unless the pids there are not the kernel side's.
    pub fn new(proc_root: &Path, pids_match: bool) -> Self {
        Self { proc_root: proc_root.to_owned(), cgroups: CgroupPaths::open(proc_root).ok(), pids_match }
    }

    /// The owner recorded in an event; `None` if the event was not in process context.
    pub fn of(&mut self, event: &Event) -> Option<Owner> {
        if event.pid == 0 {
            return None;
        }
        let mut owner = Owner { pid: Some(event.pid), comm: comm_text(&event.comm), ..Owner::default() };
        if self.pids_match {
            let start = (event.start_ns != 0).then_some(event.start_ns);
            let facts = identify(&self.proc_root, event.pid, start);
            owner.exe = facts.exe;
            owner.cmdline = facts.cmdline;
            owner.cgroup = facts.cgroup;
            owner.container_id = facts.container_id;
        }
        // The kernel side's copy is from the very moment of the connect; the process may have called exec since.
        let recorded = event.cmdline.get(..usize::from(event.cmdline_len)).unwrap_or_default();
        if let Some(cmdline) = masked_cmdline_from_bytes(recorded, recorded.len() == CMDLINE_LEN) {
            owner.cmdline = Some(cmdline);
        }
        // In a cgroup namespace of our own, /proc leads up from there (`/../../system.slice/…`), and what is above is
        // not told; the id names the cgroup below the mounted root.
        let told = owner.cgroup.as_deref().is_some_and(|path| !path.starts_with("/.."));
        if !told && event.cgroup_id != 0 {
            let found = self.cgroups.as_mut().and_then(|paths| paths.path_of(event.cgroup_id));
            if let Some(path) = found {
                owner.container_id = container_of_path(&path).container_id;
                owner.cgroup = Some(path);
            }
        }
        Some(owner)
    }
}
