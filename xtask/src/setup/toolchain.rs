//! The toolchain that compiles the kernel side: any rustc and cargo with the standard library's source, because
//! `core` is built for the BPF target.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{apt, found_line, installing_line};
use crate::{command, workspace};

/// Names a rustc for the kernel side; it wins over every other.
const VARIABLE: &str = "PORTCLASH_EBPF_RUSTC";
/// A consistent compiler, cargo and source in Debian.
const PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];

/// Versions of LLVM that the pinned bpf-linker can be built against.
pub(crate) const LLVM: RangeInclusive<u32> = 21..=23;

/// A rustc and the cargo beside it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// Major version of the LLVM inside it.
    pub(crate) llvm: u32,
}

impl Toolchain {
    /// The toolchain of this rustc, if it has the standard library's source and a cargo, whatever its LLVM.
    fn of(rustc: &Path) -> Option<Self> {
        let cargo = rustc.with_file_name("cargo");
        if !rustc.is_file() || !cargo.is_file() {
            return None;
        }
        let sysroot = command::output(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
        let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
        let version = command::output(Command::new(rustc).arg("-vV")).ok()?;
        source.is_file().then_some(())?;
        Some(Self { rustc: rustc.to_owned(), cargo, llvm: llvm_major(&version)? })
    }

    /// Whether there is a linker for what it compiles.
    fn links(&self) -> bool {
        LLVM.contains(&self.llvm)
    }

    /// Writes target/setup/ebpf-toolchain, which the build script of probe-user reads.
    pub(crate) fn remember(&self, linker: &Path) -> Result<()> {
        let (rustc, cargo, linker) = (self.rustc.display(), self.cargo.display(), linker.display());
        let text = format!("rustc={rustc}\ncargo={cargo}\nlinker={linker}\n");
        let directory = workspace::set_up("setup");
        std::fs::create_dir_all(&directory)?;
        let file = directory.join("ebpf-toolchain");
        // Cargo watches the file: what has not changed must not be built again.
        if std::fs::read_to_string(&file).ok().as_deref() == Some(&text) {
            return Ok(());
        }
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Finds a toolchain, or installs one from Debian's packages or through rustup.
pub(crate) fn ensure() -> Result<Toolchain> {
    if let Some(toolchain) = find()? {
        found_line(&format!(
            "rustc for the kernel side: {} (LLVM {})",
            toolchain.rustc.display(),
            toolchain.llvm
        ));
        return Ok(toolchain);
    }
    if apt::is_debian() && apt::is_root() && apt::knows(PACKAGES) {
        installing_line(&PACKAGES.join(", "));
        apt::install(PACKAGES)?;
    } else {
        installing_line("the standard library's source, through rustup");
        command::run(Command::new("rustup").args(["component", "add", "rust-src"])).context(
            "no Rust compiler with the standard library's source: install the Debian packages rustc-web cargo-web \
             rust-web-src, or rustup's component rust-src, or name one in PORTCLASH_EBPF_RUSTC",
        )?;
    }
    find()?.with_context(|| {
        format!(
            "what was installed has no source of the standard library, or not LLVM {} to {} inside, as bpf-linker needs",
            LLVM.start(),
            LLVM.end()
        )
    })
}

fn find() -> Result<Option<Toolchain>> {
    if let Some(rustc) = std::env::var_os(VARIABLE) {
        let rustc = PathBuf::from(rustc);
        let found = Toolchain::of(&rustc);
        let name = rustc.display();
        return match found {
            Some(toolchain) if toolchain.links() => Ok(Some(toolchain)),
            Some(Toolchain { llvm, .. }) => {
                let (first, last) = (LLVM.start(), LLVM.end());
                bail!("{VARIABLE}={name}: it has LLVM {llvm} inside, and bpf-linker needs {first} to {last}")
            }
            None => {
                bail!("{VARIABLE}={name}: no rustc with a cargo beside it and the standard library's source")
            }
        };
    }
    Ok(std::iter::once(PathBuf::from("/usr/bin/rustc"))
        .chain(rustup_compilers())
        .filter_map(|rustc| Toolchain::of(&rustc))
        .find(Toolchain::links))
}

/// Compilers of rustup's toolchains, nightly first: it needs no bootstrap switch.
fn rustup_compilers() -> Vec<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".rustup")));
    let Some(home) = home else { return Vec::new() };
    let toolchains = std::fs::read_dir(home.join("toolchains")).into_iter().flatten().flatten();
    let mut compilers: Vec<PathBuf> = toolchains.map(|entry| entry.path().join("bin/rustc")).collect();
    compilers.sort_by_key(|path| (!path.to_string_lossy().contains("/nightly"), path.clone()));
    compilers
}

/// Major number in the line `LLVM version: 22.1.8` of `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_llvm_is_read() {
        assert_eq!(llvm_major("rustc 1.96.0\nhost: x\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }

    #[test]
    fn a_compiler_that_the_linker_does_not_know_is_not_taken() {
        let with = |llvm| Toolchain { rustc: PathBuf::new(), cargo: PathBuf::new(), llvm };
        assert!(!with(19).links(), "Debian bookworm's rustc-web before its update");
        assert!(with(22).links());
        assert!(!with(24).links());
    }

    #[test]
    fn a_compiler_without_source_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Toolchain::of(&directory.path().join("rustc")), None);
    }
}
