//! Compares what the configuration says with what the kernel has, and its files with each other. Pure.

use std::path::{Path, PathBuf};

use super::sysctl_files::LAST_FILE;
use super::{Component, Configured, Setting};
use crate::node::port_ranges::PortRanges;
use crate::node::sysctl::{EphemeralRange, NetSysctls, RangeError, parse_reserved};

const RANGE: &str = "net.ipv4.ip_local_port_range";
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";
/// What the kernel starts with (net/ipv4/af_inet.c, `inet_init_net`).
const DEFAULT_RANGE: EphemeralRange = EphemeralRange { first: 32_768, last: 60_999 };
/// `net.ipv4.ip_unprivileged_port_start`, unless someone changed it: no lower port may be in the range.
const UNPRIVILEGED_START: u16 = 1024;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know; nothing is to be done.
    Info,
    /// It works now, and may not after the next boot or `sysctl --system`.
    Warning,
    /// Something does not do what it was written for.
    Error,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What, in words a person can act on. It may hold text from the files.
    pub text: String,
    /// Where it is written.
    pub file: Option<PathBuf>,
    /// Line from 1.
    pub line: Option<usize>,
}

/// Compares. `live` is what the node's network namespace has.
pub fn disagreements(live: &NetSysctls, configured: &Configured) -> Vec<Finding> {
    let mut found = Vec::new();
    invalid_values(configured, &mut found);
    for key in keys(configured) {
        fights(key, configured, &mut found);
    }
    range(live, configured, &mut found);
    reserved(live, configured, &mut found);
    for (key, value) in [
        ("net.ipv4.vs.conntrack", live.vs_conntrack),
        ("net.ipv4.vs.conn_reuse_mode", live.vs_conn_reuse_mode),
        ("net.ipv4.vs.expire_nodest_conn", live.vs_expire_nodest_conn),
    ] {
        number(key, value, configured, &mut found);
    }
    arguments(configured, &mut found);
    found
}

fn push(found: &mut Vec<Finding>, severity: Severity, text: String) {
    found.push(Finding { severity, text, file: None, line: None });
}

fn push_at(found: &mut Vec<Finding>, severity: Severity, text: String, setting: &Setting) {
    found.push(Finding { severity, text, file: Some(setting.file.clone()), line: Some(setting.line) });
}

/// Each key once, in the order of the files.
fn keys(configured: &Configured) -> Vec<&str> {
    let mut keys: Vec<&str> = Vec::new();
    for setting in &configured.settings {
        if !keys.contains(&setting.key.as_str()) {
            keys.push(&setting.key);
        }
    }
    keys
}

/// What the kernel makes of a value of `ip_local_port_range` that it is given: with one number only the low end
/// changes, and what follows two numbers is ignored.
fn kernel_range(value: &str, live: Option<EphemeralRange>) -> Result<EphemeralRange, RangeError> {
    let words: Vec<&str> = value.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        [first] if first.parse::<u16>().is_ok() => {
            let last = live.unwrap_or(DEFAULT_RANGE).last;
            format!("{first} {last}").parse()
        }
        [first, last, ..] if first.parse::<u16>().is_ok() && last.parse::<u16>().is_ok() => {
            format!("{first} {last}").parse()
        }
        _ => value.parse(),
    }
}

/// Why the kernel refuses a value.
fn refusal(key: &str, value: &str) -> Option<String> {
    if key == RANGE {
        match kernel_range(value, None) {
            Err(error) => Some(error.to_string()),
            Ok(range) if range.first < UNPRIVILEGED_START => Some(format!(
                "\"{value}\": a low end below net.ipv4.ip_unprivileged_port_start ({UNPRIVILEGED_START} unless changed)"
            )),
            Ok(_) => None,
        }
    } else if key == RESERVED {
        parse_reserved(value).err().map(|error| error.to_string())
    } else if value.parse::<i32>().is_err() {
        Some(format!("\"{}\" is not a number", value.chars().take(60).collect::<String>()))
    } else {
        None
    }
}

fn invalid_values(configured: &Configured, found: &mut Vec<Finding>) {
    // Debian links /etc/sysctl.d/99-sysctl.conf to it: the same line twice.
    let linked = |setting: &Setting| {
        setting.file != Path::new(LAST_FILE)
            && configured.settings.iter().any(|other| {
                other.file == Path::new(LAST_FILE)
                    && (other.line, &other.key, &other.value) == (setting.line, &setting.key, &setting.value)
            })
    };
    for setting in configured.settings.iter().filter(|setting| !linked(setting)) {
        let Some(reason) = refusal(&setting.key, &setting.value) else { continue };
        let decides = configured.last(&setting.key) == Some(setting);
        let severity = if decides { Severity::Error } else { Severity::Warning };
        let text = format!("{}: {reason}. The kernel refuses it and keeps the old value", setting.key);
        push_at(found, severity, text, setting);
    }
}

/// Files that set different values: whoever is applied last wins, and someone may think that he did.
fn fights(key: &str, configured: &Configured, found: &mut Vec<Finding>) {
    let Some(last) = configured.last(key) else { return };
    let same = |setting: &&Setting| normal(key, &setting.value) == normal(key, &last.value);
    let others: Vec<&Setting> = configured
        .settings
        .iter()
        .filter(|setting| setting.key == key && !setting.by_pattern && !same(setting))
        .collect();
    if others.is_empty() {
        return;
    }
    let named: Vec<String> = others
        .iter()
        .map(|setting| format!("{}:{} ({})", setting.file.display(), setting.line, cut(&setting.value)))
        .collect();
    let mut text = format!(
        "{key} is set to different values: {} is applied last and wins over {}. Keep one of them",
        cut(&last.value),
        named.join(", ")
    );
    let in_last_file = |setting: &Setting| setting.file == Path::new(LAST_FILE);
    if in_last_file(last) != others.iter().any(|setting| in_last_file(setting)) {
        text += &format!(
            "; `sysctl --system` reads {LAST_FILE} last, systemd at boot reads it only through a link in /etc/sysctl.d"
        );
    }
    push_at(found, Severity::Warning, text, last);
}

