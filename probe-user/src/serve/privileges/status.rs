//! What the kernel says about the privileges of this process's threads.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::PrivilegesError;

/// Privileges of one thread, from `/proc/self/task/TID/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadStatus {
    /// Its name.
    pub name: String,
    /// Inheritable, permitted, effective, bounding and ambient capabilities, one bit each.
    pub inheritable: u64,
    /// Permitted.
    pub permitted: u64,
    /// Effective.
    pub effective: u64,
    /// Bounding.
    pub bounding: u64,
    /// Ambient.
    pub ambient: u64,
    /// Nothing can be gained by executing a program.
    pub no_new_privs: bool,
    /// System calls are filtered.
    pub filtered: bool,
}

impl ThreadStatus {
    /// From the text of a status file; `None` if a line is missing.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
        };
        let set = |key: &str| u64::from_str_radix(value(key)?, 16).ok();
        Some(Self {
            name: value("Name")?.to_owned(),
            inheritable: set("CapInh")?,
            permitted: set("CapPrm")?,
            effective: set("CapEff")?,
            bounding: set("CapBnd")?,
            ambient: set("CapAmb")?,
            no_new_privs: value("NoNewPrivs")? == "1",
            filtered: value("Seccomp")? == "2",
        })
    }
}

const TASKS: &str = "/proc/self/task";

/// The threads of this process.
pub fn threads() -> Result<Vec<ThreadStatus>, PrivilegesError> {
    let error = |path: &Path, source| PrivilegesError::Status { path: path.to_owned(), source };
    let mut found = Vec::new();
    let tasks = fs::read_dir(TASKS).map_err(|source| error(Path::new(TASKS), source))?;
    for task in tasks {
        let path: PathBuf = task.map_err(|source| error(Path::new(TASKS), source))?.path().join("status");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let status = ThreadStatus::parse(&text);
                found.push(status.ok_or_else(|| error(&path, std::io::ErrorKind::InvalidData.into()))?);
            }
            // It has ended.
            Err(source) if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            Err(source) => return Err(error(&path, source)),
        }
    }
    Ok(found)
}

/// How long a thread that was joined may still be seen.
const ENDING: Duration = Duration::from_secs(1);

/// That nobody else is there who would keep everything.
pub(super) fn only_thread() -> Result<(), PrivilegesError> {
    let end = Instant::now() + ENDING;
    loop {
        let all = threads()?;
        if all.len() <= 1 {
            return Ok(());
        }
        if Instant::now() > end {
            let names: Vec<String> = all.into_iter().map(|thread| thread.name).collect();
            return Err(PrivilegesError::OtherThreads(names.join(", ")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Name:\thttp\nState:\tS (sleeping)\nCapInh:\t0000000000000000\nCapPrm:\t000000c000000000\n\
                        CapEff:\t0000008000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n\
                        NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";

    #[test]
    fn a_status_file_is_read() {
        let status = ThreadStatus::parse(TEXT).unwrap();
        assert_eq!(
            (status.name.as_str(), status.permitted, status.effective),
            ("http", 0xc0 << 32, 0x80 << 32)
        );
        assert_eq!((status.bounding, status.no_new_privs, status.filtered), (0x1ff_ffff_ffff, true, true));
        assert_eq!(ThreadStatus::parse(&TEXT.replace("Seccomp:", "Other:")), None);
        assert_eq!(ThreadStatus::parse(&TEXT.replace("0000008", "x")), None);
    }

    #[test]
    fn threads_of_this_process_are_seen_by_name() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        // A thread names itself after it has begun.
        let (begun, wait) = std::sync::mpsc::channel::<()>();
        let work = move || {
            drop(begun);
            receive.recv().ok()
        };
        let thread = std::thread::Builder::new().name("seen".into()).spawn(work).unwrap();
        wait.recv().unwrap_err();
        assert!(threads().unwrap().iter().any(|status| status.name == "seen"));
        assert!(matches!(only_thread(), Err(PrivilegesError::OtherThreads(names)) if names.contains("seen")));
        drop(send);
        thread.join().unwrap();
    }
}
