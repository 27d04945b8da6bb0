//! Landlock: which files may be opened, and which ports connected to. As much of it as the kernel knows.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::{Plan, PrivilegesError};

/// The newest rules that are asked for: later ones restrict what this program does (Unix sockets by path).
const NEWEST: ABI = ABI::V6;

/// What journalctl reads besides its own program and libraries.
const JOURNAL: &[&str] = &["/etc", "/var/log/journal", "/run/log/journal", "/run/systemd"];
/// Programs and their libraries.
const PROGRAMS: &[&str] = &["/usr", "/bin", "/lib", "/lib64"];

/// Restricts the calling thread. Returns one clause for people: what is in force.
pub(super) fn restrict(plan: &Plan, notes: &mut Vec<String>) -> Result<String, PrivilegesError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        // No rule: nobody else may ever reach this process through a new port.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?;
    if plan.tcp_ports.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut created = ruleset.create()?;
    created = allow(created, &plan.reads, read, notes)?;
    created = allow(created, &plan.writes, write, notes)?;
    if plan.executes_journalctl {
        created = allow(created, &paths(PROGRAMS), read | AccessFs::Execute, &mut Vec::new())?;
        created = allow(created, &paths(JOURNAL), read, &mut Vec::new())?;
        created = allow(created, &paths(&["/dev/null"]), read | AccessFs::WriteFile, notes)?;
    }
    if !plan.keep_for_hooks.is_empty() {
        created = allow(created, &paths(super::FOR_KPROBES), read, &mut Vec::new())?;
    }
    for port in plan.tcp_ports.iter().flatten() {
        created = created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    let status = created.restrict_self()?;
    Ok(described(status.ruleset, status.landlock, notes))
}

fn paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

fn allow(
    mut ruleset: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
    notes: &mut Vec<String>,
) -> Result<RulesetCreated, PrivilegesError> {
    for path in paths {
        match PathFd::new(path) {
            // What a file cannot have (to be listed) is left out by the library, best effort.
            Ok(opened) => ruleset = ruleset.add_rule(PathBeneath::new(opened, for_kind(path, access)))?,
            Err(error) => note_absent(path, &error, notes),
        }
    }
    Ok(ruleset)
}

/// Only the rights that a file can have, if it is one.
fn for_kind(path: &Path, access: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) }
}

/// What is not there on many nodes is no news.
fn note_absent(path: &Path, error: &landlock::PathFdError, notes: &mut Vec<String>) {
    if !super::READS.iter().any(|usual| Path::new(usual) == path) {
        notes.push(format!("{} cannot be opened later: {}", path.display(), chain(error)));
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn described(ruleset: RulesetStatus, landlock: LandlockStatus, notes: &mut Vec<String>) -> String {
    match (ruleset, landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            notes
                .push("this kernel has Landlock, but it was not enabled at boot (lsm=landlock,…)".to_owned());
            "files are not restricted (Landlock is off)".to_owned()
        }
        (RulesetStatus::NotEnforced, _) => {
            notes.push("this kernel has no Landlock (5.13 and later can have it)".to_owned());
            "files are not restricted (no Landlock)".to_owned()
        }
        (RulesetStatus::FullyEnforced, _) => "files and ports are restricted (Landlock)".to_owned(),
        (RulesetStatus::PartiallyEnforced, landlock) => {
            let abi = match landlock {
                LandlockStatus::Available { effective_abi, .. } => format!("{effective_abi:?}"),
                other => format!("{other:?}"),
            };
            let missing = missing_in(&abi);
            notes.push(format!("Landlock of this kernel (ABI {abi}) does not restrict {missing}"));
            format!("files are restricted as far as this kernel can (Landlock ABI {abi})")
        }
    }
}

/// What the versions of Landlock before [`NEWEST`] lack.
fn missing_in(abi: &str) -> String {
    const SINCE: [(&str, &str); 5] = [
        ("V2", "moving files between directories"),
        ("V3", "cutting files short"),
        ("V4", "TCP ports"),
        ("V5", "ioctl on devices"),
        ("V6", "signals to others"),
    ];
    let later: Vec<&str> = SINCE.iter().filter(|(since, _)| *since > abi).map(|(_, what)| *what).collect();
    later.join(", ")
}
