//! Builds the programs that run in the guest.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{command, workspace};

/// Guest programs run without any library: PID 1 has nothing else.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the program in the image and in the lab can do beyond the usual: ask the API server, and deliver over OTLP.
pub(crate) const FEATURES: &str = "probe-user/kube,probe-user/otlp";

/// Builds `packages` statically and returns the directory that holds their binaries.
pub(crate) fn static_binaries(packages: &[&str]) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--target", TARGET]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    if packages.contains(&"probe-user") {
        cargo.args(["--features", FEATURES]);
    }
    let directory = workspace::build_directory()?;
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(&directory).join("\u{1f}"));
    command::run(&mut cargo).context("the guest's programs do not build")?;
    Ok(directory.join(TARGET).join("release"))
}

/// Without any library, and without the paths of this machine: the image is to be the same wherever it is built.
fn flags(build_directory: &Path) -> Vec<String> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let registries = std::fs::read_dir(cargo_home().join("registry/src"));
    let mut registries: Vec<_> =
        registries.into_iter().flatten().flatten().map(|registry| registry.path()).collect();
    registries.sort();
    let mut places = vec![(workspace::root(), "/portclash"), (build_directory.to_owned(), "/target")];
    places.extend(registries.into_iter().map(|registry| (registry, "/crates")));
    // The last that fits counts.
    flags.extend(places.iter().map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())));
    flags
}

/// Where cargo keeps the sources of crates.
pub(crate) fn cargo_home() -> PathBuf {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"))
}
