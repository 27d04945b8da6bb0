//! What `portclash analyze` makes of a capture, from its packets alone.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use probe_user::analysis::conclude;
use probe_user::sources::offline::{self, Options, Progress};
use serde_json::{Value, json};

struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: Option<u64>) {}
    fn at(&mut self, _: u64) {}
}

/// The capture and the node's table give the incidents that the live trace told, although the JSON in the capture is not
/// looked at.
pub fn says_the_same(path: &str, live: &[Value]) -> Result<()> {
    let inputs = [PathBuf::from(path), PathBuf::from("/proc/net/ip_vs")];
    let mut read = offline::read(&inputs, &Options::default(), &mut Silent)?;
    ensure!(read.material.earlier.len() == live.len(), "the JSON in {path} was not read");
    read.material.earlier.clear();
    let analysis = conclude(&read.material, &read.packets);
    let found = analysis.incidents.iter().map(|found| serde_json::to_value(&found.incident));
    let found: Vec<Value> = found.collect::<Result<_, _>>()?;
    let (found, live): (Vec<Value>, Vec<Value>) =
        (found.iter().map(facts).collect(), live.iter().map(facts).collect());
    ensure!(found == live, "offline: {found:#?}\nlive: {live:#?}");
    Ok(())
}

/// What packets show of an incident.
fn facts(incident: &Value) -> Value {
    let at = |pointer: &str| incident.pointer(pointer).cloned().unwrap_or_default();
    let resets = at("/resets");
    let resets: Vec<Value> = resets
        .as_array()
        .into_iter()
        .flatten()
        .map(|reset| json!([reset.get("local"), reset.get("remote"), reset.get("seq")]))
        .collect();
    let fields = [
        "/verdict",
        "/outcome",
        "/confidence",
        "/connection/local",
        "/connection/remote",
        "/connection/isn",
        "/connection/syn_retransmits",
        "/hijack/client",
        "/hijack/virtual",
        "/hijack/backend",
    ];
    json!([fields.map(at), resets])
}
