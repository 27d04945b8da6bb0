//! What `/proc` says about the process that called connect(), with a guard against reused pids.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::cgroup;
use super::cmdline::masked_cmdline_from_bytes;

/// Bytes of a command line that are read; more than is ever shown.
const MAX_CMDLINE: u64 = 4096;
/// Bytes of the other small files that are read.
const MAX_FILE: u64 = 64 * 1024;
/// Inode number of the initial pid namespace, `PROC_PID_INIT_INO` in include/linux/proc_ns.h.
const INITIAL_PID_NS: u64 = 0xEFFF_FFFC;

/// What is known about a process. What could not be read is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Path of the executable as the kernel links it (` (deleted)` at the end after an upgrade).
    pub exe: Option<String>,
    /// Command line as it is now, secrets masked. The process may have called exec since its connect().
    pub cmdline: Option<String>,
    /// Path in the cgroup hierarchy.
    pub cgroup: Option<String>,
    /// Innermost container id, 64 hex digits.
    pub container_id: Option<String>,
    /// UID of the pod as the cgroup path names it.
    pub pod_uid: Option<String>,
    /// The process has ended, or its pid belongs to another one now. All else is `None` then.
    pub gone: bool,
    /// Something exists but must not be read; CAP_SYS_PTRACE would allow it.
    pub denied: bool,
}

impl ProcessFacts {
    fn gone() -> Self {
        Self { gone: true, ..Self::default() }
    }
}

/// Reads `/proc/PID`. With `start_boottime_ns` (CLOCK_BOOTTIME, of the thread group leader, as BPF reports it) a
/// process that started at another time is refused: its pid was used again, and nothing of it is shown.
pub fn identify(proc_root: &Path, pid: u32, start_boottime_ns: Option<u64>) -> ProcessFacts {
    let dir = proc_root.join(pid.to_string());
    let Some(before) = start_ticks(&dir) else { return ProcessFacts::gone() };
    if !started_at(before, start_boottime_ns) {
        return ProcessFacts::gone();
    }
    let facts = read_facts(&dir);
    // The pid may have changed hands while its files were read.
    if start_ticks(&dir) == Some(before) { facts } else { ProcessFacts::gone() }
}

/// True while this very process runs: the pid is there and started at that time (CLOCK_BOOTTIME; `None` = not known).
pub fn is_running(proc_root: &Path, pid: u32, start_boottime_ns: Option<u64>) -> bool {
    start_ticks(&proc_root.join(pid.to_string())).is_some_and(|ticks| started_at(ticks, start_boottime_ns))
}

/// Whether a start in clock ticks is the one in nanoseconds, where that is known.
fn started_at(ticks: u64, start_boottime_ns: Option<u64>) -> bool {
    let expected = start_boottime_ns.and_then(|ns| ns_to_ticks(ns, ticks_per_second()?));
    expected.is_none_or(|expected| expected.abs_diff(ticks) <= 1)
}

fn read_facts(dir: &Path) -> ProcessFacts {
    let mut facts = ProcessFacts::default();
    let mut denied = false;
    let mut note = |error: &io::Error| denied |= error.kind() == io::ErrorKind::PermissionDenied;

    match fs::read_link(dir.join("exe")) {
        Ok(path) => facts.exe = Some(path.to_string_lossy().into_owned()),
        Err(error) => note(&error),
    }
    match read_bounded(&dir.join("cmdline"), MAX_CMDLINE) {
        Ok((bytes, cut)) => facts.cmdline = masked_cmdline_from_bytes(&bytes, cut),
        Err(error) => note(&error),
    }
    match read_bounded(&dir.join("cgroup"), MAX_FILE) {
        Ok((bytes, _)) => {
            let info = cgroup::container_of(&String::from_utf8_lossy(&bytes));
            facts.cgroup = info.path;
            facts.container_id = info.container_id;
            facts.pod_uid = info.pod_uid;
        }
        Err(error) => note(&error),
    }
    facts.denied = denied;
    facts
}

/// At most `limit` bytes of a file, and whether there is more.
fn read_bounded(path: &Path, limit: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    let cut = bytes.len() as u64 > limit;
    if cut {
        bytes.pop();
    }
    Ok((bytes, cut))
}

fn start_ticks(dir: &Path) -> Option<u64> {
    let (bytes, _) = read_bounded(&dir.join("stat"), MAX_FILE).ok()?;
    parse_start_ticks(&String::from_utf8_lossy(&bytes))
}

/// Field 22 of `/proc/PID/stat`: start in clock ticks since boot. The name in field 2 may hold anything, also
/// blanks and parentheses, so counting begins after the last parenthesis.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

fn ticks_per_second() -> Option<u64> {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    u64::try_from(ticks).ok()
}

/// As the kernel rounds it (`nsec_to_clock_t`, kernel/time/time.c).
fn ns_to_ticks(ns: u64, ticks_per_second: u64) -> Option<u64> {
    ns.checked_div(1_000_000_000_u64.checked_div(ticks_per_second)?)
}

/// Whether the pids in `proc_root` are those that BPF reports (the initial pid namespace's). `None` = not known.
/// Where it is `Some(false)`, in a pod without `hostPID` or inside kind, a pid must not be looked up there.
pub fn in_initial_pid_namespace(proc_root: &Path) -> Option<bool> {
    // Pid 1 of a /proc mount is the init of the pid namespace that the mount shows.
    if let Some(shown) = pid_namespace(proc_root, "1") {
        return Some(shown == INITIAL_PID_NS);
    }
    // Without CAP_SYS_PTRACE that link is hidden: what can be said from ourselves?
    if pid_namespace(proc_root, "self")? == INITIAL_PID_NS {
        return Some(true);
    }
    let status = fs::read_to_string(proc_root.join("self/status")).ok()?;
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_ascii_whitespace().count();
    // One pid: the mount shows our own namespace, which is not the initial one. More: it shows an ancestor's.
    (pids == 1).then_some(false)
}

