//! Loads the BPF object and climbs down the ladder: for each need the first way that this kernel allows.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use aya::maps::{Map, MapData, RingBuf};
use aya::programs::{
    self, CgroupAttachMode, FEntry, FExit, KProbe, ProgramError, RawTracePoint, SockOps, TracePoint,
};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;

use super::counts::CountMap;
use super::hook::Hook;
use super::ladder::{self, Attach, COUNTING, Hooks, LADDER, Need, PACKETS, Way};
use super::layout::{Layout, LayoutError};
use super::packets::PacketMaps;
use super::refusal::explain;
use super::services::ServiceMap;
use super::sizes;
pub use super::sizes::Rings;
use crate::memory;

/// The BPF object, compiled by the build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portclash-bpf"));

/// What the loader is told.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Rungs that may be used.
    pub hooks: Hooks,
    /// Folder with the kernel's BTF, normally `/sys/kernel/btf`.
    pub btf_dir: PathBuf,
    /// Root of the cgroup2 hierarchy, for the stable rung, or why it is not known.
    pub cgroup2: Result<PathBuf, String>,
    /// Level of the BPF programs' own debug lines; 0 = off, and the verifier removes them.
    pub log_level: u8,
    /// Packets of flagged connections are recorded.
    pub packets: bool,
    /// How much may wait in the kernel.
    pub rings: Rings,
}

/// Why loading failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The layout of kernel structures is not known.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The kernel refused maps or the object.
    #[error(
        "load the BPF object: {}; portclash needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN \
         (`portclash doctor` says what is missing)",
        explain(&**.0)
    )]
    Object(Box<EbpfError>),
    /// The object lacks something: a build of mixed versions.
    #[error("the BPF object has no {0}: rebuild portclash")]
    Missing(&'static str),
    /// A map operation failed.
    #[error("open BPF map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
    /// No way to see connects: nothing can be traced.
    #[error("no way to see connects on this kernel: {0}")]
    NoConnectHook(String),
}

/// Why a hook is not attached that could be, had this process not given its privileges up.
const DROPPED: &str = "privileges were dropped; it is attached after a new start";

/// The loaded programs. Dropping it detaches everything.
pub struct Tracer {
    pub(super) ebpf: Ebpf,
    ladder: &'static [(Need, &'static [Way])],
    /// Connects are counted instead of traced.
    pub(super) counts: bool,
    btf: Option<Btf>,
    options: LoadOptions,
    /// Passes the BPF programs' debug lines on.
    log: Option<Box<dyn FnMut()>>,
    /// Nothing can be attached any more.
    privileges_dropped: bool,
    /// Whether ip_vs was there the last time.
    ipvs_loaded: bool,
    layout: Layout,
    pub(super) hooks: BTreeMap<Need, Hook>,
    /// Service table in the kernel.
    pub services: ServiceMap,
}

impl Tracer {
    /// Resolves the layout, creates the maps and loads the object, to trace; attaches nothing yet.
    pub fn load(options: LoadOptions) -> Result<Self, LoadError> {
        let sizes = sizes::to_trace(options.rings, options.packets);
        Self::load_for(options, LADDER, &sizes)
    }

    /// The same, to count connects in a map with at most so many entries.
    pub fn load_counting(options: LoadOptions, entries: u32) -> Result<Self, LoadError> {
        let sizes = sizes::to_count(entries);
        Ok(Self { counts: true, ..Self::load_for(options, COUNTING, &sizes)? })
    }

