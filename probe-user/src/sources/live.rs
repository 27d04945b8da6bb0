//! The live source: kernel events, the node's service table and its IPVS connection table, as observations.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::clock::Clock;
use super::owner::Owners;
use super::packets::{LivePacket, PacketDevice, PacketSource};
use super::table::{CurrentTable, TableReader};
use super::table_watch::TableWatch;
use crate::kernel::counters::Counters;
use crate::kernel::event::decode;
use crate::kernel::ladder::{Hooks, Need};
use crate::kernel::loader::{LoadError, LoadOptions, Rings, Tracer};
use crate::kernel::selftest::{self, SelfTest, SelfTestError};
use crate::memory;
use crate::node::ipvs_module;
use crate::node::kernel_info::{FLOOR, KernelInfo, KernelVersion};
use crate::node::mounts::cgroup2_mount;
use crate::node::netns::{NetNs, NetnsError, NetnsSpec};
use crate::observation::Observation;
use probe_ebpf::{Event, Kind};

/// What the live source is told.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// The namespace whose services and connects matter.
    pub netns: NetnsSpec,
    /// A text dump instead of the node's table.
    pub ipvs: Option<PathBuf>,
    /// How often the table is re-read without a trigger.
    pub poll: Duration,
    /// Rungs that may be used.
    pub hooks: Hooks,
    /// Level of the BPF programs' own debug lines, 0 = off.
    pub log_level: u8,
    /// Packets of flagged connections are wanted, see [`Live::packets`].
    pub packets: bool,
    /// How much may wait in the kernel.
    pub rings: Rings,
}

