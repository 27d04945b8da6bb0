//! What is inside the guest.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::find_program;
use crate::initramfs::Archive;
use crate::setup::containers;
use crate::setup::kernels::Kernel;
use crate::{modules, workspace};

/// Programs of this machine that the guest runs, and whether it can do without.
const PROGRAMS: &[(&str, bool)] = &[
    ("ip", true),
    ("ipvsadm", true),
    ("tcpdump", false),
    ("nft", false),
    ("conntrack", true),
    ("ss", false),
    ("bpftool", false),
];

/// What kind of node the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pods are network namespaces.
    Node,
    /// Pods are containerd's; cgroups as given. Everything is larger, so only what needs it boots it.
    Containers(Cgroups),
}

/// Which cgroup hierarchies the guest mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cgroups {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

impl Kind {
    /// What the names of its files end in.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Node => "",
            Self::Containers(Cgroups::V1) => "-containers-cgroup1",
            Self::Containers(Cgroups::V2) => "-containers-cgroup2",
        }
    }

    /// Memory in MiB of a guest with an image of so many bytes: it is unpacked into half of the memory at most, while it
    /// is still there itself; and containerd's images and layers are there, too.
    pub(super) fn memory(self, image: u64) -> u64 {
        let least = match self {
            Self::Node => 1024,
            Self::Containers(_) => 2048,
        };
        least.max((image >> 20) * 4)
    }

    /// Words on the kernel's command line, which PID 1 reads.
    pub(super) fn boot_words(self) -> &'static str {
        match self {
            Self::Containers(Cgroups::V1) => " lab.cgroups=v1",
            Self::Containers(Cgroups::V2) | Self::Node => "",
        }
    }
}

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
    /// What kind of node it is.
    pub(crate) kind: Kind,
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
    if matches!(guest.kind, Kind::Containers(_)) {
        containers(&mut archive)?;
    }
    busybox(&mut archive)?;
    modules::add(&mut archive, &kernel.modules()?)?;
    archive.file("lab/plan", guest.plan.join("\n").as_bytes());
    let path =
        workspace::set_up("lab").join(format!("initramfs-{}{}.cpio", kernel.name, guest.kind.suffix()));
    std::fs::create_dir_all(workspace::set_up("lab"))?;
    std::fs::write(&path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The container runtime and its network plugins.
fn containers(archive: &mut Archive) -> Result<()> {
    let directory = containers::directory()?;
    for file in containers::PROGRAMS {
        let path = directory.join(file);
        let name = path.file_name().and_then(|name| name.to_str()).context("a program without a name")?;
        archive.program(name, &path)?;
    }
    for file in containers::PLUGINS {
        let path = directory.join(file);
        let name = path.file_name().and_then(|name| name.to_str()).context("a plugin without a name")?;
        archive.copy(&format!("opt/cni/bin/{name}"), &path)?;
    }
    // containerd keeps network namespaces below /var/run.
    archive.directory("var/lib");
    archive.link("var/run", "/run");
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_image_has_room_to_be_unpacked() {
        assert_eq!(Kind::Node.memory(170 << 20), 1024);
        assert_eq!(Kind::Node.memory(361 << 20), 1444, "a bench brings bpftrace with LLVM");
        assert_eq!(Kind::Containers(Cgroups::V2).memory(170 << 20), 2048);
    }
}
