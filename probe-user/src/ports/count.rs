//! The kernel's counts, read as differences.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use probe_ebpf::{Count, CountKey, Counter, Program};

use super::owners::ProcessId;
use crate::kernel::counts::{CountMap, entries_for};
use crate::kernel::hook::Hook;
use crate::kernel::ladder::{Hooks, Need};
use crate::kernel::loader::{LoadError, LoadOptions, Rings, Tracer};
use crate::kernel::selftest::{self, SelfTest};
use crate::memory;
use crate::node::kernel_info::KernelInfo;
use crate::node::mounts::cgroup2_mount;
use crate::node::netns::NetNs;
use crate::sources::live::{LiveError, check_kernel};

/// What was counted for a process and destination since the last reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Who, from where, to where.
    pub key: CountKey,
    /// Connects that got a source port.
    pub connects: u64,
    /// Connects that failed with EADDRNOTAVAIL.
    pub unavailable: u64,
}

/// A kernel side that counts.
pub struct Counting {
    tracer: Tracer,
    counts: CountMap,
    differences: Differences,
    self_test: SelfTest,
    /// Program → what was lost, as of the last reading.
    lost: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Counting {
    /// Loads, attaches, self-tests. When it returns, every later connect of the namespace (`None` = all) counts.
    pub fn start(hooks: Hooks, log_level: u8, netns: Option<u32>) -> Result<Self, LiveError> {
        memory::return_large_blocks();
        check_kernel(KernelInfo::read(Path::new("/")).version)?;
        let options = LoadOptions {
            hooks,
            btf_dir: PathBuf::from("/sys/kernel/btf"),
            cgroup2: cgroup2_mount(Path::new("/proc")).map_err(|error| error.to_string()),
            log_level,
            packets: false,
            rings: Rings::default(),
        };
        let cpus = aya::util::nr_cpus().unwrap_or(1);
        let mut tracer = Tracer::load_counting(options, entries_for(cpus))?;
        let mut counts = tracer.take_counts()?;
        tracer.attach(false)?;
        let self_test = selftest::run_counts(&counts, NetNs::own()?.inode)?;
        counts.select(netns)?;
        let mut counting =
            Self { tracer, counts, differences: Differences::default(), self_test, lost: BTreeMap::new() };
        // What the self-test and others connected until now is not asked for.
        counting.read()?;
        memory::give_back();
        Ok(counting)
    }

    /// What was counted since the last reading.
    pub fn read(&mut self) -> Result<Vec<Delta>, LoadError> {
        self.tracer.flush_log();
        // The totals first: what is counted in between is then too much in the entries, not missing.
        let total = [Program::Ports, Program::PortsEnd]
            .map(|program| self.tracer.counter(program, Counter::Runs))
            .into_iter()
            .try_fold(0_u64, |sum, runs| runs.map(|runs| sum.wrapping_add(runs)))?;
        let deltas = self.differences.take(self.counts.read()?);
        let mut counters = self.tracer.counters()?;
        let unheard = counters.lost.values().filter_map(|reasons| reasons.get("map_full")).sum::<u64>();
        let evicted = self.differences.missing(total).saturating_sub(unheard);
        if evicted > 0 {
            counters.lost.entry("ports".into()).or_default().insert("evicted".into(), evicted);
        }
        self.lost = counters.lost;
        Ok(deltas)
    }

    /// Removes the entries of processes that have ended, so that the map stays small.
    pub fn forget(&mut self, processes: &HashSet<ProcessId>) -> Result<(), LoadError> {
        for key in self.differences.forget(|key| processes.contains(&ProcessId::of(key))) {
            self.counts.remove(&key)?;
        }
        Ok(())
    }

    /// Program → reason → count of what was lost until the last reading.
    pub const fn lost(&self) -> &BTreeMap<String, BTreeMap<String, u64>> {
        &self.lost
    }

    /// How each need is served.
    pub const fn hooks(&self) -> &BTreeMap<Need, Hook> {
        self.tracer.hooks()
    }

    /// What the self-test found out.
    pub const fn self_test(&self) -> SelfTest {
        self.self_test
    }
}

/// Turns counts since an entry was made into counts since the last reading. Pure.
#[derive(Debug, Default)]
struct Differences {
    seen: HashMap<CountKey, Count>,
    /// All that was handed on, connects and failures, with wrapping.
    credited: u64,
}

impl Differences {
    fn take(&mut self, entries: Vec<(CountKey, Count)>) -> Vec<Delta> {
        let mut seen = HashMap::with_capacity(entries.len());
        let mut deltas = Vec::new();
        for (key, count) in entries {
            // A key that comes twice was read twice: the later reading has it all.
            let before = seen.get(&key).or_else(|| self.seen.get(&key)).copied();
            // Another beginning: it was evicted, and made anew.
            let before = before.filter(|before| before.since_ns == count.since_ns).unwrap_or_default();
            let connects = count.connects.wrapping_sub(before.connects);
            let unavailable = count.unavailable.wrapping_sub(before.unavailable);
            // Below zero: a connect was taken back whose entry went before. A reading later it may be there.
            if connects.cast_signed() < 0 || unavailable.cast_signed() < 0 {
                seen.insert(key, before);
                continue;
            }
            self.credited = self.credited.wrapping_add(connects).wrapping_add(unavailable);
            seen.insert(key, count);
            if connects > 0 || unavailable > 0 {
                deltas.push(Delta { key, connects, unavailable });
            }
        }
        self.seen = seen;
        deltas
    }

