//! The real thing instead of a guess: everything that `portclash trace` would load and attach is loaded and attached,
//! tested by a connect on loopback, and dropped again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::kernel::hook::Hook;
use crate::kernel::ladder::{Hooks, Need};
use crate::kernel::loader::{LoadError, LoadOptions, Rings, Tracer};
use crate::kernel::refusal::explain;
use crate::kernel::selftest::{self, SelfTest};
use crate::node::ipvs_module;
use crate::node::mounts::cgroup2_mount;
use crate::node::netns::NetNs;

/// What the trial showed.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Which hooks were allowed.
    pub hooks_allowed: Hooks,
    /// Why the programs could not be loaded, or no connect can be seen.
    pub load_failure: Option<String>,
    /// How each need is served; empty if nothing was loaded.
    pub hooks: BTreeMap<Need, Hook>,
    /// The self-test; `None` if it was not reached.
    pub self_test: Option<Result<SelfTest, String>>,
    /// What the BPF maps take, in bytes, by the kernel's own account (an estimate from 5.11 to 6.3).
    pub map_bytes: Option<u64>,
}

impl Trial {
    /// Why nothing can be traced.
    pub fn failure(&self) -> Option<&str> {
        let self_test = || self.self_test.as_ref().and_then(|result| result.as_ref().err());
        self.load_failure.as_ref().or_else(self_test).map(String::as_str)
    }
}

/// Tries everything. Nothing stays loaded or attached.
pub fn run(hooks: Hooks) -> Trial {
    let mut trial = Trial {
        hooks_allowed: hooks,
        load_failure: None,
        hooks: BTreeMap::new(),
        self_test: None,
        map_bytes: None,
    };
    let options = LoadOptions {
        hooks,
        btf_dir: PathBuf::from("/sys/kernel/btf"),
        cgroup2: cgroup2_mount(Path::new("/proc")).map_err(|error| error.to_string()),
        log_level: 0,
        packets: true,
        rings: Rings::default(),
    };
    match Tracer::load(options) {
        Ok(mut tracer) => attach_and_test(&mut tracer, &mut trial),
        // Its own message sends people to the doctor.
        Err(LoadError::Object(error)) => {
            trial.load_failure = Some(format!("load the BPF object: {}", explain(&*error)));
        }
        Err(error) => trial.load_failure = Some(error.to_string()),
    }
    trial
}

fn attach_and_test(tracer: &mut Tracer, trial: &mut Trial) {
    trial.map_bytes = map_bytes(Path::new("/proc/self/fdinfo"));
    let attached = tracer.attach(ipvs_module::is_loaded());
    trial.hooks.clone_from(tracer.hooks());
    if let Err(error) = attached {
        trial.load_failure = Some(match error {
            // The reasons stand with the need.
            LoadError::NoConnectHook(_) => {
                "no hook that shows connects can be used on this kernel".to_owned()
            }
            other => other.to_string(),
        });
        return;
    }
    let tested = (|| {
        let mut ring = tracer.take_ring().map_err(|error| error.to_string())?;
        let own = NetNs::own().map_err(|error| error.to_string())?;
        selftest::run(tracer, &mut ring, own.inode).map_err(|error| error.to_string())
    })();
    trial.self_test = Some(tested);
}

/// Sum of the `memlock:` lines of our map descriptors.
fn map_bytes(fdinfo: &Path) -> Option<u64> {
    let mut total = None;
    for entry in fs::read_dir(fdinfo).ok()?.flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        // Programs have a `memlock:` line as well, but no `map_type:`.
        if let (Some(_), Some(bytes)) =
            (value("map_type:"), value("memlock:").and_then(|text| text.parse::<u64>().ok()))
        {
            total = Some(total.unwrap_or(0) + bytes);
        }
    }
    total
}
