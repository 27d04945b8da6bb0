//! What the BPF programs counted, and what the kernel did not let them see.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::PerCpuArray;
use aya::programs;
use probe_ebpf::{COUNTERS_PER_PROGRAM, Counter, PROGRAMS, Program};

use super::ladder::Need;
use super::loader::{LoadError, Tracer};

impl Tracer {
    /// Sum over all CPUs of one counter.
    pub fn counter(&self, program: Program, counter: Counter) -> Result<u64, LoadError> {
        let map = self.ebpf.map("COUNTERS").ok_or(LoadError::Missing("COUNTERS"))?;
        let error = |source| LoadError::Map { name: "COUNTERS", source };
        let array = PerCpuArray::<_, u64>::try_from(map).map_err(error)?;
        let index = program as u32 * COUNTERS_PER_PROGRAM + counter as u32;
        let values = array.get(&index, 0).map_err(error)?;
        Ok(values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)))
    }

    /// Sum over all CPUs of each counter.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        let mut counters = Counters::default();
        for (program, name) in PROGRAMS {
            let get = |counter: Counter| self.counter(program, counter);
            let runs = get(Counter::Runs)?;
            if program == Program::Connect {
                counters.connects = runs;
            }
            for (reason, count) in
                [("ring_full", get(Counter::RingFull)?), ("map_full", get(Counter::MapFull)?)]
            {
                if count > 0 {
                    counters.lost.entry(name.into()).or_default().insert(reason.into(), count);
                }
            }
        }
        self.count_missed(&mut counters);
        Ok(counters)
    }

    /// Programs and needs that may lose something, with the reason: each that [`Counters::lost`] can have.
    pub fn loss_kinds(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let counts = |program: &Program| matches!(program, Program::Ports | Program::PortsEnd);
        let programs = PROGRAMS.into_iter().filter(move |(program, _)| counts(program) == self.counts);
        let by_program = programs.flat_map(|(_, name)| [(name, "ring_full"), (name, "map_full")]);
        let served = self.hooks().iter().filter(|(_, hook)| hook.way.is_some());
        by_program.chain(served.map(|(need, _)| (need.name(), "missed")))
    }

    /// What each loaded program has cost; empty where the kernel does not count (`kernel.bpf_stats_enabled`).
    pub fn program_costs(&self) -> Vec<ProgramCost> {
        let counts = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").unwrap_or_default();
        if counts.trim() != "1" {
            return Vec::new();
        }
        let cost = |(name, program): (&str, &programs::Program)| {
            let info = fdinfo(program)?;
            let (runs, run_ns) = (number(&info, "run_cnt:")?, number(&info, "run_time_ns:")?);
            Some(ProgramCost { name: name.to_owned(), runs, run_ns })
        };
        self.ebpf.programs().filter_map(cost).collect()
    }

    /// Adds the runs that the kernel skipped because the program was running on that CPU already, which happens where
    /// it may be preempted. A connect is lost only if both of its ends were missed.
    fn count_missed(&self, counters: &mut Counters) {
        let mut missed: BTreeMap<Need, u64> = BTreeMap::new();
        for (need, ways) in self.needs() {
            let way = self.hooks.get(&need).and_then(|hook| hook.way);
            let steps = ways.iter().filter(|other| Some(other.name) == way).flat_map(|way| way.steps);
            let count = steps.filter_map(|(name, _)| recursion_misses(self.ebpf.program(name)?)).sum();
            missed.insert(need, count);
        }
        let end = missed.get(&Need::ConnectEnd).copied().unwrap_or(0);
        let has_end = self
            .hooks
            .get(&Need::ConnectEnd)
            .is_some_and(|hook| matches!(hook.way, Some("fexit" | "kretprobe")));
        // Counting has no second chance.
        if let (Some(connect), true) = (missed.get_mut(&Need::Connect), has_end && !self.counts) {
            *connect = end.min(*connect);
        }
        for (need, count) in missed.into_iter().filter(|(_, count)| *count > 0) {
            counters.lost.entry(need.name().into()).or_default().insert("missed".into(), count);
        }
    }
}

/// `recursion_misses` of a loaded program (5.18 and later); `None` where the kernel does not tell.
fn recursion_misses(program: &programs::Program) -> Option<u64> {
    number(&fdinfo(program)?, "recursion_misses:")
}

/// What the kernel says about a loaded program: kernel/bpf/syscall.c, bpf_prog_show_fdinfo.
fn fdinfo(program: &programs::Program) -> Option<String> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()
}

fn number(fdinfo: &str, name: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// What one program has cost since it was loaded, while the kernel counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramCost {
    /// Name of the program.
    pub name: String,
    /// Its runs.
    pub runs: u64,
    /// Time spent in them, nanoseconds.
    pub run_ns: u64,
}

/// What the programs counted.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Connects that passed the hook.
    pub connects: u64,
    /// Program → reason → count; only what was lost.
    pub lost: BTreeMap<String, BTreeMap<String, u64>>,
}