fn pid_namespace(proc_root: &Path, pid: &str) -> Option<u64> {
    let link = fs::read_link(proc_root.join(pid).join("ns/pid")).ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn stat_line(comm: &str, ticks: u64) -> String {
        format!("42 ({comm}) S 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 9 0 {ticks} 1 2 3\n")
    }

    fn fake_process(ticks: u64) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("42");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("stat"), stat_line("kube let) S 9 (", ticks)).unwrap();
        fs::write(dir.join("cmdline"), "kubelet\0--token=abc\0").unwrap();
        fs::write(dir.join("cgroup"), format!("0::/docker/{ID}\n")).unwrap();
        symlink("/usr/bin/kubelet", dir.join("exe")).unwrap();
        root
    }

    #[test]
    fn reads_everything_of_a_living_process() {
        let root = fake_process(500);
        let expected = ProcessFacts {
            exe: Some("/usr/bin/kubelet".into()),
            cmdline: Some("kubelet --token=***".into()),
            cgroup: Some(format!("/docker/{ID}")),
            container_id: Some(ID.into()),
            ..ProcessFacts::default()
        };
        assert_eq!(identify(root.path(), 42, None), expected);
        let tick = 1_000_000_000 / ticks_per_second().unwrap();
        assert_eq!(identify(root.path(), 42, Some(500 * tick + tick / 2)), expected);
        assert_eq!(identify(root.path(), 42, Some(499 * tick)), expected);
    }

    #[test]
    fn nothing_is_taken_from_a_reused_pid() {
        let root = fake_process(500);
        let tick = 1_000_000_000 / ticks_per_second().unwrap();
        assert_eq!(identify(root.path(), 42, Some(498 * tick)), ProcessFacts::gone());
        assert_eq!(identify(root.path(), 42, Some(502 * tick)), ProcessFacts::gone());
        assert_eq!(identify(root.path(), 43, None), ProcessFacts::gone());
    }

    #[test]
    fn missing_files_hide_nothing_else() {
        let root = fake_process(500);
        fs::remove_file(root.path().join("42/exe")).unwrap();
        fs::write(root.path().join("42/cmdline"), "").unwrap();
        let facts = identify(root.path(), 42, None);
        assert_eq!((facts.exe, facts.cmdline, facts.gone), (None, None, false));
        assert_eq!(facts.container_id.as_deref(), Some(ID));
    }

    #[test]
    fn long_command_lines_are_cut_and_say_so() {
        let root = fake_process(500);
        fs::write(root.path().join("42/cmdline"), "x\0".repeat(9000)).unwrap();
        assert!(identify(root.path(), 42, None).cmdline.unwrap().ends_with('…'));
    }

    #[test]
    fn this_very_process() {
        let facts = identify(Path::new("/proc"), std::process::id(), None);
        assert_eq!(facts.exe, Some(std::env::current_exe().unwrap().to_string_lossy().into_owned()));
        assert!(!facts.gone && facts.cmdline.is_some());
        // Started before any process that is created now.
        assert!(identify(Path::new("/proc"), std::process::id(), Some(0)).gone);
        assert!(is_running(Path::new("/proc"), std::process::id(), None));
        assert!(!is_running(Path::new("/proc"), std::process::id(), Some(0)));
    }

    fn fake_namespaces(init: Option<u64>, own: u64, nspid: &str) -> Option<bool> {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("self/ns")).unwrap();
        fs::create_dir_all(root.path().join("1/ns")).unwrap();
        symlink(format!("pid:[{own}]"), root.path().join("self/ns/pid")).unwrap();
        if let Some(init) = init {
            symlink(format!("pid:[{init}]"), root.path().join("1/ns/pid")).unwrap();
        }
        fs::write(root.path().join("self/status"), format!("Name:\tx\nNSpid:\t{nspid}\n")).unwrap();
        in_initial_pid_namespace(root.path())
    }

    // open-telemetry/opentelemetry-ebpf-profiler#620, #1657
    #[test]
    fn pids_of_a_nested_proc_are_not_those_of_bpf() {
        assert_eq!(fake_namespaces(Some(4_026_532_000), 4_026_532_000, "17"), Some(false));
        assert_eq!(fake_namespaces(None, 4_026_532_000, "17"), Some(false));
        assert_eq!(fake_namespaces(Some(INITIAL_PID_NS), INITIAL_PID_NS, "17"), Some(true));
        assert_eq!(fake_namespaces(None, 4_026_531_836, "17"), Some(true));
    }

    #[test]
    fn proc_of_the_host_mounted_into_a_container_is_the_hosts() {
        assert_eq!(fake_namespaces(Some(INITIAL_PID_NS), 4_026_532_000, "1234\t17"), Some(true));
        assert_eq!(fake_namespaces(None, 4_026_532_000, "1234\t17"), None);
    }

    proptest! {
        #[test]
        fn start_time_is_found_behind_any_name(comm in "\\PC{0,15}", ticks: u64) {
            prop_assert_eq!(parse_start_ticks(&stat_line(&comm, ticks)), Some(ticks));
        }

        #[test]
        fn arbitrary_stat_does_not_panic(stat in any::<String>()) {
            let _ = parse_start_ticks(&stat);
        }
    }
}
