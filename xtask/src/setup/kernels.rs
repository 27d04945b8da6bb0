//! Kernels for the lab, from Debian's packages: fetched and unpacked under target/kernels, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use super::{found_line, installing_line};
use crate::{command, workspace};

/// A kernel that the lab can boot and the packages it comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Version that users name it by.
    pub(crate) name: &'static str,
    /// Package that depends on the current build of it.
    package: &'static str,
    /// Debian release that has it.
    suite: &'static str,
}

/// The matrix of the lab.
const WANTED: &[Wanted] = &[
    Wanted { name: "5.10", package: "linux-image-cloud-amd64", suite: "bullseye" },
    Wanted { name: "6.1", package: "linux-image-cloud-amd64", suite: "bookworm" },
    Wanted { name: "6.12", package: "linux-image-6.12-cloud-amd64", suite: "bookworm" },
    Wanted { name: "7.2", package: "linux-image-cloud-amd64", suite: "sid" },
];

/// Kernels of a list such as `6.1,6.12`, or `all`, in the order of the matrix.
pub(crate) fn parse_list(list: &str) -> Result<Vec<&'static Wanted>> {
    if list == "all" {
        return Ok(WANTED.iter().collect());
    }
    let names: Vec<&str> = list.split(',').map(str::trim).collect();
    for name in &names {
        if !WANTED.iter().any(|wanted| wanted.name == *name) {
            let known: Vec<&str> = WANTED.iter().map(|wanted| wanted.name).collect();
            bail!("--kernels: no kernel {name:?}; known are {} and all", known.join(", "));
        }
    }
    Ok(WANTED.iter().filter(|wanted| names.contains(&wanted.name)).collect())
}

/// An unpacked kernel.
pub(crate) struct Kernel {
    /// Version that users name it by.
    pub(crate) name: String,
    directory: PathBuf,
}

impl Kernel {
    /// The kernel of that name, if set-up has fetched it.
    pub(crate) fn find(name: &str) -> Result<Self> {
        let directory = workspace::set_up("kernels").join(name);
        if !directory.join("ready").is_file() {
            bail!("kernel {name} is not here: run `cargo xtask setup --kernels {name}`");
        }
        Ok(Self { name: name.to_owned(), directory })
    }

    /// The compressed kernel.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        let boot = self.directory.join("boot");
        // From 7.x on Debian ships it beside the modules.
        if boot.is_dir() { only_entry(&boot, "vmlinuz-") } else { Ok(self.modules()?.join("vmlinuz")) }
    }

    /// Directory of its modules, with modules.dep.
    pub(crate) fn modules(&self) -> Result<PathBuf> {
        only_entry(&self.directory.join("lib/modules"), "")
    }

    /// Its full version, such as `6.1.0-56-cloud-amd64`.
    pub(crate) fn release(&self) -> Result<String> {
        let modules = self.modules()?;
        Ok(modules.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }
}

/// Fetches the kernel unless it is there, and says so.
pub(crate) fn ensure(wanted: &Wanted) -> Result<()> {
    if let Ok(kernel) = Kernel::find(wanted.name) {
        found_line(&format!("kernel {} ({})", wanted.name, kernel.release()?));
        return Ok(());
    }
    installing_line(&format!("kernel {} ({} of {})", wanted.name, wanted.package, wanted.suite));
    fetch(wanted).with_context(|| format!("cannot fetch kernel {}", wanted.name))
}

fn fetch(wanted: &Wanted) -> Result<()> {
    let directory = workspace::set_up("kernels").join(wanted.name);
    if directory.exists() {
        std::fs::remove_dir_all(&directory).context("cannot remove what an earlier attempt left")?;
    }
    let packages = directory.join("packages");
    std::fs::create_dir_all(&packages)?;
    let apt = Apt::that_has(wanted.package, wanted.name, wanted.suite)?;
    apt.download(&apt.kernel_packages(wanted.package)?, &packages)?;
    for package in std::fs::read_dir(&packages)? {
        command::run(Command::new("dpkg").arg("-x").arg(package?.path()).arg(&directory))?;
    }
    // Releases with a merged /usr ship usr/lib/modules, which depmod -b does not look into.
    if directory.join("usr/lib/modules").is_dir() {
        std::fs::create_dir_all(directory.join("lib"))?;
        std::fs::rename(directory.join("usr/lib/modules"), directory.join("lib/modules"))?;
    }
    std::fs::remove_dir_all(&packages)?;
    let kernel = Kernel { name: wanted.name.to_owned(), directory };
    let depmod = crate::vm::find_program("depmod").context("depmod is missing (Debian package kmod)")?;
    command::output(Command::new(depmod).arg("-b").arg(&kernel.directory).arg(kernel.release()?))?;
    let image = kernel.image()?;
    anyhow::ensure!(image.is_file(), "the packages hold no {}", image.display());
    std::fs::write(kernel.directory.join("ready"), b"")?;
    Ok(())
}

fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut found = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let first = found.next().with_context(|| format!("nothing like {prefix}… in {}", directory.display()))?;
    Ok(first.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<&'static str> {
        parse_list(list).unwrap().into_iter().map(|wanted| wanted.name).collect()
    }

    #[test]
    fn a_list_of_kernels_keeps_the_order_of_the_matrix() {
        assert_eq!(names("6.12, 6.1"), ["6.1", "6.12"]);
        assert_eq!(names("all"), ["5.10", "6.1", "6.12", "7.2"]);
    }

    #[test]
    fn an_unknown_kernel_is_named() {
        let error = parse_list("6.1,6.13").unwrap_err().to_string();
        assert_eq!(error, "--kernels: no kernel \"6.13\"; known are 5.10, 6.1, 6.12, 7.2 and all");
    }
}
