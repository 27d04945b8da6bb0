//! What a process uses, from outside.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory, KiB.
    pub resident_kib: u64,
    /// Most that was resident until now, KiB.
    pub peak_kib: u64,
    /// Resident memory that is the process's own, KiB: neither of files nor shared with the kernel (ring buffers).
    pub anonymous_kib: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Processor time, its threads included.
    pub cpu: Duration,
}

impl Usage {
    /// Looks at a process.
    pub fn of(pid: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            Ok(number.with_context(|| format!("no {name}"))?.parse()?)
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("no stat")?;
        // utime and stime are fields 14 and 15; the first after the name is field 3.
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.sum::<Result<u64, _>>()?;
        Ok(Self {
            resident_kib: kib("VmRSS")?,
            peak_kib: kib("VmHWM")?,
            anonymous_kib: kib("RssAnon")?,
            fds: u64::try_from(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())?,
            // A tick is 10 ms in what /proc shows, whatever the kernel's own is (USER_HZ).
            cpu: Duration::from_millis(ticks * 10),
        })
    }
}

/// Looks over time: what was least and most of each.
#[derive(Debug, Default)]
pub struct Series(Vec<Usage>);

impl Series {
    /// One more look.
    pub fn push(&mut self, usage: Usage) {
        self.0.push(usage);
    }

    /// Most minus least of resident memory, KiB.
    pub fn spread_kib(&self) -> u64 {
        let [low, high] = self.ends(|usage| usage.resident_kib);
        high - low
    }

    /// Most minus least of file descriptors.
    pub fn fd_spread(&self) -> u64 {
        let [low, high] = self.ends(|usage| usage.fds);
        high - low
    }

    fn ends(&self, of: impl Fn(&Usage) -> u64) -> [u64; 2] {
        let low = self.0.iter().map(&of).min().unwrap_or(0);
        [low, self.0.iter().map(of).max().unwrap_or(0)]
    }

    /// For the result.
    pub fn json(&self) -> Value {
        json!({
            "looks": self.0.len(),
            "resident_kib": self.ends(|usage| usage.resident_kib),
            "anonymous_kib": self.ends(|usage| usage.anonymous_kib),
            "fds": self.ends(|usage| usage.fds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_kib > 100 && usage.peak_kib >= usage.resident_kib && usage.fds > 2);
        let mut series = Series::default();
        series.push(usage);
        series.push(Usage { resident_kib: usage.resident_kib + 5, fds: usage.fds + 1, ..usage });
        assert_eq!((series.spread_kib(), series.fd_spread()), (5, 1));
    }
}
