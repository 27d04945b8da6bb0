//! Why the kernel refused a program, a map or a hook, in one line that says what to look at.

use std::error::Error;
use std::io;
use std::path::Path;

use crate::node::kernel_info::{KernelInfo, KernelVersion, Lockdown};

/// The whole chain of causes; of the verifier's log the line that tells; and where something is not permitted, who
/// forbids it.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    let mut errno = None;
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        errno = errno.or_else(|| cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error));
        source = cause.source();
    }
    let text = shortened(&text);
    // Under lockdown the helpers that read kernel memory are hidden instead of refused.
    let hidden = text.contains("bpf_probe_read")
        && ["unknown func", "cannot use helper"].iter().any(|w| text.contains(w));
    if errno == Some(libc::EPERM) || hidden {
        format!("{text} ({})", who_forbids(&KernelInfo::read(Path::new("/"))))
    } else if errno == Some(libc::EACCES) && text.contains("perf_event_open") {
        let level = std::fs::read_to_string(PARANOID).unwrap_or_default();
        paranoid(level.trim()).map_or(text.clone(), |hint| format!("{text} ({hint})"))
    } else {
        text
    }
}

/// Whether kprobes take CAP_SYS_ADMIN on this kernel as it is set now, besides CAP_PERFMON.
pub(crate) fn kprobes_need_sys_admin() -> bool {
    let level = std::fs::read_to_string(PARANOID).unwrap_or_default();
    paranoid(level.trim()).is_some()
}

const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// Kernels of Debian (3) and Ubuntu (4) know levels of `kernel.perf_event_paranoid` at which perf_event_open(2), and with
/// it every kprobe, takes CAP_SYS_ADMIN, whatever CAP_PERFMON is for.
fn paranoid(level: &str) -> Option<String> {
    let level: i32 = level.parse().ok().filter(|level| *level > 2)?;
    Some(format!(
        "kernel.perf_event_paranoid is {level}: this distribution's kernel then asks for CAP_SYS_ADMIN; set it to 2, or add \
         that capability, which portclash serve drops again"
    ))
}

/// One line: what failed, and the last line of the verifier's log that is not statistics.
fn shortened(text: &str) -> String {
    let (failed, log) = text.split_once("Verifier output:").unwrap_or((text, ""));
    let mut lines = failed.lines().map(str::trim).filter(|line| !line.is_empty());
    let failed = lines.next().unwrap_or_default().trim_end_matches('.').to_owned();
    let statistics =
        |line: &str| ["processed ", "stack depth", "verification time"].iter().any(|s| line.starts_with(s));
    let detail =
        log.lines().map(str::trim).rfind(|line| !line.is_empty() && !statistics(line)).or(lines.next_back());
    match detail {
        Some(detail) => format!("{failed}: {detail}"),
        None => failed,
    }
}

fn who_forbids(info: &KernelInfo) -> String {
    if info.lockdown == Lockdown::Confidentiality {
        return "the kernel is locked down: confidentiality".to_owned();
    }
    let Some(held) = info.capabilities else {
        return "not permitted: capabilities, kernel lockdown or another security module".to_owned();
    };
    let has = |name| held.has(name) == Some(true);
    let missing: Vec<&str> = ["CAP_BPF", "CAP_PERFMON"].into_iter().filter(|name| !has(name)).collect();
    // CAP_SYS_ADMIN includes the others, but not this.
    let locked = info.version.is_some_and(|version| version < KernelVersion(5, 11, 0))
        && info.memlock.is_some_and(|limit| limit.hard.is_some())
        && !has("CAP_SYS_RESOURCE");
    if locked && (has("CAP_SYS_ADMIN") || has("CAP_BPF")) {
        "not permitted: before 5.11 maps count as locked memory, which is limited here; CAP_SYS_RESOURCE lifts the limit, or \
         start it without one (ulimit -l unlimited, LimitMEMLOCK=infinity)"
            .to_owned()
    } else if missing.is_empty() && !has("CAP_SYS_ADMIN") && !has("CAP_NET_ADMIN") {
        "not permitted although CAP_BPF and CAP_PERFMON are there: sockops takes CAP_NET_ADMIN as well; else a sandbox or \
         security module forbids it"
            .to_owned()
    } else if has("CAP_SYS_ADMIN") || missing.is_empty() {
        "not permitted although the capabilities are there: a sandbox or security module, or this kernel"
            .to_owned()
    } else {
        format!("not permitted without {}", missing.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::kernel_info::{Capabilities, Limit};

    #[test]
    fn the_verifiers_log_is_cut_to_the_line_that_tells() {
        let log = "the BPF_PROG_LOAD syscall returned Invalid argument (os error 22). Verifier output: reg type \
                   unsupported for arg#0\n0: R1=ctx\n41: (85) call bpf_probe_read_kernel#113\nunknown func \
                   bpf_probe_read_kernel#113\nverification time 95 usec\nstack depth 72+0+0\nprocessed 41 insns\n";
        assert_eq!(
            shortened(log),
            "the BPF_PROG_LOAD syscall returned Invalid argument (os error 22): unknown func bpf_probe_read_kernel#113"
        );
        let empty =
            "the BPF_PROG_LOAD syscall returned Operation not permitted (os error 1). Verifier output: ";
        assert_eq!(
            shortened(empty),
            "the BPF_PROG_LOAD syscall returned Operation not permitted (os error 1)"
        );
        assert_eq!(shortened("tracefs not found"), "tracefs not found");
    }

    #[test]
    fn who_forbids_is_named_only_as_far_as_it_is_known() {
        let mut info = KernelInfo::read(Path::new("/nowhere"));
        assert!(who_forbids(&info).contains("capabilities, kernel lockdown"));
        info.capabilities = Some(Capabilities(1 << 39));
        assert_eq!(who_forbids(&info), "not permitted without CAP_PERFMON");
        info.capabilities = Some(Capabilities(1 << 21));
        assert!(who_forbids(&info).contains("although"));
        info.capabilities = Some(Capabilities(1 << 39 | 1 << 38));
        assert!(who_forbids(&info).contains("sockops takes CAP_NET_ADMIN"));
        info.version = KernelVersion::parse("5.10.0");
        info.memlock = Some(Limit { soft: Some(65536), hard: Some(65536) });
        assert!(who_forbids(&info).contains("CAP_SYS_RESOURCE"));
        info.memlock = Some(Limit { soft: Some(65536), hard: None });
        assert!(!who_forbids(&info).contains("CAP_SYS_RESOURCE"));
        info.lockdown = Lockdown::Confidentiality;
        assert_eq!(who_forbids(&info), "the kernel is locked down: confidentiality");
        assert_eq!(paranoid("2"), None);
        assert!(paranoid("3").is_some_and(|hint| hint.contains("CAP_SYS_ADMIN")));
    }
}
