//! Network namespaces: naming one, opening it, running code in it, and reading its `/proc/net`.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// Why a network namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The argument names no namespace.
    #[error("\"{0}\" names no network namespace; give a process id, or a path such as /run/netns/NAME")]
    Spec(String),
    /// The namespace file cannot be opened.
    #[error("cannot open network namespace {path}: {source}; {hint}", hint = open_hint(source))]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else.
    #[error(
        "{path} is not a namespace; give a process id, or a path such as /run/netns/NAME or /proc/PID/ns/net"
    )]
    NotANamespace {
        /// The file.
        path: PathBuf,
    },
    /// setns() was refused.
    #[error("cannot enter network namespace {path}: {source}; {hint}", hint = enter_hint(*source))]
    Enter {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// No thread to enter it with, or that thread panicked.
    #[error("cannot run in network namespace {path}: {reason}")]
    Thread {
        /// File of the namespace.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// A file of `/proc/net` cannot be read.
    #[error("cannot read {name} of network namespace {netns}: {source}")]
    Read {
        /// Name below `/proc/net`.
        name: String,
        /// The namespace.
        netns: NetnsSpec,
        /// Why. `NotFound` = the kernel part that provides it is not loaded, or the process has ended.
        source: io::Error,
    },
}

fn open_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "this needs CAP_SYS_PTRACE (run as root, in a pod with hostPID)",
        io::ErrorKind::NotFound => "is the process still running? named namespaces are /run/netns/NAME",
        _ => "check the path",
    }
}

fn enter_hint(source: Errno) -> &'static str {
    match source {
        Errno::EPERM => "this needs CAP_SYS_ADMIN",
        Errno::EINVAL => "it is a namespace of another kind",
        _ => "entering a namespace needs CAP_SYS_ADMIN",
    }
}

/// How a person names a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NetnsSpec {
    /// That of a process, by the pid that `/proc` shows.
    Pid(u32),
    /// A namespace file, such as `/run/netns/blue` or `/proc/42/ns/net`.
    Path(PathBuf),
}

impl Default for NetnsSpec {
    /// Pid 1: the node's namespace where the host's pids are visible (`hostPID`), whatever this pod's own is.
    fn default() -> Self {
        Self::Pid(1)
    }
}

impl FromStr for NetnsSpec {
    type Err = NetnsError;

    /// All digits = a pid, anything else = a path.
    fn from_str(text: &str) -> Result<Self, NetnsError> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            let path = Some(text).filter(|text| !text.is_empty());
            return path.map(|path| Self::Path(path.into())).ok_or_else(|| NetnsError::Spec(text.to_owned()));
        }
        match text.parse() {
            Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
            _ => Err(NetnsError::Spec(text.to_owned())),
        }
    }
}

impl fmt::Display for NetnsSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "of pid {pid}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct NetNs {
    /// File it was opened from.
    pub path: PathBuf,
    /// Its inode number, which names it in events, `ss` and `lsns`.
    pub inode: u32,
    /// The open file.
    pub file: File,
}

impl NetNs {
    /// Opens a namespace.
    pub fn open(spec: &NetnsSpec) -> Result<Self, NetnsError> {
        let path = match spec {
            NetnsSpec::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            NetnsSpec::Path(path) => path.clone(),
        };
        Self::open_path(path)
    }

    /// The namespace of the calling thread.
    pub fn own() -> Result<Self, NetnsError> {
        Self::open_path("/proc/thread-self/ns/net".into())
    }

    fn open_path(path: PathBuf) -> Result<Self, NetnsError> {
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.ino(), file)));
        let (inode, file) = match opened {
            Ok(opened) => opened,
            Err(source) => return Err(NetnsError::Open { path, source }),
        };
        let is_namespace = fstatfs(&file).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC);
        match u32::try_from(inode) {
            Ok(inode) if is_namespace => Ok(Self { path, inode, file }),
            _ => Err(NetnsError::NotANamespace { path }),
        }
    }

    /// Runs `f` in this namespace and returns its value: at once if the caller is there, else on a thread of its own that
    /// ends with it. In there, `/proc/net` and `/proc/self/net` still show the process's namespace: read
    /// `/proc/thread-self/net`. `/proc/sys/net` is the thread's.
    pub fn run_inside<T, F>(&self, f: F) -> Result<T, NetnsError>
    where
        T: Send,
        F: FnOnce() -> T + Send,
    {
        let thread_error =
            |reason: &str| NetnsError::Thread { path: self.path.clone(), reason: reason.into() };
        let panicked = |_| thread_error("the code that ran there panicked");
        // Entering it again would need a capability for nothing, and a thread would have those of its parent.
        if Self::own().is_ok_and(|own| own.inode == self.inode) {
            return catch_unwind(AssertUnwindSafe(f)).map_err(panicked);
        }
        thread::scope(|scope| {
            let inside = || {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .map_err(|source| NetnsError::Enter { path: self.path.clone(), source })?;
                Ok(f())
            };
            thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, inside)
                .map_err(|error| thread_error(&format!("no new thread: {error}")))?
                .join()
                .map_err(panicked)?
        })
    }
}

