//! The unit for nodes without Kubernetes, as far as systemd's own tools can judge it here.

// Helpers of tests may fail as tests do.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd/portclash.service");
/// The sidecar's own list.
const CALLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve/privileges/calls.rs");

/// What a command of systemd-analyze says; `None` where it is not installed.
fn analyze(arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("systemd-analyze").args(arguments).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// The unit with a program that is there, in a directory of its own.
fn copy(directory: &Path) -> String {
    let text = fs::read_to_string(UNIT).unwrap();
    assert!(text.contains("ExecStart=/usr/local/bin/portclash serve "));
    let path = directory.join("portclash.service");
    fs::write(&path, text.replace("/usr/local/bin/portclash", env!("CARGO_BIN_EXE_portclash"))).unwrap();
    path.display().to_string()
}

#[test]
fn systemd_understands_every_line() {
    let directory = tempfile::tempdir().unwrap();
    let Some((ok, said)) = analyze(&["verify", "--man=no", &copy(directory.path())]) else { return };
    assert!(ok && !said.contains("portclash.service"), "{said}");
}

#[test]
fn exposure_as_systemd_counts_it_stays_low() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["security", "--no-pager", "--offline=true", "--threshold=30", &copy(directory.path())];
    let Some((ok, said)) = analyze(&arguments) else { return };
    assert!(ok && said.contains("exposure level"), "{said}");
}

/// Names of system calls by the set that has them, sets in sets resolved.
struct Sets(BTreeMap<String, Vec<String>>);

impl Sets {
    fn read() -> Option<Self> {
        let (ok, said) = analyze(&["syscall-filter", "--no-pager"])?;
        let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut current = None;
        for line in said.lines().filter(|line| ok && !line.trim().is_empty()) {
            let word = line.split_whitespace().next()?.to_owned();
            if line.starts_with('@') {
                current = Some(word.clone());
                sets.insert(word, Vec::new());
            } else if line.starts_with("    ") && word != "#" {
                sets.get_mut(current.as_ref()?)?.push(word);
            }
        }
        Some(Self(sets)).filter(|sets| sets.0.contains_key("@system-service"))
    }

    fn expand(&self, name: &str, into: &mut BTreeSet<String>) {
        match self.0.get(name) {
            Some(members) => members.iter().for_each(|member| self.expand(member, into)),
            None => drop(into.insert(name.to_owned())),
        }
    }
}

/// The unit's frame must hold what the program allows itself, or it would fail where the program does not expect it.
#[test]
fn the_filter_leaves_what_the_program_needs() {
    let Some(sets) = Sets::read() else { return };
    let mut allowed = BTreeSet::new();
    // Always allowed with a list.
    sets.expand("@default", &mut allowed);
    let unit = fs::read_to_string(UNIT).unwrap();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (denies, names) = line.strip_prefix('~').map_or((false, line), |names| (true, names));
        let mut calls = BTreeSet::new();
        names.split_whitespace().for_each(|name| sets.expand(name, &mut calls));
        if denies {
            allowed.retain(|name| !calls.contains(name));
        } else {
            allowed.extend(calls);
        }
    }
    let source = fs::read_to_string(CALLS).unwrap();
    let names = source.split("libc::SYS_").skip(1);
    let needed: BTreeSet<&str> =
        names.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()).collect();
    assert!(needed.len() > 100, "{needed:?}");
    // To attach, and to shut the door behind.
    let starting =
        ["bpf", "perf_event_open", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"];
    let missing: Vec<&str> =
        needed.into_iter().chain(starting).filter(|name| !allowed.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for never in
        ["ptrace", "mount", "init_module", "setuid", "reboot", "keyctl", "process_vm_readv", "chroot"]
    {
        assert!(!allowed.contains(never), "{never}");
    }
}
