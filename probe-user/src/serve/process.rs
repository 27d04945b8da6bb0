//! What this process uses, from `/proc/self`. What cannot be read is unknown.

use std::fs;

use super::snapshot::ProcessView;

/// Reads it.
pub fn read() -> ProcessView {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    ProcessView {
        resident_bytes: status_kib(&status, "VmRSS:"),
        virtual_bytes: status_kib(&status, "VmSize:"),
        cpu_seconds: cpu_seconds(&stat, ticks_per_second()),
        open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64),
        max_fds: max_fds(&limits),
        threads: status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok()),
    }
}

fn status_kib(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Fields 14 and 15 of `/proc/self/stat`, counted behind the name, which may have blanks in it.
fn cpu_seconds(stat: &str, ticks_per_second: Option<f64>) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((f64::from(user) + f64::from(system)) / ticks_per_second?)
}

fn ticks_per_second() -> Option<f64> {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    i32::try_from(ticks).ok().map(f64::from)
}

/// The soft limit of open files; `unlimited` is unknown.
fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_understood() {
        let status = "Name:\tportclash\nVmSize:\t  123456 kB\nVmRSS:\t   18432 kB\nThreads:\t3\n";
        assert_eq!(status_kib(status, "VmRSS:"), Some(18_874_368));
        assert_eq!(status_kib(status, "VmSwap:"), None);
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 99 1 2";
        assert_eq!(cpu_seconds(stat, Some(100.0)), Some(3.0));
        assert_eq!(cpu_seconds("7 (x", Some(100.0)), None);
        let limits = "Limit Soft Hard Units\nMax open files            1024                 524288               files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!(max_fds("Max open files unlimited unlimited files\n"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let view = read();
        assert!(
            view.resident_bytes > Some(1 << 20) && view.open_fds >= Some(3) && view.threads >= Some(1),
            "{view:?}"
        );
    }
}
