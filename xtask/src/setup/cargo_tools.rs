//! Programs that cargo installs from source: bpf-linker and cargo-deny.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::toolchain::Toolchain;
use super::{apt, found_line, installing_line};
use crate::vm::find_program;
use crate::{command, workspace};

const BPF_LINKER: &str = "0.13.0";
const CARGO_DENY: &str = "0.20.2";

/// Finds bpf-linker or installs it against the LLVM that the kernel side's compiler has. Returns its path.
pub(crate) fn ensure_bpf_linker(toolchain: &Toolchain) -> Result<PathBuf> {
    if let Some(path) = installed("bpf-linker", BPF_LINKER) {
        found_line(&format!("bpf-linker {BPF_LINKER}: {}", path.display()));
        return Ok(path);
    }
    let llvm = toolchain.llvm;
    let bin = PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin"));
    if !bin.join("llvm-config").is_file() {
        let packages = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        if !apt::is_debian() {
            bail!(
                "bpf-linker needs the development files of LLVM {llvm}: install them and put llvm-config in PATH"
            );
        }
        installing_line(&packages.join(", "));
        apt::install(&packages)?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))?;
    let feature = format!("llvm-{llvm}");
    install("bpf-linker", BPF_LINKER, &["--no-default-features", "--features", &feature], |cargo| {
        cargo.env("PATH", path);
    })
}

/// Finds cargo-deny or installs it.
pub(crate) fn ensure_cargo_deny() -> Result<()> {
    if let Some(path) = installed("cargo-deny", CARGO_DENY) {
        found_line(&format!("cargo-deny {CARGO_DENY}: {}", path.display()));
        return Ok(());
    }
    install("cargo-deny", CARGO_DENY, &[], |_| {}).map(drop)
}

/// The program, if it is there in this version.
fn installed(name: &str, version: &str) -> Option<PathBuf> {
    let path =
        find_program(name).or_else(|| cargo_bin().map(|bin| bin.join(name)).filter(|path| path.is_file()))?;
    let said = command::output(Command::new(&path).arg("--version")).ok()?;
    said.split_whitespace().any(|word| word == version).then_some(path)
}

fn install(
    name: &str,
    version: &str,
    arguments: &[&str],
    prepare: impl FnOnce(&mut Command),
) -> Result<PathBuf> {
    installing_line(&format!("{name} {version} with cargo, which takes a minute or two"));
    let mut cargo = workspace::cargo();
    cargo.args(["install", "--quiet", "--locked", name, "--version", version]).args(arguments);
    prepare(&mut cargo);
    command::run(&mut cargo)?;
    installed(name, version)
        .with_context(|| format!("cargo installed {name} {version}, but it is not in PATH"))
}

fn cargo_bin() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).map(|home| home.join("bin"))
}