    /// What the programs counted in total and the entries never showed.
    fn missing(&self, total: u64) -> u64 {
        u64::try_from(total.wrapping_sub(self.credited).cast_signed()).unwrap_or(0)
    }

    fn forget(&mut self, gone: impl Fn(&CountKey) -> bool) -> Vec<CountKey> {
        let keys: Vec<CountKey> = self.seen.keys().filter(|key| gone(key)).copied().collect();
        for key in &keys {
            self.seen.remove(key);
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: u32) -> CountKey {
        CountKey {
            start_ns: 1,
            cgroup_id: 2,
            local: [0; 16],
            remote: [1; 16],
            comm: [b'x'; 16],
            pid,
            netns: 3,
            remote_port: 80,
            padding: [0; 3],
        }
    }

    fn count(connects: u64, unavailable: u64, since_ns: u64) -> Count {
        Count { connects, unavailable, since_ns }
    }

    #[test]
    fn a_reading_hands_on_what_is_new() {
        let mut differences = Differences::default();
        let delta = |connects, unavailable| Delta { key: key(1), connects, unavailable };
        assert_eq!(differences.take(vec![(key(1), count(5, 1, 7))]), [delta(5, 1)]);
        assert_eq!(differences.take(vec![(key(1), count(5, 1, 7))]), []);
        assert_eq!(differences.take(vec![(key(1), count(8, 1, 7))]), [delta(3, 0)]);
        assert_eq!(differences.missing(9), 0);
    }

    #[test]
    fn an_entry_made_anew_counts_from_nothing_and_what_it_lost_is_missing() {
        let mut differences = Differences::default();
        differences.take(vec![(key(1), count(5, 0, 7))]);
        // Two more came, unread, before it was evicted; then six.
        let deltas = differences.take(vec![(key(1), count(6, 0, 9))]);
        assert_eq!(deltas, [Delta { key: key(1), connects: 6, unavailable: 0 }]);
        assert_eq!(differences.missing(13), 2);
        // Counted after the totals were read: nothing is missing.
        assert_eq!(differences.missing(10), 0);
    }

    #[test]
    fn a_key_that_comes_twice_counts_once() {
        let mut differences = Differences::default();
        let twice = differences.take(vec![(key(1), count(5, 0, 7)), (key(1), count(6, 0, 7))]);
        assert_eq!(twice.iter().map(|delta| delta.connects).sum::<u64>(), 6);
        assert_eq!(differences.take(vec![(key(1), count(6, 0, 7))]), []);
    }

    #[test]
    fn forgotten_processes_leave_their_keys() {
        let mut differences = Differences::default();
        differences.take(vec![(key(1), count(5, 0, 7)), (key(2), count(1, 0, 7))]);
        assert_eq!(differences.forget(|key| key.pid == 1), [key(1)]);
        assert_eq!(differences.seen.len(), 1);
    }
}
