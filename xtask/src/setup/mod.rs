//! `cargo xtask setup`: finds or installs what the build and the virtual machines need, in this order: already
//! there; Debian's packages; rustup.

mod apt;
mod cargo_tools;
pub(crate) mod containers;
pub(crate) mod kernels;
mod promtool;
mod toolchain;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::vm::find_program;

/// Programs that the virtual machines need, and the Debian packages that have them.
const PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("ipvsadm", "ipvsadm"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("tcpdump", "tcpdump"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// Programs that the unit tests run, with their packages.
const TESTED: &[(&str, &str)] = &[("ip", "iproute2"), ("tmux", "tmux")];

/// What `cargo xtask bench` compares with; nothing else needs them.
pub(crate) const COMPARED: &[(&str, &str)] =
    &[("bpftrace", "bpftrace"), ("strace", "strace"), ("tcpconnect", "libbpf-tools")];

/// Find or install what the build and the virtual machines need.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Kernels to fetch for the lab: a list such as 6.1,6.12, or all (5.10, 6.1, 6.12, 7.2)
    #[arg(long, default_value = "6.1,6.12")]
    kernels: String,
}

/// Sets up and says what it finds and does.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    everything(&kernels::parse_list(&arguments.kernels)?, false)?;
    Ok(ExitCode::SUCCESS)
}

/// Everything for the build; for the virtual machines if kernels are wanted; cargo-deny and what unit tests
/// run if `checks`.
pub(crate) fn everything(wanted: &[&'static kernels::Wanted], checks: bool) -> Result<()> {
    let toolchain = toolchain::ensure()?;
    let linker = cargo_tools::ensure_bpf_linker(&toolchain)?;
    toolchain.remember(&linker)?;
    if checks {
        cargo_tools::ensure_cargo_deny()?;
        ensure_programs(TESTED)?;
        promtool::ensure()?;
    }
    if !wanted.is_empty() {
        ensure_programs(PROGRAMS)?;
        containers::ensure()?;
    }
    wanted.iter().try_for_each(|kernel| kernels::ensure(kernel))
}

/// Finds or installs programs, given with their Debian packages.
pub(crate) fn ensure_programs(programs: &[(&str, &str)]) -> Result<()> {
    let (found, missing): (Vec<_>, Vec<_>) =
        programs.iter().partition(|(name, _)| find_program(name).is_some());
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    if !names.is_empty() {
        found_line(&names.join(", "));
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    if !apt::is_debian() {
        bail!("install with this system's package manager what Debian calls {}", packages.join(", "));
    }
    installing_line(&packages.join(", "));
    apt::install(&packages)
}

fn found_line(what: &str) {
    println!("found      {what}");
}

fn installing_line(what: &str) {
    println!("installing {what}");
}