/// Values that mean the same compare equal.
fn normal(key: &str, value: &str) -> String {
    match key {
        RANGE => value.split_whitespace().collect::<Vec<_>>().join(" "),
        RESERVED => parse_reserved(value).map_or_else(|_| value.to_owned(), |ports| ports.to_string()),
        _ => value.to_owned(),
    }
}

fn cut(value: &str) -> String {
    const SHOWN: usize = 80;
    let mut text: String = value.chars().take(SHOWN).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    if text.is_empty() { "nothing".to_owned() } else { text }
}

fn range(live: &NetSysctls, configured: &Configured, found: &mut Vec<Finding>) {
    let last = configured.last(RANGE);
    let written = last.filter(|setting| refusal(RANGE, &setting.value).is_none()).and_then(|setting| {
        kernel_range(&setting.value, live.local_port_range).ok().map(|range| (setting, range))
    });
    if let (Some((setting, range)), Some(live)) = (written, live.local_port_range)
        && range != live
    {
        let text = format!(
            "{RANGE} is {} {} here, but {} {} in the kernel: {NOT_APPLIED}",
            range.first, range.last, live.first, live.last
        );
        push_at(found, Severity::Warning, text, setting);
    }
    if last.is_none() && live.local_port_range.is_some_and(|range| range != DEFAULT_RANGE) {
        let text = format!(
            "no sysctl file sets {RANGE}, yet it is not the kernel's default {} {}: something else sets it, such as \
             a tuning daemon, a DaemonSet or the image's first boot",
            DEFAULT_RANGE.first, DEFAULT_RANGE.last
        );
        push(found, Severity::Info, text);
    }
    let parity = |range: EphemeralRange| {
        format!(
            "{RANGE} {} {}: the kernel logs \"prefer different parity for start/end values\", because both ends are \
             {}. It is advice about speed and has no part in collisions",
            range.first,
            range.last,
            if range.first.is_multiple_of(2) { "even" } else { "odd" }
        )
    };
    match (written, live.local_port_range) {
        (Some((setting, range)), _) if range.same_parity() => {
            push_at(found, Severity::Info, parity(range), setting);
        }
        (None, Some(live)) if live.same_parity() => push(found, Severity::Info, parity(live)),
        _ => {}
    }
}

const NOT_APPLIED: &str = "either it was not applied (`sysctl --system`), or something changed it afterwards";

fn reserved(live: &NetSysctls, configured: &Configured, found: &mut Vec<Finding>) {
    let Some(live) = &live.reserved_ports else { return };
    let Some(setting) = configured.last(RESERVED) else {
        if !live.is_empty() {
            let text = format!(
                "{RESERVED} is {} in the kernel, but no sysctl file sets it: it is lost at the next boot, unless \
                 what set it does so again",
                cut(&live.to_string())
            );
            push(found, Severity::Warning, text);
        }
        return;
    };
    let Ok(written) = parse_reserved(&setting.value) else { return };
    let (dropped, missing) = (live.difference(&written), written.difference(live));
    if !dropped.is_empty() {
        let text = format!(
            "{RESERVED}: the next boot or `sysctl --system` would drop {}, which are reserved now. Write {} here",
            ports(&dropped),
            cut(&live.union(&written).to_string())
        );
        push_at(found, Severity::Warning, text, setting);
    }
    if !missing.is_empty() {
        let text = format!("{RESERVED}: {} are not reserved in the kernel: {NOT_APPLIED}", ports(&missing));
        push_at(found, Severity::Warning, text, setting);
    }
}

fn ports(ports: &PortRanges) -> String {
    format!("the ports {}", cut(&ports.to_string()))
}

fn number(key: &str, live: Option<i32>, configured: &Configured, found: &mut Vec<Finding>) {
    let Some(setting) = configured.last(key) else { return };
    let (Some(live), Ok(written)) = (live, setting.value.parse::<i32>()) else { return };
    if live != written {
        // kube-proxy sets these at every start.
        let text = format!(
            "{key} is {written} here, but {live} in the kernel: {NOT_APPLIED}; kube-proxy sets it when it starts"
        );
        push_at(found, Severity::Warning, text, setting);
    }
}

/// Where the same argument has several values: another control plane node, or a manifest not yet taken over.
fn arguments(configured: &Configured, found: &mut Vec<Finding>) {
    for (component, name) in
        [(Component::ApiServer, "service-node-port-range"), (Component::KubeProxy, "proxy-mode")]
    {
        let Some(first) = configured.argument(component, name).next() else { continue };
        let Some(other) = configured.argument(component, name).find(|other| other.value != first.value)
        else {
            continue;
        };
        let place = |argument: &super::Argument| match (argument.pid, argument.line) {
            (Some(pid), _) => format!("{} (pid {pid})", argument.file.display()),
            (None, Some(line)) => format!("{}:{line}", argument.file.display()),
            (None, None) => argument.file.display().to_string(),
        };
        found.push(Finding {
            severity: Severity::Warning,
            text: format!(
                "{component}: --{name} is {} in {} and {} in {}",
                cut(&first.value),
                place(first),
                cut(&other.value),
                place(other)
            ),
            file: Some(other.file.clone()),
            line: other.line,
        });
    }
}

#[cfg(test)]
#[path = "disagreements_tests.rs"]
mod tests;
