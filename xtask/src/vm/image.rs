//! What is inside the guest.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::find_program;
use crate::initramfs::Archive;
use crate::setup::kernels::Kernel;
use crate::{modules, workspace};

/// Programs of this machine that the guest runs, and whether it can do without.
const PROGRAMS: &[(&str, bool)] = &[
    ("ip", true),
    ("ipvsadm", true),
    ("tcpdump", false),
    ("nft", false),
    ("conntrack", false),
    ("ss", false),
    ("bpftool", false),
];

/// What the guest is made of and what it is to do.
pub(crate) struct Guest {
    /// Its PID 1.
    pub(crate) init: PathBuf,
    /// The `portclash` program, if it is to be there.
    pub(crate) portclash: Option<PathBuf>,
    /// Files of this machine that go to `/root`.
    pub(crate) files: Vec<PathBuf>,
    /// Programs that go along besides the usual ones, if this machine has them.
    pub(crate) programs: &'static [(&'static str, &'static str)],
    /// What PID 1 is to do: a mode and its arguments.
    pub(crate) plan: Vec<String>,
}

/// Writes the guest's initramfs and returns its path.
pub(super) fn write(kernel: &Kernel, guest: &Guest) -> Result<PathBuf> {
    let mut archive = Archive::new();
    for directory in ["proc", "sys", "run", "tmp", "etc", "root"] {
        archive.directory(directory);
    }
    archive.link("sbin", "bin");
    archive.link("usr/bin", "../bin");
    archive.link("usr/sbin", "../bin");
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", b"root:x:0:\n");
    archive.copy("init", &guest.init)?;
    if let Some(portclash) = &guest.portclash {
        archive.copy("bin/portclash", portclash)?;
    }
    for file in &guest.files {
        let name = file.file_name().and_then(|name| name.to_str()).context("a file without a name")?;
        archive.copy(&format!("root/{name}"), file)?;
    }
    for (name, required) in PROGRAMS {
        match find_program(name) {
            Some(path) => archive.program(name, &path)?,
            None if *required => anyhow::bail!("{name} is missing: run `cargo xtask setup`"),
            None => {}
        }
    }
    for (name, _) in guest.programs {
        if let Some(path) = find_program(name) {
            archive.program(name, &path)?;
        }
    }
    busybox(&mut archive)?;
    modules::add(&mut archive, &kernel.modules()?)?;
    archive.file("lab/plan", guest.plan.join("\n").as_bytes());
    let path = workspace::set_up("lab").join(format!("initramfs-{}.cpio", kernel.name));
    std::fs::create_dir_all(workspace::set_up("lab"))?;
    std::fs::write(&path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// busybox and its applets, after the programs above: a name that is taken stays.
fn busybox(archive: &mut Archive) -> Result<()> {
    let path = find_program("busybox").context("busybox is missing: run `cargo xtask setup`")?;
    archive.program("busybox", &path)?;
    let applets = crate::command::output(std::process::Command::new(Path::new(&path)).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(())
}