/// Reads `/proc/net/<name>` of a namespace. By pid this needs no capability; by path it needs CAP_SYS_PTRACE and a
/// process in there, or CAP_SYS_ADMIN to go there.
pub fn read_proc_net(spec: &NetnsSpec, name: &str) -> Result<Vec<u8>, NetnsError> {
    let read_error = |source| NetnsError::Read { name: name.to_owned(), netns: spec.clone(), source };
    if let NetnsSpec::Pid(pid) = spec {
        return fs::read(format!("/proc/{pid}/net/{name}")).map_err(read_error);
    }
    let netns = NetNs::open(spec)?;
    if let Some(pid) = process_in(netns.inode) {
        let content = fs::read(format!("/proc/{pid}/net/{name}"));
        // The pid may have ended and come back elsewhere in the meantime.
        if namespace_of(pid) == Some(netns.inode) {
            return content.map_err(read_error);
        }
    }
    netns.run_inside(|| fs::read(Path::new("/proc/thread-self/net").join(name)))?.map_err(read_error)
}

fn process_in(inode: u32) -> Option<u32> {
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|&pid| namespace_of(pid) == Some(inode))
}

/// Whose a namespace is, in words for people: its name in `/run/netns`, and a process in it. `None` if neither is seen.
pub fn whose(inode: u32) -> Option<String> {
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten().find(|entry| {
        let metadata = fs::metadata(entry.path());
        metadata.is_ok_and(|metadata| metadata.ino() == u64::from(inode))
    });
    let named = named.map(|entry| entry.path().display().to_string());
    let process = process_in(inode).map(|pid| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("of pid {pid} ({})", comm.trim_end())
    });
    let words: Vec<String> = [named, process].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Inode of the network namespace of a process's main thread.
fn namespace_of(pid: u32) -> Option<u32> {
    let inode = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
    u32::try_from(inode).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    /// A new, empty namespace that no process is in; `None` without CAP_SYS_ADMIN.
    pub(in super::super) fn fresh() -> Option<NetNs> {
        thread::spawn(|| match nix::sched::unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => Some(NetNs::own().unwrap()),
            Err(Errno::EPERM) => None,
            Err(error) => panic!("unshare: {error}"),
        })
        .join()
        .unwrap()
    }

    #[test]
    fn argument_is_a_pid_or_a_path() {
        assert_eq!("42".parse::<NetnsSpec>().unwrap(), NetnsSpec::Pid(42));
        assert_eq!("/run/netns/7".parse::<NetnsSpec>().unwrap(), NetnsSpec::Path("/run/netns/7".into()));
        assert_eq!(NetnsSpec::default(), NetnsSpec::Pid(1));
        for bad in ["", "0", "99999999999"] {
            assert!(matches!(bad.parse::<NetnsSpec>(), Err(NetnsError::Spec(_))), "{bad}");
        }
    }

    #[test]
    fn what_is_no_namespace_is_refused_by_name() {
        let error = NetNs::open(&NetnsSpec::Path("/proc/self/status".into())).unwrap_err();
        assert!(error.to_string().starts_with("/proc/self/status is not a namespace"));
        let error = NetNs::open(&NetnsSpec::Path("/run/netns/no such".into())).unwrap_err();
        assert!(error.to_string().contains("/run/netns/NAME"));
        let error = NetNs::open(&NetnsSpec::Path("/proc/self/ns/mnt".into())).unwrap();
        let refused = error.run_inside(|| ()).unwrap_err().to_string();
        assert!(
            refused.contains("/proc/self/ns/mnt")
                && (refused.contains("another kind") || refused.contains("CAP_SYS_ADMIN"))
        );
    }

    #[test]
    fn own_namespace_needs_no_capability() {
        let own = NetNs::own().unwrap();
        assert_eq!(own.run_inside(|| NetNs::own().unwrap().inode).unwrap(), own.inode);
        let spec = NetnsSpec::Pid(std::process::id());
        assert_eq!(NetNs::open(&spec).unwrap().inode, own.inode);
        assert!(whose(own.inode).unwrap().contains("of pid "));
        assert_eq!(whose(1), None);
        assert!(read_proc_net(&spec, "dev").unwrap().starts_with(b"Inter-|"));
        let error = read_proc_net(&spec, "nonexistent").unwrap_err();
        assert!(matches!(error, NetnsError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn namespace_without_a_process_is_entered() {
        let Some(netns) = fresh() else { return };
        let own = NetNs::own().unwrap().inode;
        assert_ne!(netns.inode, own);
        assert_eq!(netns.run_inside(|| NetNs::own().unwrap().inode).unwrap(), netns.inode);
        assert_eq!(NetNs::own().unwrap().inode, own);

        let spec = NetnsSpec::Path(format!("/proc/self/fd/{}", netns.file.as_raw_fd()).into());
        let devices = String::from_utf8(read_proc_net(&spec, "dev").unwrap()).unwrap();
        let names: Vec<&str> =
            devices.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
        assert!(names.contains(&"lo") && !names.contains(&"eth0"), "{names:?}");
        let sockets = netns.run_inside(|| std::net::TcpListener::bind("127.0.0.1:0").is_ok()).unwrap();
        assert!(sockets);
    }

    #[test]
    fn path_is_resolved_through_a_process_inside() {
        let spec = NetnsSpec::Path("/proc/self/ns/net".into());
        assert_eq!(read_proc_net(&spec, "if_inet6").is_ok(), Path::new("/proc/self/net/if_inet6").exists());
    }

    #[test]
    fn a_panic_inside_is_an_error_outside() {
        let Some(fresh) = fresh() else { return };
        for netns in [NetNs::own().unwrap(), fresh] {
            let error = netns.run_inside(|| std::panic::resume_unwind(Box::new(()))).unwrap_err();
            assert!(matches!(error, NetnsError::Thread { .. }));
        }
    }
}
