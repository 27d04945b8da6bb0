//! Run time of each BPF program of the tracer, from the kernel's own statistics.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::Server;
use super::observer::Observer;
use crate::process::sysctl;

/// `name: value` lines of `/proc/PID/fdinfo/FD`.
pub(super) type FdInfo = BTreeMap<String, String>;

/// What the kernel says about each of a process's open files that has a line `key`.
pub(super) fn fd_infos(pid: u32, key: &str) -> Result<Vec<FdInfo>> {
    let mut infos = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let info: FdInfo = lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        // Links to programs have a prog_id too, but no memory of their own; descriptors may be duplicates.
        if let Some(id) = info.get(key)
            && info.contains_key("memlock")
        {
            infos.insert(id.clone(), info);
        }
    }
    Ok(infos.into_values().collect())
}

/// A number of an [`FdInfo`].
pub(super) fn number(info: &FdInfo, name: &str) -> Result<u64> {
    let value = info.get(name).with_context(|| format!("fdinfo has no {name}"))?;
    value.parse().with_context(|| format!("fdinfo: {name} is {value:?}"))
}

/// Statistics that the kernel keeps while this value lives: they cost time, so rates are taken without.
pub(super) struct Statistics;

impl Statistics {
    pub(super) fn on() -> Result<Self> {
        sysctl("kernel/bpf_stats_enabled", "1").map(|()| Self)
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        // It was writable a moment ago.
        let _ = sysctl("kernel/bpf_stats_enabled", "0");
    }
}

/// Runs the client under the observer with statistics on.
pub(super) fn run_times(
    server: &Server,
    observer: &Observer,
    services: &Path,
    time: Duration,
) -> Result<Value> {
    let tracer = observer.trace(services)?;
    let statistics = Statistics::on()?;
    let rate = server.rate(time, &[])?;
    drop(statistics);
    let names = names();
    let mut programs = Vec::new();
    let mut total = 0;
    for info in fd_infos(tracer.pid(), "prog_id")? {
        let (runs, nanoseconds) = (number(&info, "run_cnt")?, number(&info, "run_time_ns")?);
        total += nanoseconds;
        if let Some(each) = nanoseconds.checked_div(runs) {
            let name = info.get("prog_id").and_then(|id| names.get(id));
            programs.push(json!({"name": name, "runs": runs, "ns_per_run": each}));
        }
    }
    tracer.stop()?;
    programs.sort_by_key(|program| program.get("name").map(Value::to_string));
    Ok(json!({
        "name": observer.name,
        "connects": rate.connects,
        "ns_per_connect": total / rate.connects,
        "programs": programs,
    }))
}

/// Names of all loaded programs by id; the kernel keeps the first 15 bytes.
fn names() -> BTreeMap<String, String> {
    let infos = aya::programs::loaded_programs().flatten();
    infos.filter_map(|info| Some((info.id().to_string(), info.name_as_str()?.to_owned()))).collect()
}