/// Why live tracing could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// A kernel without the BPF ring buffer.
    #[error("kernel {0} is too old: portclash needs {FLOOR} or later (the BPF ring buffer)")]
    TooOld(KernelVersion),
    /// Loading or attaching.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel side is not to be trusted.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    /// The namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The service table that the user gave.
    #[error(transparent)]
    Table(#[from] super::table::TableError),
    /// The event loop.
    #[error("wait for kernel events: {0}")]
    Wait(#[source] std::io::Error),
}

/// A kernel side that runs, and all that is needed to turn its events into observations.
pub struct Live {
    pub(super) tracer: Tracer,
    ring: AsyncFd<RingBuf<MapData>>,
    packets: Option<PacketSource>,
    pub(super) clock: Clock,
    pub(super) owners: Owners,
    pub(super) tables: TableWatch,
    pub(super) reset_reasons: BTreeMap<i32, String>,
    pub(super) netns: NetNs,
    self_test: SelfTest,
    undecodable: u64,
    /// Connects that the self-test made.
    own_connects: u64,
    pub(super) pending: VecDeque<Observation>,
    /// Which ip_vs is loaded, see [`ipvs_module::current`].
    pub(super) module: Option<u64>,
}

/// How much rarer the table is polled where its changes are announced.
const TRIGGERED_POLL: u32 = 10;

/// ip_vs announces itself before its functions can be hooked; and a burst of changes is read once.
const SETTLE: Duration = Duration::from_millis(30);

impl Live {
    /// Loads, self-tests, attaches, reads the table. When it returns, every later collision is seen.
    pub fn start(options: &LiveOptions) -> Result<Self, LiveError> {
        memory::return_large_blocks();
        check_kernel(KernelInfo::read(Path::new("/")).version)?;
        let netns = NetNs::open(&options.netns)?;
        let mut tracer = Tracer::load(LoadOptions {
            hooks: options.hooks,
            btf_dir: PathBuf::from("/sys/kernel/btf"),
            cgroup2: cgroup2_mount(Path::new("/proc")).map_err(|error| error.to_string()),
            log_level: options.log_level,
            packets: options.packets,
            rings: options.rings,
        })?;
        let mut ring = tracer.take_ring()?;
        let packets = if options.packets { Some(tracer.take_packets()?) } else { None };
        let module = ipvs_module::current();
        tracer.attach(module.is_some())?;
        let own = NetNs::own()?;
        let self_test = selftest::run(&mut tracer, &mut ring, own.inode)?;
        // With the trigger, polling only catches what the trigger might miss.
        let triggered = tracer.hooks().get(&Need::TableChange).is_some_and(|hook| hook.way.is_some());
        let poll = options.poll * if triggered { TRIGGERED_POLL } else { 1 };
        let clock = Clock::sample();
        let reader = TableReader::new(options.ipvs.clone(), options.netns.clone());
        let (tables, services) = TableWatch::start(reader, poll, || clock.now())?;
        let mut live = Self {
            reset_reasons: tracer.layout().reset_reasons.clone(),
            tracer,
            ring: register(ring)?,
            packets: packets.map(PacketSource::open).transpose()?,
            clock,
            owners: Owners::new(Path::new("/proc"), self_test.pids_match),
            tables,
            netns,
            self_test,
            undecodable: 0,
            own_connects: 0,
            pending: VecDeque::new(),
            module,
        };
        live.take_services(live.clock.now(), &services)?;
        memory::give_back();
        live.own_connects = live.tracer.counters()?.connects;
        Ok(live)
    }

    /// The next observations, as soon as there are any; returns an empty list at `deadline`, or when packets have come.
    pub async fn next(&mut self, deadline: Option<Instant>) -> Result<Vec<Observation>, LiveError> {
        loop {
            if !self.pending.is_empty() {
                return Ok(self.pending.drain(..).collect());
            }
            tokio::select! {
                biased;
                // Rarely, so that they never keep the ring waiting; it may keep them waiting for ever.
                come = self.tables.next() => {
                    self.take_table(come)?;
                    return Ok(self.pending.drain(..).collect());
                }
                ready = self.ring.readable_mut() => {
                    let mut guard = ready.map_err(LiveError::Wait)?;
                    let mut events = Vec::new();
                    let drained = drain(guard.get_inner_mut(), &mut events);
                    if drained.empty {
                        guard.clear_ready();
                    }
                    self.undecodable += drained.undecodable;
                    self.take_events(&events);
                }
                waiting = packets_come(&mut self.packets, self.clock) => {
                    waiting?;
                    return Ok(Vec::new());
                }
                () = sleep_until(deadline) => return Ok(Vec::new()),
            }
        }
    }

    /// What the kernel side wrote until now and nobody read yet: for the end of a trace.
    pub fn remaining(&mut self) -> Vec<Observation> {
        for _ in 0..MOST_REMAINING {
            let mut events = Vec::new();
            let drained = drain(self.ring.get_mut(), &mut events);
            self.undecodable += drained.undecodable;
            self.take_events(&events);
            if drained.empty {
                break;
            }
        }
        self.pending.drain(..).collect()
    }

    /// Packets of flagged connections that nobody took yet.
    pub fn packets(&mut self) -> Vec<LivePacket> {
        let Some(source) = &mut self.packets else { return Vec::new() };
        source.drain(self.clock);
        source.take()
    }

    /// Packets that the kernel side could not hand over, by device.
    pub fn packets_lost(&self) -> Result<BTreeMap<PacketDevice, u64>, LoadError> {
        self.packets.as_ref().map_or_else(|| Ok(BTreeMap::new()), PacketSource::lost)
    }

    fn take_events(&mut self, events: &[(Kind, Event)]) {
        self.tracer.flush_log();
        for (kind, event) in events {
            match kind {
                Kind::TableChanged => self.tables.changed(),
                Kind::ModuleChanged => self.tables.module_changed(SETTLE),
                _ => {
                    let observation = self.observation(*kind, event);
                    self.pending.extend(observation);
                }
            }
        }
    }

    /// The clock of the observations.
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// Takes the wall clock as it is now, after somebody has set it. What was observed before keeps its times.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// The traced namespace.
    pub const fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// This process has no privileges any more: what is not attached now never will be.
    pub fn privileges_dropped(&mut self) {
        self.tracer.privileges_dropped();
    }

    /// Whether CAP_BPF and CAP_PERFMON are still wanted: ip_vs is not there yet, and has functions to be hooked.
    pub fn waits_for_ipvs(&self) -> bool {
        self.tracer.waits_for_ipvs(KernelInfo::read(Path::new("/")).kprobes.is_some())
    }

    /// The kernel side.
    pub const fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// The service table as it is known now.
    pub const fn table(&self) -> &CurrentTable {
        self.tables.current()
    }

    /// True if the services come from the user's file, which is read once.
    pub const fn services_are_a_file(&self) -> bool {
        self.tables.is_file()
    }

    /// What the self-test found out.
    pub const fn self_test(&self) -> SelfTest {
        self.self_test
    }

    /// What the programs counted, and records that could not be decoded.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        let mut counters = self.tracer.counters()?;
        counters.connects = counters.connects.saturating_sub(self.own_connects);
        let undecodable = self.undecodable + self.packets.as_ref().map_or(0, PacketSource::undecodable);
        if undecodable > 0 {
            counters.lost.entry("ring".into()).or_default().insert("undecodable".into(), undecodable);
        }
        if self.tracer.services.refused() > 0 {
            let refused = self.tracer.services.refused();
            counters.lost.entry("services".into()).or_default().insert("map_full".into(), refused);
        }
        Ok(counters)
    }
}

