//! Compiles the BPF programs of `probe-ebpf` with the toolchain that `cargo xtask setup` found, and puts the object
//! into `OUT_DIR`. aya-build is not used: it needs rustup to choose the toolchain, and Debian's has none.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const OBJECT: &str = "portclash-bpf";

/// Programs that build the BPF object, as written by `cargo xtask setup`.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    fn read(file: &Path) -> Result<Self, Box<dyn Error>> {
        let text = fs::read_to_string(file)
            .map_err(|_| "the toolchain for the BPF programs is not set up: run `cargo xtask setup` once")?;
        let value = |key: &str| -> Result<PathBuf, Box<dyn Error>> {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            Ok(line
                .ok_or_else(|| format!("{} lacks `{key}=`: run `cargo xtask setup`", file.display()))?
                .into())
        };
        Ok(Self { cargo: value("cargo")?, rustc: value("rustc")?, linker: value("linker")? })
    }
}

fn main() {
    if let Err(error) = build() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let root = manifest.parent().ok_or("probe-user has no parent folder")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let toolchain_file = root.join("target/setup/ebpf-toolchain");
    for path in [&toolchain_file, &root.join("probe-ebpf"), &root.join("Cargo.lock")] {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    let toolchain = Toolchain::read(&toolchain_file)?;
    let target_dir = out.join("bpf-target");
    let output = compile(&toolchain, root, &target_dir).output()?;
    if !output.status.success() {
        return Err(format!(
            "the BPF programs do not compile ({}):\n{}",
            toolchain.rustc.display(),
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let built = target_dir.join("bpfel-unknown-none/release").join(OBJECT);
    fs::copy(&built, out.join(OBJECT)).map_err(|error| format!("copy {}: {error}", built.display()))?;
    Ok(())
}

fn compile(toolchain: &Toolchain, root: &Path, target_dir: &Path) -> Command {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| "x86_64".into());
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".into(),
        format!("-Clinker={}", toolchain.linker.display()),
        "-Clink-arg=--btf".into(),
    ];
    flags.extend(remaps(root));
    let mut command = Command::new(&toolchain.cargo);
    command
        .current_dir(root)
        .args(["build", "--package", "probe-ebpf", "--bin", OBJECT, "--release"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(target_dir);
    // The outer cargo's choices must not reach the inner one.
    for (key, _) in env::vars_os() {
        let inherited = key.to_string_lossy();
        if inherited.starts_with("CARGO_") && inherited != "CARGO_HOME" || inherited.starts_with("RUSTC") {
            command.env_remove(&key);
        }
    }
    command
        .env_remove("RUSTUP_TOOLCHAIN")
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    command
}

/// The object is part of the program: it must not depend on where this machine keeps its sources.
fn remaps(root: &Path) -> Vec<String> {
    let mut remaps = vec![format!("--remap-path-prefix={}=/portclash", root.display())];
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let registries = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    for registry in registries.into_iter().flatten().flatten() {
        remaps.push(format!("--remap-path-prefix={}=/crates", registry.path().display()));
    }
    remaps.sort();
    remaps
}
