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
}

/// The cgroup v2 mount (unified, or `/sys/fs/cgroup/unified` of a hybrid node) that this process sees.
/// A mount of the whole hierarchy is preferred to one of a part.
pub fn cgroup2_mount(proc_root: &Path) -> Result<PathBuf, MountError> {
    let path = proc_root.join("self/mountinfo");
    let text = std::fs::read(&path).map_err(|source| MountError::Read { path, source })?;
    cgroup2_in(&String::from_utf8_lossy(&text)).ok_or(MountError::NoCgroup2)
}

fn cgroup2_in(mountinfo: &str) -> Option<PathBuf> {
    let mounts: Vec<(&str, &str)> = mountinfo.lines().filter_map(cgroup2_line).collect();
    let whole = mounts.iter().find(|(root, _)| *root == "/");
    whole.or(mounts.first()).map(|(_, mount_point)| unescaped(mount_point))
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

    #[test]
    fn hybrid_and_unified_mounts() {
        assert_eq!(cgroup2_in(HYBRID), Some("/sys/fs/cgroup/unified".into()));
        let unified = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate";
        assert_eq!(cgroup2_in(unified), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn whole_hierarchy_is_preferred() {
        let text = "1 2 0:3 /sub /a rw - cgroup2 c rw\n1 2 0:3 / /b\\040c rw - cgroup2 c rw\n";
        assert_eq!(cgroup2_in(text), Some("/b c".into()));
        assert_eq!(cgroup2_in("1 2 0:3 /sub /a rw - cgroup2 c rw"), Some("/a".into()));
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
