//! cgroup v2 id → path, for processes that have gone before anyone could look at `/proc`.
//!
//! On 64-bit kernels the id that BPF reports (`bpf_get_current_cgroup_id`) is the inode number of the cgroup's
//! directory (fs/kernfs: `kernfs_ino`).

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::mounts::{MountError, cgroup2_mount};

/// Directories that one search looks at before it gives up.
const MAX_DIRECTORIES: usize = 50_000;
/// Answers that are remembered.
const CAPACITY: usize = 1024;

/// Finds cgroups by id and remembers the answers.
#[derive(Debug)]
pub struct CgroupPaths {
    mount: PathBuf,
    /// id → answer and time of its last use. `None` is remembered too: an id that is gone does not come back
    /// (its upper half is a generation number).
    known: HashMap<u64, (Option<String>, u64)>,
    uses: u64,
    limit: usize,
}

impl CgroupPaths {
    /// Uses the cgroup v2 mount that `proc_root` (usually `/proc`) lists.
    pub fn open(proc_root: &Path) -> Result<Self, MountError> {
        Ok(Self::at(cgroup2_mount(proc_root)?))
    }

    /// Uses this cgroup v2 mount.
    pub fn at(mount: PathBuf) -> Self {
        Self { mount, known: HashMap::new(), uses: 0, limit: MAX_DIRECTORIES }
    }

    /// Path of the cgroup from the root of the mount, such as `/system.slice/kubelet.service`; `None` if there is
    /// no such directory (any more), or none within the first 50,000.
    pub fn path_of(&mut self, id: u64) -> Option<String> {
        self.uses += 1;
        if let Some((path, used)) = self.known.get_mut(&id) {
            *used = self.uses;
            return path.clone();
        }
        let (path, complete) = self.search(id);
        // A search that stopped early proves nothing about an id that it did not find.
        if path.is_some() || complete {
            self.remember(id, path.clone());
        }
        path
    }

    /// The path if it was found, and whether every directory was looked at.
    fn search(&self, id: u64) -> (Option<String>, bool) {
        if fs::metadata(&self.mount).is_ok_and(|root| root.ino() == id) {
            return (Some("/".to_owned()), true);
        }
        let mut waiting = vec![PathBuf::new()];
        let mut seen = 0;
        while let Some(below) = waiting.pop() {
            // A cgroup that was removed since its parent was read: the others still count.
            let Ok(entries) = fs::read_dir(self.mount.join(&below)) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let path = below.join(entry.file_name());
                if entry.ino() == id {
                    return (Some(format!("/{}", path.display())), true);
                }
                seen += 1;
                if seen >= self.limit {
                    return (None, false);
                }
                waiting.push(path);
            }
        }
        (None, true)
    }

    fn remember(&mut self, id: u64, path: Option<String>) {
        if self.known.len() >= CAPACITY
            && let Some(oldest) = self.known.iter().min_by_key(|(_, (_, used))| *used).map(|(&id, _)| id)
        {
            self.known.remove(&oldest);
        }
        self.known.insert(id, (path, self.uses));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn finds_directories_by_inode_and_keeps_the_answer() {
        let root = tempfile::tempdir().unwrap();
        let leaf = root.path().join("kubepods.slice/pod.slice/crio.scope");
        fs::create_dir_all(&leaf).unwrap();
        fs::write(root.path().join("cgroup.procs"), "").unwrap();
        let mut paths = CgroupPaths::at(root.path().to_owned());
        let id = inode(&leaf);
        assert_eq!(paths.path_of(inode(root.path())).as_deref(), Some("/"));
        assert_eq!(paths.path_of(id).as_deref(), Some("/kubepods.slice/pod.slice/crio.scope"));
        fs::remove_dir(&leaf).unwrap();
        assert_eq!(paths.path_of(id).as_deref(), Some("/kubepods.slice/pod.slice/crio.scope"));
    }

    #[test]
    fn files_are_no_cgroups() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("cgroup.procs");
        fs::write(&file, "").unwrap();
        assert_eq!(CgroupPaths::at(root.path().to_owned()).path_of(inode(&file)), None);
    }

    #[test]
    fn a_search_that_stopped_early_is_not_remembered() {
        let root = tempfile::tempdir().unwrap();
        let leaf = root.path().join("a/b/c");
        fs::create_dir_all(&leaf).unwrap();
        let mut paths = CgroupPaths::at(root.path().to_owned());
        paths.limit = 2;
        assert_eq!(paths.path_of(inode(&leaf)), None);
        paths.limit = MAX_DIRECTORIES;
        assert_eq!(paths.path_of(inode(&leaf)).as_deref(), Some("/a/b/c"));
    }

    #[test]
    fn least_recently_used_answer_is_forgotten_first() {
        let mut paths = CgroupPaths::at(PathBuf::from("/nonexistent"));
        for id in 0..CAPACITY as u64 {
            paths.uses = id;
            paths.remember(id, Some(format!("/{id}")));
        }
        assert_eq!(paths.path_of(0).as_deref(), Some("/0"));
        paths.remember(u64::MAX, None);
        assert_eq!(paths.known.len(), CAPACITY);
        assert!(paths.known.contains_key(&0) && !paths.known.contains_key(&1));
    }

    #[test]
    fn own_cgroup_of_this_machine() {
        // Only where the test machine mounts cgroup2; elsewhere there is nothing to compare with.
        let Ok(mut paths) = CgroupPaths::open(Path::new("/proc")) else { return };
        let Some(entry) = fs::read_dir(&paths.mount).unwrap().flatten().find(|e| e.path().is_dir()) else {
            return;
        };
        let expected = format!("/{}", entry.file_name().display());
        assert_eq!(paths.path_of(inode(&entry.path())), Some(expected));
    }
}
