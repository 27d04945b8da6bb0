//! Builds the programs that run in the guest.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{command, workspace};

/// Guest programs run without any library: PID 1 has nothing else.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds `packages` statically and returns the directory that holds their binaries.
pub(crate) fn static_binaries(packages: &[&str]) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--target", TARGET]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    if packages.contains(&"probe-user") {
        // As in the image: the API server can be asked.
        cargo.args(["--features", "probe-user/kube"]);
    }
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    command::run(&mut cargo).context("the guest's programs do not build")?;
    Ok(workspace::build_directory()?.join(TARGET).join("release"))
}
