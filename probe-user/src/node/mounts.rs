//! Where the cgroup v2 hierarchy is mounted, from `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Why the cgroup v2 mount is not known.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The list of mounts cannot be read.
    #[error("cannot read the list of mounts {path}: {source}; is /proc mounted?")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No cgroup v2 hierarchy is mounted.
    #[error(
        "no cgroup2 file system is mounted; mount one with: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup2,
    /// In a container with a cgroup namespace of its own, only its own part of the hierarchy is mounted.
    #[error(
        "{mount} shows only this container's part of the cgroup2 hierarchy; mount the node's /sys/fs/cgroup there"
    )]
    Part {
        /// Where it is mounted.
        mount: PathBuf,
    },
}

/// The cgroup v2 mount (unified, or `/sys/fs/cgroup/unified` of a hybrid node) that this process sees.
/// A mount of the whole hierarchy is preferred to one of a part. What is outside of that part would be missed without any
/// sign of it, so a part that process 1 is not in is an error.
pub fn cgroup2_mount(proc_root: &Path) -> Result<PathBuf, MountError> {
    let path = proc_root.join("self/mountinfo");
    let text = std::fs::read(&path).map_err(|source| MountError::Read { path, source })?;
    let (root, mount) = cgroup2_in(&String::from_utf8_lossy(&text)).ok_or(MountError::NoCgroup2)?;
    let first = std::fs::read_to_string(proc_root.join("1/cgroup")).unwrap_or_default();
    let outside = first.lines().any(|line| line.strip_prefix("0::").is_some_and(is_above));
    if outside && !is_above(&root) {
        return Err(MountError::Part { mount });
    }
    Ok(mount)
}

/// How the kernel writes what is not below the root of the reader's cgroup namespace (kernfs_path_from_node).
fn is_above(path: &str) -> bool {
    path.starts_with("/..")
}

/// Root within the hierarchy, and mount point.
fn cgroup2_in(mountinfo: &str) -> Option<(String, PathBuf)> {
    let mounts: Vec<(&str, &str)> = mountinfo.lines().filter_map(cgroup2_line).collect();
    let widest = mounts.iter().find(|(root, _)| is_above(root));
    let whole = widest.or_else(|| mounts.iter().find(|(root, _)| *root == "/"));
    whole.or(mounts.first()).map(|(root, mount_point)| ((*root).to_owned(), unescaped(mount_point)))
}

/// Root within the hierarchy and mount point, if the line is a cgroup2 mount. Optional fields stand before ` - `.
fn cgroup2_line(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    if after.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = before.split(' ').skip(3);
    Some((fields.next()?, fields.next()?))
}

/// The kernel writes blank, tab, newline and backslash as three octal digits (`\040`).
fn unescaped(field: &str) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        let value = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(value.unwrap_or(byte));
        rest = if value.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
24 30 0:22 / /proc rw,nosuid - proc proc rw
35 34 0:30 / /sys/fs/cgroup/systemd rw shared:10 - cgroup cgroup rw,xattr,name=systemd
36 34 0:31 / /sys/fs/cgroup/unified rw,nosuid shared:11 master:2 - cgroup2 cgroup2 rw
";

    fn mount_in(mountinfo: &str) -> Option<PathBuf> {
        cgroup2_in(mountinfo).map(|(_, mount)| mount)
    }

    #[test]
    fn hybrid_and_unified_mounts() {
        assert_eq!(mount_in(HYBRID), Some("/sys/fs/cgroup/unified".into()));
        let unified = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate";
        assert_eq!(mount_in(unified), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn whole_hierarchy_is_preferred() {
        let text = "1 2 0:3 /sub /a rw - cgroup2 c rw\n1 2 0:3 / /b\\040c rw - cgroup2 c rw\n";
        assert_eq!(mount_in(text), Some("/b c".into()));
        assert_eq!(mount_in("1 2 0:3 /sub /a rw - cgroup2 c rw"), Some("/a".into()));
    }

    #[test]
    fn a_containers_own_part_is_an_error_and_the_nodes_hierarchy_is_not() {
        let root = tempfile::tempdir().unwrap();
        for process in ["self", "1"] {
            std::fs::create_dir(root.path().join(process)).unwrap();
        }
        let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        write("1/cgroup", "0::/../../../../init.scope\n");
        write("self/mountinfo", "1 2 0:3 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
        let error = cgroup2_mount(root.path()).unwrap_err();
        assert!(error.to_string().starts_with("/sys/fs/cgroup shows only this container's part"), "{error}");
        write(
            "self/mountinfo",
            "1 2 0:3 / /a ro - cgroup2 c rw\n1 2 0:3 /../../../.. /node ro - cgroup2 c rw\n",
        );
        assert_eq!(cgroup2_mount(root.path()).unwrap(), Path::new("/node"));
        // On a node that is a container itself, process 1 is within the part.
        write("1/cgroup", "0::/init.scope\n");
        write("self/mountinfo", "1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
        assert_eq!(cgroup2_mount(root.path()).unwrap(), Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn no_mount_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(cgroup2_mount(root.path()), Err(MountError::Read { .. })));
        std::fs::create_dir(root.path().join("self")).unwrap();
        std::fs::write(root.path().join("self/mountinfo"), "1 2 0:3 / /cgroup2 rw - tmpfs cgroup2 rw\nx\n")
            .unwrap();
        assert!(matches!(cgroup2_mount(root.path()), Err(MountError::NoCgroup2)));
    }
}