pub(crate) fn check_kernel(version: Option<KernelVersion>) -> Result<(), LiveError> {
    match version {
        Some(version) if version < FLOOR => Err(LiveError::TooOld(version)),
        // A version that cannot be read decides nothing: loading will tell.
        _ => Ok(()),
    }
}

/// Events that are taken out of the ring in one go: when they come without end, others must still get their turn, and memory
/// for all that a ring holds is not needed at once.
const MOST_AT_ONCE: usize = 256;
/// So many times that are taken at the end: more than any ring holds, should events come for ever.
const MOST_REMAINING: usize = 4096;

/// What came out of the ring.
struct Drained {
    undecodable: u64,
    /// Nothing is left in it.
    empty: bool,
}

/// Takes records out of the ring, the earliest first.
fn drain(ring: &mut RingBuf<MapData>, events: &mut Vec<(Kind, Event)>) -> Drained {
    let mut undecodable = 0;
    for _ in 0..MOST_AT_ONCE {
        let Some(record) = ring.next() else { return Drained { undecodable, empty: true } };
        match decode(&record) {
            Ok(event) => events.push(event),
            Err(_) => undecodable += 1,
        }
    }
    Drained { undecodable, empty: false }
}

/// Drains the ring of packets once something is in it.
async fn packets_come(source: &mut Option<PacketSource>, clock: Clock) -> Result<(), LiveError> {
    let Some(source) = source else { return std::future::pending().await };
    let mut guard = source.ring.readable_mut().await.map_err(LiveError::Wait)?;
    guard.clear_ready();
    source.drain(clock);
    Ok(())
}

pub(super) fn register(ring: RingBuf<MapData>) -> Result<AsyncFd<RingBuf<MapData>>, LiveError> {
    // SAFETY: the ring owns its map's file descriptor and never replaces or closes it while it lives.
    let registered = unsafe { AsyncFd::register(ring) };
    registered.map_err(|error| LiveError::Wait(std::io::Error::other(error.to_string())))
}

/// Until a moment, or for ever.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ring_buffer_is_refused_with_the_version_that_has_it() {
        let error = check_kernel(KernelVersion::parse("5.4.0-216-generic")).unwrap_err().to_string();
        assert!(error.contains("5.4.0") && error.contains("5.8"), "{error}");
        assert!(check_kernel(KernelVersion::parse("5.8.0")).is_ok());
        assert!(check_kernel(None).is_ok());
    }
}
