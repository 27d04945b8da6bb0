//! The exposure, looked at again and again: what is new is told once, with who could have done it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::snapshot::ExposureView;
use crate::diagnosis::incident::Advice;
use crate::diagnosis::time::rfc3339;
use crate::exposure::check::{Check, ExposedPort};
use crate::exposure::node::Node;
use crate::observation::Nanos;

/// Schema of what is told.
pub const SCHEMA: &str = "portclash.exposure/v1";
/// Ports that one record names.
const MAX_NAMED: usize = 50;
/// Earlier values of a setting that are remembered, to tell that it was changed back.
const MAX_EARLIER: usize = 16;

/// What happened to the exposure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Service ports became exposed that were not before.
    NewlyExposed,
    /// A setting has another value than before.
    SettingChanged,
    /// A setting has a value again that it had before: somebody changes it back.
    SettingChangedBack,
}

/// `portclash.exposure/v1`
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ExposureChange {
    /// `portclash.exposure/v1`
    pub schema: &'static str,
    /// When it was noticed: RFC 3339, UTC, nanoseconds.
    pub at: String,
    /// What happened.
    pub kind: ChangeKind,
    /// In words.
    pub text: String,
    /// The setting, such as `net.ipv4.ip_local_reserved_ports`; `null` where no setting changed.
    pub setting: Option<String>,
    /// Its value before.
    pub before: Option<String>,
    /// Its value now.
    pub after: Option<String>,
    /// How often it has changed since the start.
    pub changes: Option<u64>,
    /// Who could have done it, one sentence each; empty = nobody is known.
    pub possible_causes: Vec<String>,
    /// Ports that are newly exposed, the first 50.
    pub ports: Vec<ExposedPort>,
    /// How many there are.
    pub port_count: u64,
    /// Failures per hour to be expected now; `null` = not known.
    pub expected_failures_per_hour: Option<f64>,
    /// What to set.
    pub advice: Vec<Advice>,
}

/// The settings that decide about the exposure, with their values as the kernel prints them.
pub type Settings = BTreeMap<&'static str, String>;

/// The settings of a node.
pub fn settings(node: &Node) -> Settings {
    let range = node.ephemeral.value;
    let mut settings =
        Settings::from([("net.ipv4.ip_local_port_range", format!("{} {}", range.first, range.last))]);
    if let Some(reserved) = &node.reserved {
        settings.insert("net.ipv4.ip_local_reserved_ports", reserved.value.to_string());
    }
    if let Some(mode) = node.conn_reuse_mode {
        settings.insert("net.ipv4.vs.conn_reuse_mode", mode.to_string());
    }
    settings
}

/// One look.
#[derive(Clone, Debug)]
pub struct Look {
    /// When.
    pub at: Nanos,
    /// What was found; the names of services are filled in as far as they are known.
    pub check: Check,
    /// The settings.
    pub settings: Settings,
    /// For settings that differ from the last look: who could have done it.
    pub possible_causes: BTreeMap<&'static str, Vec<String>>,
}

#[derive(Debug, Default)]
struct History {
    value: String,
    earlier: Vec<String>,
    changes: u64,
}

/// What was told already.
#[derive(Debug, Default)]
pub struct ExposureWatch {
    /// Ports with the services that they were told for; an empty set: for services that nobody could name.
    told: BTreeMap<u16, BTreeSet<String>>,
    settings: BTreeMap<&'static str, History>,
    newly_exposed: u64,
    last: Option<ExposureView>,
}

impl ExposureWatch {
    /// The values of the last look, to compare with.
    pub fn settings(&self) -> Settings {
        self.settings.iter().map(|(name, history)| (*name, history.value.clone())).collect()
    }

    /// What the last look found; `None` before the first.
    pub const fn view(&self) -> Option<&ExposureView> {
        self.last.as_ref()
    }

    /// Takes a look and says what is new since the one before. Everything is new to the first.
    pub fn take(&mut self, look: &Look) -> Vec<ExposureChange> {
        let mut changes: Vec<ExposureChange> =
            look.settings.iter().filter_map(|(name, value)| self.take_setting(name, value, look)).collect();
        let ports = look.check.exposed_ports.as_deref().unwrap_or_default();
        let new: Vec<ExposedPort> = ports.iter().filter(|port| self.is_new(port)).cloned().collect();
        if !new.is_empty() {
            // What was so at the first look is told, but has not become so.
            if self.last.is_some() {
                self.newly_exposed += new.len() as u64;
            }
            changes.push(newly_exposed(new, look));
        }
        self.last = Some(self.viewed(look));
        changes
    }

