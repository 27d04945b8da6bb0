//! Looks at the node's exposure every few minutes, on a thread of its own: a table of tens of thousands of sockets must
//! not keep events waiting.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::exposure::{Look, Settings, settings};
use super::setters;
use crate::exposure::check::judge;
use crate::exposure::node::{Measured, Sourced};
use crate::ipvs::table::ServiceTable;
use crate::memory;
use crate::node::netns::NetnsSpec;
use crate::observation::Nanos;
use crate::sources::clock::Clock;
use crate::sources::node_live::{self, Known};

/// What a look found, and the counter of connects for the next one.
type Looked = (Result<Look, String>, Option<(u64, Instant)>);

/// The looks.
pub struct Recheck {
    netns: NetnsSpec,
    root: Option<PathBuf>,
    every: Option<Duration>,
    due: Instant,
    running: Option<JoinHandle<Looked>>,
    opens: Option<(u64, Instant)>,
}

impl Recheck {
    /// The first look is due at once. `every`: `None` = never. `root`: where the node's file system is.
    pub fn new(netns: NetnsSpec, root: Option<PathBuf>, every: Option<Duration>) -> Self {
        Self { netns, root, every, due: Instant::now(), running: None, opens: None }
    }

    /// Changes how often.
    pub fn set_every(&mut self, every: Option<Duration>) {
        self.every = every;
        self.due = every.map_or(self.due, |every| self.due.min(Instant::now() + every));
    }

    /// The next look, when it is due and done; `known` are the settings of the last one, `table` the services as the trace
    /// knows them. May be dropped and called again.
    pub async fn next(&mut self, known: Settings, table: Arc<ServiceTable>) -> Result<Look, String> {
        if self.running.is_none() {
            let Some(every) = self.every else { return std::future::pending().await };
            tokio::time::sleep_until(self.due).await;
            self.due = Instant::now() + every;
            let (netns, root, opens) = (self.netns.clone(), self.root.clone(), self.opens);
            let work = move || look(&netns, root.as_deref(), (&known, &table), opens);
            self.running = Some(tokio::task::spawn_blocking(work));
        }
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let looked = running.await;
        self.running = None;
        let (result, opens) =
            looked.map_err(|error| format!("the check of the exposure broke off: {error}"))?;
        self.opens = opens;
        result
    }
}

fn look(
    netns: &NetnsSpec,
    root: Option<&Path>,
    (known, table): (&Settings, &Arc<ServiceTable>),
    before: Option<(u64, Instant)>,
) -> Looked {
    let opens = node_live::active_opens(netns).ok().map(|count| (count, Instant::now()));
    let measured = before.zip(opens).map(|((count, at), (now_count, now))| Measured {
        connects: now_count.saturating_sub(count),
        seconds: (now - at).as_secs_f64(),
    });
    // An empty table may mean that there is no IPVS: reading tells.
    let read = !table.services.is_empty() || !table.unreadable.is_empty();
    let table = read.then(|| Sourced { value: Arc::clone(table), source: "the trace".to_owned() });
    let result = match node_live::read_with(netns, Known { measured, table }, root) {
        Ok(node) => {
            let settings = settings(&node);
            let possible_causes = causes(root, known, &settings);
            Ok(Look { at: now(), check: judge(&node), settings, possible_causes })
        }
        Err(error) => Err(format!("the exposure cannot be checked: {error}")),
    };
    memory::give_back();
    (result, opens)
}

fn causes(root: Option<&Path>, known: &Settings, now: &Settings) -> BTreeMap<&'static str, Vec<String>> {
    let changed = now.iter().filter(|(name, value)| known.get(*name).is_some_and(|known| known != *value));
    let proc_root = Path::new("/proc");
    changed.map(|(name, value)| (*name, setters::candidates(proc_root, root, name, value))).collect()
}

fn now() -> Nanos {
    Clock::sample().now()
}
