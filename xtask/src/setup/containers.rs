//! The container runtime of the lab, from Debian's packages: fetched and unpacked under target/containers, never
//! installed, so that a runtime which this machine has stays as it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::apt::Apt;
use super::{found_line, installing_line};
use crate::{command, workspace};

/// Packages that have the programs below.
const PACKAGES: &[&str] = &["containerd", "runc", "containernetworking-plugins"];
/// Debian release whose containerd the lab is written for, and its version.
const SUITE: &str = "bookworm";
const VERSION: &str = "1.6";
/// Programs that the guest's PATH has. ctr imports images.
pub(crate) const PROGRAMS: &[&str] =
    &["usr/bin/containerd", "usr/bin/containerd-shim-runc-v2", "usr/bin/ctr", "usr/sbin/runc"];
/// CNI plugins: a veth with a route, its addresses, and loopback, which containerd always calls.
pub(crate) const PLUGINS: &[&str] = &["usr/lib/cni/ptp", "usr/lib/cni/host-local", "usr/lib/cni/loopback"];

/// Directory that the packages are unpacked in, if set-up has fetched them.
pub(crate) fn directory() -> Result<PathBuf> {
    let directory = place();
    ensure!(directory.join("ready").is_file(), "containerd is not here: run `cargo xtask setup`");
    Ok(directory)
}

/// Fetches the packages unless they are there, and says so.
pub(crate) fn ensure() -> Result<()> {
    if directory().is_ok() {
        found_line(&format!("{} (under target)", PACKAGES.join(", ")));
        return Ok(());
    }
    installing_line(&format!("{} (of {SUITE}, under target)", PACKAGES.join(", ")));
    fetch(&place()).context("cannot fetch the container runtime")
}

fn place() -> PathBuf {
    workspace::set_up("containers")
}

fn fetch(directory: &Path) -> Result<()> {
    if directory.exists() {
        std::fs::remove_dir_all(directory).context("cannot remove what an earlier attempt left")?;
    }
    let packages = directory.join("packages");
    std::fs::create_dir_all(&packages)?;
    let names: Vec<String> = PACKAGES.iter().map(|name| (*name).to_owned()).collect();
    Apt::that_has("containerd", VERSION, SUITE)?.download(&names, &packages)?;
    for package in std::fs::read_dir(&packages)? {
        command::run(Command::new("dpkg").arg("-x").arg(package?.path()).arg(directory))?;
    }
    std::fs::remove_dir_all(&packages)?;
    for file in PROGRAMS.iter().chain(PLUGINS) {
        ensure!(directory.join(file).is_file(), "the packages hold no {file}");
    }
    std::fs::write(directory.join("ready"), b"")?;
    Ok(())
}
