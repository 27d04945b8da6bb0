//! Debian's packages: what is installed, what is missing, and other releases through a private configuration that
//! leaves the system's own alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::{command, workspace};

/// apt, with the system's lists or with private ones.
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// apt as the system has it.
    pub(crate) fn system() -> Self {
        Self { options: Vec::new() }
    }

    /// An apt whose `package` has a version that begins with `version`: the system's, else one for `suite`.
    pub(crate) fn that_has(package: &str, version: &str, suite: &str) -> Result<Self> {
        let system = Self::system();
        if system.candidate(package).is_some_and(|candidate| is_of(&candidate, version)) {
            return Ok(system);
        }
        let private = Self::private(suite)?;
        match private.candidate(package) {
            Some(candidate) if is_of(&candidate, version) => Ok(private),
            Some(candidate) => bail!("{package} of {suite} is at {candidate}, not at {version}"),
            None => bail!("{suite} has no {package}"),
        }
    }

    fn private(suite: &str) -> Result<Self> {
        let directory = workspace::set_up("apt").join(suite);
        for part in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(directory.join(part))?;
        }
        let sources = directory.join("sources.list");
        std::fs::write(&sources, sources_for(suite, &system_mirror()))?;
        let option = |name: &str, path: PathBuf| format!("{name}={}", path.display());
        let options = vec![
            option("Dir::State::Lists", directory.join("lists")),
            option("Dir::Cache", directory.join("cache")),
            option("Dir::Etc::SourceList", sources),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ];
        let apt = Self { options };
        apt.update()?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        // Messages are read by this program.
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    /// Fetches the lists of packages.
    pub(crate) fn update(&self) -> Result<()> {
        command::output(self.command("apt-get").arg("update")).map(drop)
    }

    /// Version that would be installed.
    pub(crate) fn candidate(&self, package: &str) -> Option<String> {
        let policy = command::output(self.command("apt-cache").args(["policy", package])).ok()?;
        let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
        (candidate != "(none)").then(|| candidate.to_owned())
    }

    /// The packages that hold a kernel and its modules: `package` itself depends on them, directly or not.
    pub(crate) fn kernel_packages(&self, package: &str) -> Result<Vec<String>> {
        let mut packages = Vec::new();
        let mut waiting = vec![package.to_owned()];
        while let Some(next) = waiting.pop() {
            let depends =
                command::output(self.command("apt-cache").args(["depends", "--no-recommends", &next]))?;
            for name in depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")) {
                let kernel = ["linux-image-", "linux-binary-", "linux-modules-"];
                if kernel.iter().any(|prefix| name.starts_with(prefix)) && !packages.iter().any(|p| p == name)
                {
                    packages.push(name.to_owned());
                    waiting.push(name.to_owned());
                }
            }
        }
        if packages.is_empty() {
            bail!("{package} depends on no kernel");
        }
        Ok(packages)
    }

    /// Downloads packages into a directory.
    pub(crate) fn download(&self, packages: &[String], directory: &Path) -> Result<()> {
        let mut download = self.command("apt-get");
        // apt gives up root for downloads and could then not write into a private directory.
        download.args(["-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(directory);
        command::output(&mut download).map(drop)
    }
}

fn is_of(candidate: &str, version: &str) -> bool {
    candidate.strip_prefix(version).is_some_and(|rest| rest.starts_with('.'))
}

/// The Debian mirror that the system uses.
fn system_mirror() -> String {
    let mut texts = vec![std::fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    let parts = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    texts.extend(parts.filter_map(|part| std::fs::read_to_string(part.path()).ok()));
    texts.iter().find_map(|text| mirror_in(text)).unwrap_or_else(|| "http://deb.debian.org/debian".to_owned())
}

/// First address of a Debian archive in a list of sources, one-line or deb822.
fn mirror_in(text: &str) -> Option<String> {
    let lines =
        text.lines().map(str::trim).filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    let mut words = lines.flat_map(str::split_whitespace);
    let archive = |word: &&str| word.contains("://") && word.trim_end_matches('/').ends_with("/debian");
    words.find(archive).map(|word| word.trim_end_matches('/').to_owned())
}

fn sources_for(suite: &str, mirror: &str) -> String {
    let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let mut sources = format!("deb {key} {mirror} {suite} main\n");
    if suite != "sid" {
        let _ = writeln!(sources, "deb {key} {mirror}-security {suite}-security main");
    }
    sources
}

/// True on Debian and what derives from it.
pub(crate) fn is_debian() -> bool {
    crate::vm::find_program("apt-get").is_some() && crate::vm::find_program("dpkg").is_some()
}

/// True if packages can be installed.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid only reads this process's credentials.
    unsafe { libc::geteuid() == 0 }
}

/// True if the system's releases have all of these packages, by fresh lists.
pub(crate) fn knows(packages: &[&str]) -> bool {
    let apt = Apt::system();
    // Whether a foreign source cannot be reached does not decide it.
    let _ = refresh_once(&apt);
    packages.iter().all(|package| apt.candidate(package).is_some())
}

/// Fetches the system's lists, once per run: old ones offer versions that do not fit together any more, or that the mirror
/// no longer has.
fn refresh_once(apt: &Apt) -> Result<()> {
    static REFRESHED: OnceLock<Result<(), String>> = OnceLock::new();
    let refreshed = REFRESHED.get_or_init(|| apt.update().map_err(|error| format!("{error:#}")));
    refreshed.clone().map_err(|error| anyhow!("fetch the lists of packages: {error}"))
}

/// Installs packages, or brings them to the version that the system's releases have now.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if !is_root() {
        bail!("not root: run `sudo apt-get install {}`, then this again", packages.join(" "));
    }
    let apt = Apt::system();
    if let Err(error) = refresh_once(&apt) {
        // A mirror that does not answer, or a foreign one: what is known may do.
        println!("note: {error:#}");
    }
    let mut install = apt.command("apt-get");
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages);
    command::output(&mut install).context("apt-get could not install").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_forms_of_sources() {
        let deb822 = "Types: deb\nURIs: http://deb.debian.org/debian-security\n\nTypes: deb\nURIs: http://mirror.example/debian/\n";
        assert_eq!(mirror_in(deb822).as_deref(), Some("http://mirror.example/debian"));
        let one_line = "# deb http://old.example/debian x main\ndeb [arch=amd64] https://m.example/debian bookworm main\n";
        assert_eq!(mirror_in(one_line).as_deref(), Some("https://m.example/debian"));
        assert_eq!(mirror_in("deb https://other.example/repo main\n"), None);
    }

    #[test]
    fn a_version_is_not_taken_for_a_longer_one() {
        assert!(is_of("6.1.192-2", "6.1"));
        assert!(!is_of("6.12.117-1", "6.1"));
    }
}
