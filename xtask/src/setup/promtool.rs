//! Prometheus' own checker of metrics and rules, from Debian's package: unpacked under target/promtool, never
//! installed, because the package starts a server.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{apt, found_line, installing_line};
use crate::vm::find_program;
use crate::{command, workspace};

const PACKAGE: &str = "prometheus";

/// Finds promtool, or fetches the package and unpacks it where the tests look for it.
pub(crate) fn ensure() -> Result<()> {
    let directory = workspace::set_up("promtool");
    let program = directory.join("usr/bin/promtool");
    if find_program("promtool").is_some() {
        found_line("promtool");
        return Ok(());
    }
    if program.is_file() {
        found_line("promtool (under target)");
        return Ok(());
    }
    if !apt::is_debian() {
        bail!("install promtool, a part of Prometheus, with this system's package manager");
    }
    installing_line(&format!("promtool (of the package {PACKAGE}, under target)"));
    fetch(&directory).context("cannot fetch promtool")?;
    ensure!(program.is_file(), "the package {PACKAGE} holds no promtool");
    Ok(())
}

fn fetch(directory: &Path) -> Result<()> {
    ensure!(apt::knows(&[PACKAGE]), "this system's releases have no package {PACKAGE}");
    let packages = directory.join("packages");
    std::fs::create_dir_all(&packages)?;
    apt::Apt::system().download(&[PACKAGE.to_owned()], &packages)?;
    for package in std::fs::read_dir(&packages)? {
        command::run(Command::new("dpkg").arg("-x").arg(package?.path()).arg(directory))?;
    }
    std::fs::remove_dir_all(&packages).map_err(Into::into)
}