    fn load_for(
        options: LoadOptions,
        ladder: &'static [(Need, &'static [Way])],
        sizes: &[(&'static str, u32)],
    ) -> Result<Self, LoadError> {
        let layout = Layout::resolve(&options.btf_dir)?;
        let has_reason = u32::from(layout.reset_tracepoint_without_socket());
        let wants_packets = u32::from(options.packets);
        let mut loader = EbpfLoader::new();
        loader.btf(None).override_global("RESET_HAS_REASON", &has_reason, true);
        loader.override_global("WANT_PACKETS", &wants_packets, true);
        loader.override_global("AYA_LOG_LEVEL", &options.log_level, false);
        for (global, offset) in &layout.offsets {
            loader.override_global(global, offset, false);
        }
        for &(map, entries) in sizes {
            loader.map_max_entries(map, entries);
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| LoadError::Object(Box::new(error)))?;
        let log = match options.log_level {
            0 => None,
            _ => EbpfLogger::init(&mut ebpf)
                .ok()
                .map(|mut logger| Box::new(move || logger.flush()) as Box<dyn FnMut()>),
        };
        let services = ServiceMap::open(&mut ebpf)?;
        // Large, and only fentry needs it: dropped after attaching.
        let btf = Btf::from_sys_fs().ok();
        Ok(Self {
            ebpf,
            ladder,
            counts: false,
            btf,
            options,
            log,
            privileges_dropped: false,
            ipvs_loaded: false,
            layout,
            hooks: BTreeMap::new(),
            services,
        })
    }

    /// Every need and its ways, in the order in which they are attached.
    pub(super) fn needs(&self) -> impl Iterator<Item = (Need, &'static [Way])> + use<> {
        let packets: &[_] = if self.options.packets { PACKETS } else { &[] };
        packets.iter().chain(self.ladder).copied()
    }

    /// The resolved layout.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Attaches the best allowed way of every need. `ipvs_loaded`: whether the IPVS functions exist now.
    pub fn attach(&mut self, ipvs_loaded: bool) -> Result<(), LoadError> {
        self.ipvs_loaded = ipvs_loaded;
        for (need, ways) in self.needs() {
            if ladder::needs_ipvs(need) && !ipvs_loaded {
                let refused = vec![("kprobe", "ip_vs is not loaded (attached when it is)".into())];
                self.hooks.insert(need, Hook { refused, ..Hook::default() });
                continue;
            }
            let hook = self.attach_need(ways);
            self.hooks.insert(need, hook);
        }
        self.btf = None;
        memory::give_back();
        match self.hooks.get(&Need::Connect) {
            Some(hook) if hook.way.is_none() => {
                let reasons: Vec<_> = hook.refused.iter().map(|(way, why)| format!("{way}: {why}")).collect();
                Err(LoadError::NoConnectHook(reasons.join("; ")))
            }
            _ => Ok(()),
        }
    }

    /// Attaches the IPVS hooks again after ip_vs was loaded, or notes that it has gone.
    pub fn ipvs_module_changed(&mut self, loaded: bool) {
        let was_loaded = std::mem::replace(&mut self.ipvs_loaded, loaded);
        // Whatever refused a hook before privileges were dropped (perf_event_paranoid, say) would do so after a new start.
        let in_vain = self.privileges_dropped && was_loaded;
        for (need, ways) in self.needs().filter(|(need, _)| ladder::needs_ipvs(*need)) {
            let attached = self.hooks.get(&need).is_some_and(|hook| hook.way.is_some());
            if loaded && !attached && !in_vain {
                let hook = self.attach_need(ways);
                self.hooks.insert(need, hook);
            } else if !loaded && attached {
                self.detach(ways);
                let refused = vec![("kprobe", "ip_vs was unloaded (attached when it is back)".into())];
                self.hooks.insert(need, Hook { refused, ..Hook::default() });
            }
        }
    }

    /// This process has no privileges any more: what is not attached now never will be.
    pub fn privileges_dropped(&mut self) {
        self.privileges_dropped = true;
    }

    /// Whether a hook is missing only because privileges were dropped.
    pub fn lacks_privileges(&self) -> bool {
        let mut refused = self.hooks.values().flat_map(|hook| &hook.refused);
        refused.any(|(_, why)| why == DROPPED)
    }

    /// Whether a hook is still to be attached once ip_vs is loaded, which takes CAP_BPF and CAP_PERFMON then.
    /// `kprobes`: whether this kernel has them; all hooks in modules are such.
    pub fn waits_for_ipvs(&self, kprobes: bool) -> bool {
        let waits = |(need, ways): (Need, &'static [Way])| {
            ladder::needs_ipvs(need)
                && ladder::allowed(ways, self.options.hooks).iter().any(|way| !way.steps.is_empty())
        };
        kprobes && !self.ipvs_loaded && !self.privileges_dropped && self.needs().any(waits)
    }

    /// A map that may be read, to find out what reading takes: the counters.
    pub fn readable_map(&self) -> Result<BorrowedFd<'_>, LoadError> {
        match self.ebpf.map("COUNTERS") {
            Some(Map::PerCpuArray(data)) => Ok(data.fd().as_fd()),
            _ => Err(LoadError::Missing("COUNTERS")),
        }
    }

    /// Which needs that follow ip_vs no hook serves, and why.
    pub fn ipvs_hooks_refused(&self) -> Vec<String> {
        let unserved =
            self.hooks.iter().filter(|(need, hook)| ladder::needs_ipvs(**need) && hook.way.is_none());
        unserved.map(|(need, hook)| format!("{need} ({})", hook.why_not())).collect()
    }

    /// Whether ip_vs was there when its hooks were last attached or tried to be.
    pub const fn has_tried_ipvs(&self) -> bool {
        self.ipvs_loaded
    }

    fn attach_need(&mut self, ways: &'static [Way]) -> Hook {
        let mut hook = Hook::default();
        for way in ladder::allowed(ways, self.options.hooks) {
            let result =
                way.condition.check(&self.layout).map_err(Into::into).and_then(|()| self.attach_way(way));
            match result {
                Ok(()) => {
                    hook.way = Some(way.name);
                    hook.limit = way.limit;
                    return hook;
                }
                // Two ways of one name may be refused for one reason.
                Err(why) if hook.refused.contains(&(way.name, why.clone())) => {}
                Err(why) => hook.refused.push((way.name, why)),
            }
        }
        hook
    }

    fn attach_way(&mut self, way: &Way) -> Result<(), String> {
        for &(program, attach) in way.steps {
            if let Err(error) = self.attach_step(program, attach) {
                self.detach(std::slice::from_ref(way));
                return Err(error);
            }
        }
        Ok(())
    }

    fn attach_step(&mut self, name: &'static str, attach: Attach) -> Result<(), String> {
        if self.privileges_dropped {
            return Err(DROPPED.to_owned());
        }
        let absent = |function: &str| format!("this kernel's type information has no function {function}");
        if let Attach::Fentry(function) | Attach::Fexit(function) = attach
            && !self.layout.arguments.contains_key(function)
        {
            // A kernel without IPv6 has nothing to see there.
            return if function.starts_with("tcp_v6") { Ok(()) } else { Err(absent(function)) };
        }
        let no_btf = "the kernel's type information cannot be read";
        let btf = self.btf.as_ref();
        let program =
            self.ebpf.program_mut(name).ok_or_else(|| format!("the BPF object has no program {name}"))?;
        match attach {
            Attach::Fentry(function) => {
                let program: &mut FEntry = program.try_into().map_err(|error| explain(&error))?;
                load_once(program.fd().is_ok(), || program.load(function, btf.ok_or(no_btf_error(no_btf))?))?;
                program.attach().map(drop).map_err(|error| explain(&error))
            }
            Attach::Fexit(function) => {
                let program: &mut FExit = program.try_into().map_err(|error| explain(&error))?;
                load_once(program.fd().is_ok(), || program.load(function, btf.ok_or(no_btf_error(no_btf))?))?;
                program.attach().map(drop).map_err(|error| explain(&error))
            }
            Attach::Kprobe(functions) => {
                let program: &mut KProbe = program.try_into().map_err(|error| explain(&error))?;
                load_once(program.fd().is_ok(), || program.load())?;
                attach_kprobes(program, functions)
            }
            Attach::RawTracepoint(tracepoint) => {
                let program: &mut RawTracePoint = program.try_into().map_err(|error| explain(&error))?;
                load_once(program.fd().is_ok(), || program.load())?;
                program.attach(tracepoint).map(drop).map_err(|error| explain(&error))
            }
            Attach::Tracepoint(category, tracepoint) => {
                let program: &mut TracePoint = program.try_into().map_err(|error| explain(&error))?;
                load_once(program.fd().is_ok(), || program.load())?;
                program.attach(category, tracepoint).map(drop).map_err(|error| explain(&error))
            }
            Attach::SockOps => {
                let path = self.options.cgroup2.as_ref()?;
                let root = File::open(path).map_err(|error| format!("open {}: {error}", path.display()))?;
                let program: &mut SockOps = program.try_into().map_err(|error| explain(&error))?;
                load_once(program.fd().is_ok(), || program.load())?;
                program.attach(root, CgroupAttachMode::Single).map(drop).map_err(|error| explain(&error))
            }
        }
    }

    /// Unloads the programs of these ways, which detaches them.
    fn detach(&mut self, ways: &[Way]) {
        for &(name, _) in ways.iter().flat_map(|way| way.steps) {
            // An error means that it was not loaded.
            let _ = match self.ebpf.program_mut(name) {
                Some(programs::Program::FEntry(program)) => program.unload(),
                Some(programs::Program::FExit(program)) => program.unload(),
                Some(programs::Program::KProbe(program)) => program.unload(),
                Some(programs::Program::RawTracePoint(program)) => program.unload(),
                Some(programs::Program::TracePoint(program)) => program.unload(),
                Some(programs::Program::SockOps(program)) => program.unload(),
                _ => Ok(()),
            };
        }
    }

    /// Passes the debug lines that the BPF programs wrote since the last call on to this process's own log.
    pub fn flush_log(&mut self) {
        if let Some(flush) = &mut self.log {
            flush();
        }
    }

    /// How each need is served.
    pub const fn hooks(&self) -> &BTreeMap<Need, Hook> {
        &self.hooks
    }

    /// The ring buffer; only the first call gets it.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        let map = self.ebpf.take_map("EVENTS").ok_or(LoadError::Missing("EVENTS"))?;
        RingBuf::try_from(map).map_err(|source| LoadError::Map { name: "EVENTS", source })
    }

    /// The packets; only the first call gets them.
    pub fn take_packets(&mut self) -> Result<PacketMaps, LoadError> {
        PacketMaps::open(&mut self.ebpf)
    }

    /// The connect counts; only the first call gets them.
    pub fn take_counts(&mut self) -> Result<CountMap, LoadError> {
        CountMap::open(&mut self.ebpf)
    }
}

fn load_once(loaded: bool, load: impl FnOnce() -> Result<(), ProgramError>) -> Result<(), String> {
    if loaded { Ok(()) } else { load().map_err(|error| explain(&error)) }
}

fn no_btf_error(message: &str) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(message.to_owned()))
}

/// Attaches to every function that exists, by plain name, else with the module's name in front (Ubuntu's 5.4 kernels
/// call plain names of module functions ambiguous).
fn attach_kprobes(program: &mut KProbe, functions: &[&str]) -> Result<(), String> {
    let mut attached = 0;
    let mut error = String::new();
    for function in functions {
        let result = program.attach(function, 0).or_else(|_| program.attach(format!("ip_vs:{function}"), 0));
        match result {
            Ok(_) => attached += 1,
            Err(why) => error = format!("{function}: {}", explain(&why)),
        }
    }
    if attached == 0 { Err(error) } else { Ok(()) }
}
