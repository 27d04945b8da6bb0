//! Runs a program with some capabilities only, as a container runtime starts one for root.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use caps::{CapSet, Capability};

/// Replaces this process by `command`, as root with the capabilities in `names` (separated by commas, without `CAP_`;
/// `none` for none) and no others.
pub(super) fn run(names: &str, command: &[String]) -> Result<()> {
    let kept: Vec<Capability> = names
        .split(',')
        .filter(|name| *name != "none")
        .map(|name| format!("CAP_{}", name.to_uppercase()).parse())
        .collect::<Result<_, _>>()
        .with_context(|| format!("{names}: no such capability"))?;
    caps::clear(None, CapSet::Inheritable)?;
    // Root gets what is in the bounding set when it executes a program.
    for capability in caps::read(None, CapSet::Bounding)?.into_iter().filter(|each| !kept.contains(each)) {
        caps::drop(None, CapSet::Bounding, capability)?;
    }
    let Some((program, arguments)) = command.split_first() else { bail!("no command") };
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("cannot execute {program}"))
}
