//! Which log: as told, or found.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::journal;

/// Where distributions keep a log that is the kubelet's alone, below the root of the node.
const FILES: [&str; 5] = [
    // RKE2's own unit has lines of RKE2 only.
    "var/lib/rancher/rke2/agent/logs/kubelet.log",
    "var/log/kubelet.log",
    "var/log/kubelet/kubelet.log",
    "var/log/kubernetes/kubelet.log",
    // RKE: links to the log of the container that the kubelet is in.
    "var/lib/rancher/rke/log",
];
/// A kubelet that has written nothing for so long writes elsewhere.
const STALE: Duration = Duration::from_hours(24);

/// `--kubelet-log auto|journal[:UNIT]|PATH|none`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletLog {
    /// The first that is found.
    Auto,
    /// systemd's journal: the unit that is given, or all that a kubelet can run in.
    Journal(Option<String>),
    /// A file, or a directory of container logs.
    Path(PathBuf),
    /// None at all.
    None,
}

impl FromStr for KubeletLog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => {
                Err("write auto, journal, journal:UNIT, none, or the path of a file or directory".to_owned())
            }
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            "journal" => Ok(Self::Journal(None)),
            _ => match text.strip_prefix("journal:") {
                Some(unit) if is_unit(unit) => Ok(Self::Journal(Some(unit.to_owned()))),
                Some(unit) => {
                    Err(format!("\"{unit}\" is no name of a systemd unit; write it like journal:kubelet"))
                }
                None => Ok(Self::Path(PathBuf::from(text))),
            },
        }
    }
}

/// Where the node's file system is: in a container with the node's processes, that of process 1.
pub fn node_root() -> PathBuf {
    let mounts = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    match (mounts("1"), mounts("self")) {
        (Some(node), Some(own)) if node != own => PathBuf::from("/proc/1/root"),
        _ => PathBuf::from("/"),
    }
}

/// What systemd allows in a unit's name; nothing that could be an option.
fn is_unit(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    !text.is_empty() && text.len() < 256 && !text.starts_with('-') && text.bytes().all(fits)
}

/// The log of this node's kubelet, if there is one.
pub(super) async fn find(root: &Path) -> Option<KubeletLog> {
    let fresh = |path: &PathBuf| {
        let written = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        written.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < STALE))
    };
    if let Some(path) = FILES.iter().map(|file| root.join(file)).find(fresh) {
        return Some(KubeletLog::Path(path));
    }
    journal::has_kubelet(root).await.then_some(KubeletLog::Journal(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_units_and_paths() {
        let read = |text: &str| text.parse::<KubeletLog>();
        assert_eq!(read("auto"), Ok(KubeletLog::Auto));
        assert_eq!(read("none"), Ok(KubeletLog::None));
        assert_eq!(read("journal"), Ok(KubeletLog::Journal(None)));
        assert_eq!(read("journal:k3s"), Ok(KubeletLog::Journal(Some("k3s".to_owned()))));
        assert_eq!(read("/var/log/kubelet.log"), Ok(KubeletLog::Path("/var/log/kubelet.log".into())));
        for wrong in ["", "journal:", "journal:-f", "journal:a b", "journal:--root=/x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_file_that_is_written_to_is_found_before_the_journal() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(FILES[0]);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(find(root.path()).await, Some(KubeletLog::Path(file.clone())));
        let old = SystemTime::now() - STALE * 2;
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
        assert_eq!(find(root.path()).await, None);
    }
}
