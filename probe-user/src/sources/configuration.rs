//! What the files of a node say, as a check needs it.

use super::node_live::KERNEL;
use crate::exposure::check::{Finding, Severity};
use crate::exposure::node::Sourced;
use crate::node::configured::{self, Component, Configured, Setting, disagreements};
use crate::node::port_ranges::PortRanges;
use crate::node::sysctl::{EphemeralRange, NetSysctls};

const RANGE: &str = "net.ipv4.ip_local_port_range";
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";
/// File that the advice writes (`diagnosis::advice`); files are applied in the order of their names.
const ADVISED: &str = "90-nodeports.conf";

/// Where files disagree with the kernel or with each other, and what could not be read.
pub(super) fn findings(live: &NetSysctls, said: &Configured) -> Vec<Finding> {
    let mut all: Vec<Finding> = disagreements(live, said).into_iter().map(finding).collect();
    all.extend(applied_later(said));
    let note = |note: &configured::Note| {
        let at = place(note.file.as_deref(), note.line);
        Finding::new(Severity::Info, format!("{}{at}", note.text))
    };
    all.extend(said.notes.iter().map(note));
    all
}

fn finding(found: configured::Finding) -> Finding {
    let severity = match found.severity {
        configured::Severity::Error => Severity::Error,
        configured::Severity::Warning => Severity::Warning,
        configured::Severity::Info => Severity::Info,
    };
    Finding::new(severity, format!("{}{}", found.text, place(found.file.as_deref(), found.line)))
}

fn place(file: Option<&std::path::Path>, line: Option<usize>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!(" ({}:{line})", file.display()),
        (Some(file), None) => format!(" ({})", file.display()),
        (None, _) => String::new(),
    }
}

/// A file that is applied after the one that the advice writes, and sets the same.
fn applied_later(said: &Configured) -> Option<Finding> {
    let last = said.last(RESERVED)?;
    let name = last.file.file_name()?.to_str()?;
    (name > ADVISED).then(|| {
        Finding::new(
            Severity::Warning,
            format!(
                "{}:{} sets {RESERVED} and is applied after /etc/sysctl.d/{ADVISED}: write a new value there, or it will not \
                 last",
                last.file.display(),
                last.line
            ),
        )
    })
}

pub(super) fn range_source(value: EphemeralRange, said: Option<&Configured>) -> String {
    source(said, RANGE, |text| text.parse() == Ok(value))
}

pub(super) fn reserved_source(value: &PortRanges, said: Option<&Configured>) -> String {
    source(said, RESERVED, |text| text.parse().as_ref() == Ok(value))
}

/// The kernel has it; a file that says the same is probably where it comes from.
fn source(said: Option<&Configured>, key: &str, same: impl Fn(&str) -> bool) -> String {
    match said.and_then(|said| said.last(key)).filter(|setting| same(&setting.value)) {
        Some(Setting { file, line, .. }) => format!("{KERNEL}, as {}:{line} sets it", file.display()),
        None => KERNEL.to_owned(),
    }
}

/// `--service-node-port-range` of an API server on this node; `None` also if two disagree.
pub(super) fn node_port_range(said: &Configured) -> Option<Sourced<(u16, u16)>> {
    let mut found: Option<Sourced<(u16, u16)>> = None;
    for argument in said.argument(Component::ApiServer, "service-node-port-range") {
        let ports: PortRanges = argument.value.parse().ok()?;
        let [value] = ports.ranges() else { return None };
        match &found {
            Some(other) if other.value != *value => return None,
            Some(_) => {}
            None => {
                let at = place(Some(&argument.file), argument.line);
                found = Some(Sourced { value: *value, source: format!("the API server's argument{at}") });
            }
        }
    }
    found
}
