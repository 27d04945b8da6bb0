//! What `portclash serve` may still do after its start.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use caps::CapsHashSet;

use super::output::complain;
use super::serve::Args;
use crate::kernel::refusal;
use crate::node::configured;
use crate::serve::privileges::{self, Confined, Plan};
use crate::sources::kubelet_log::{KubeletLog, KubeletLogSource};
use crate::sources::live::Live;

/// Where the node's files are. In a container that is the root of process 1, and going there takes CAP_SYS_PTRACE: it is
/// opened while there is one.
pub(super) struct NodeRoot {
    path: PathBuf,
    opened: Option<File>,
}

impl NodeRoot {
    pub(super) fn open(path: &Path) -> Self {
        let open = || File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
        let opened = if path == Path::new("/") { None } else { open().ok() };
        Self { path: path.to_owned(), opened }
    }

    /// For as long as this value lives.
    pub(super) fn path(&self) -> PathBuf {
        let opened = |dir: &File| PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        self.opened.as_ref().map_or_else(|| self.path.clone(), opened)
    }
}

/// What is still read and written afterwards. `root`: where the node's files are.
pub(super) fn plan(args: &Args, ways: &[PathBuf], root: &Path, log: Option<&KubeletLogSource>) -> Plan {
    let mut plan = Plan::new();
    // No node has all of them.
    plan.reads.extend(configured::sysctl_paths(root).filter(|path| path.exists()));
    let http = &args.http;
    let secrets = [&http.token_file, &http.tls_cert, &http.tls_key];
    let secrets = secrets.into_iter().flatten().chain(ways).chain(&args.config.config);
    for file in secrets.map(PathBuf::as_path).chain(args.sources.files()) {
        plan.read_replaced(file);
    }
    args.sources.kubeconfig_files().iter().for_each(|file| plan.read_replaced(file));
    plan.writes.extend(args.record.record.clone());
    match log.map(KubeletLogSource::place) {
        Some(KubeletLog::Path(path)) if path.is_dir() => plan.read_container_logs(path),
        Some(KubeletLog::Path(path)) => plan.read_replaced(path),
        Some(KubeletLog::Journal(_)) => plan.executes_journalctl = true,
        Some(KubeletLog::Auto | KubeletLog::None) | None => {}
    }
    plan
}

/// Gives privileges up; says what is left and what could not be given up.
pub(super) fn confine(plan: Plan, live: &mut Live) -> Result<Confined> {
    let keep_for_hooks = if live.waits_for_ipvs() {
        privileges::for_hooks(refusal::kprobes_need_sys_admin())
    } else {
        CapsHashSet::new()
    };
    let plan = Plan { keep_for_hooks, ..plan };
    let confined =
        privileges::confine(&plan, Some(live.tracer().readable_map()?)).context("drop privileges")?;
    if !confined.keeps_for_hooks() {
        live.privileges_dropped();
    }
    complain(&confined.summary());
    for note in confined.notes() {
        complain(note);
    }
    Ok(confined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_files_are_read_by_what_was_opened() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/sysctl.d");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("99-x.conf"), "net.ipv4.ip_local_port_range = 1024 65000\n").unwrap();
        let opened = NodeRoot::open(root.path());
        let moved = root.path().with_extension("moved");
        std::fs::rename(root.path(), &moved).unwrap();
        let found = configured::read_under(&opened.path());
        std::fs::rename(&moved, root.path()).unwrap();
        let files: Vec<_> = found.settings.iter().map(|setting| setting.file.clone()).collect();
        assert_eq!(files, [Path::new("/etc/sysctl.d/99-x.conf")]);
        assert_eq!(NodeRoot::open(Path::new("/")).path(), Path::new("/"));
    }
}