    fn take_setting(&mut self, name: &'static str, value: &str, look: &Look) -> Option<ExposureChange> {
        let Some(history) = self.settings.get_mut(name) else {
            self.settings.insert(name, History { value: value.to_owned(), ..History::default() });
            return None;
        };
        if history.value == value {
            return None;
        }
        let before = std::mem::replace(&mut history.value, value.to_owned());
        let back = history.earlier.iter().any(|earlier| earlier == value);
        if !history.earlier.contains(&before) {
            if history.earlier.len() >= MAX_EARLIER {
                history.earlier.remove(0);
            }
            history.earlier.push(before.clone());
        }
        history.changes += 1;
        let causes = look.possible_causes.get(name).cloned().unwrap_or_default();
        Some(setting_changed(name, before, value, (back, history.changes), causes, look))
    }

    /// Whether a port was not told before. One that was told without a name is not told again with one.
    fn is_new(&mut self, port: &ExposedPort) -> bool {
        let names: BTreeSet<String> = port.services.iter().cloned().collect();
        match self.told.get_mut(&port.port) {
            None => {
                self.told.insert(port.port, names);
                true
            }
            Some(told) if names.is_empty() || !told.is_disjoint(&names) => {
                told.extend(names);
                false
            }
            Some(told) => {
                let another = !told.is_empty();
                told.clone_from(&names);
                another
            }
        }
    }

    fn viewed(&self, look: &Look) -> ExposureView {
        let check = &look.check;
        ExposureView {
            checked_at: look.at,
            exposed_ports: check.exposed_count.map(u64::from),
            reachable_ports: check.reachable_count.map(u64::from),
            chance_per_connect: check.chance_per_connect,
            expected_failures_per_hour: check.expected_failures_per_hour,
            setting_changes: self
                .settings
                .iter()
                .map(|(name, history)| ((*name).to_owned(), history.changes))
                .collect(),
            newly_exposed: self.newly_exposed,
        }
    }
}

fn or_nothing(value: &str) -> &str {
    if value.is_empty() { "(nothing)" } else { value }
}

fn setting_changed(
    name: &str,
    before: String,
    after: &str,
    (back, changes): (bool, u64),
    possible_causes: Vec<String>,
    look: &Look,
) -> ExposureChange {
    let times = if changes == 1 { "once".to_owned() } else { format!("{changes} times") };
    let back_to = if back { ", which it had before: somebody changes it back" } else { "" };
    let causes = match possible_causes.as_slice() {
        [] => "who did it is not known".to_owned(),
        causes => format!("it could have been: {}", causes.join("; ")),
    };
    let exposed = match look.check.exposed_count {
        Some(0) => "no service port is exposed now".to_owned(),
        Some(1) => "1 service port is exposed now".to_owned(),
        Some(count) => format!("{count} service ports are exposed now"),
        None => "which service ports are exposed now is not known".to_owned(),
    };
    ExposureChange {
        schema: SCHEMA,
        at: rfc3339(look.at),
        kind: if back { ChangeKind::SettingChangedBack } else { ChangeKind::SettingChanged },
        text: format!(
            "{name} was {} and is {}{back_to} (changed {times} since the start); {causes}; {exposed}",
            or_nothing(&before),
            or_nothing(after)
        ),
        setting: Some(name.to_owned()),
        before: Some(before),
        after: Some(after.to_owned()),
        changes: Some(changes),
        possible_causes,
        ports: Vec::new(),
        port_count: 0,
        expected_failures_per_hour: look.check.expected_failures_per_hour,
        advice: look.check.advice.clone(),
    }
}

fn newly_exposed(mut ports: Vec<ExposedPort>, look: &Look) -> ExposureChange {
    let port_count = ports.len() as u64;
    ports.truncate(MAX_NAMED);
    let named = |port: &ExposedPort| match port.services.as_slice() {
        [] => port.port.to_string(),
        services => format!("{} ({})", port.port, services.join(" or ")),
    };
    let shown: Vec<String> = ports.iter().take(5).map(named).collect();
    let more = port_count.saturating_sub(shown.len() as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let (what, them) = match port_count {
        1 => ("service port".to_owned(), "it"),
        count => (format!("{count} service ports:"), "them"),
    };
    ExposureChange {
        schema: SCHEMA,
        at: rfc3339(look.at),
        kind: ChangeKind::NewlyExposed,
        text: format!(
            "the kernel can pick {what} {}{more} as a source port, because ip_local_port_range contains {them} and \
             ip_local_reserved_ports does not; a connect from there fails",
            shown.join(", ")
        ),
        setting: None,
        before: None,
        after: None,
        changes: None,
        possible_causes: Vec::new(),
        ports,
        port_count,
        expected_failures_per_hour: look.check.expected_failures_per_hour,
        advice: look.check.advice.clone(),
    }
}

#[cfg(test)]
#[path = "exposure_tests.rs"]
mod tests;
