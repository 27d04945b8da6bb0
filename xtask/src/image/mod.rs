//! `cargo xtask image`: an OCI image from nothing but the static program, without a daemon and without a base image.

mod layout;
mod licences;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::{build, command, setup, workspace};
use layout::{File, Image, Written};

/// Where the program is in the image.
const PROGRAM: &str = "usr/bin/portclash";
/// Where notices are.
const DOCUMENTS: &str = "usr/share/doc/portclash";
const PROGRAM_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// Write the container image: an OCI archive with the static program, the same bytes wherever it is built.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Name and tag of the image
    #[arg(long, value_name = "NAME:TAG", default_value_t = reference())]
    name: String,
    /// File to write [default: target/image/portclash-VERSION.tar]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Builds, writes, and says how to load what was written.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::everything(&[], false)?;
    // With the lab's program, as everywhere: cargo unifies the features of what is built together, and so this is the very
    // program that the lab tests.
    let program = build::static_binaries(&["probe-user", "portclash-tests"])?.join("portclash");
    let output = arguments.output.clone().unwrap_or_else(archive_path);
    let written = write(&program, &arguments.name, &output)?;
    let path = output.display();
    let name = &arguments.name;
    println!("image    {name}");
    println!("digest   {}", written.digest);
    println!("id       {}", written.id);
    println!("archive  {path} ({} bytes, sha256:{})", written.size, written.archive_sha256);
    println!("program  {} bytes, sha256:{}", written.program_size, written.program_sha256);
    println!("\nTo load it:");
    println!("  ctr -n k8s.io images import {path}");
    println!("  docker load -i {path}");
    println!("  podman load -i {path}");
    println!("  skopeo copy oci-archive:{path} docker://REGISTRY/portclash:{}", tag(name)?);
    Ok(ExitCode::SUCCESS)
}

/// Where the archive goes unless told otherwise.
pub(crate) fn archive_path() -> PathBuf {
    workspace::set_up("image").join(format!("portclash-{}.tar", env!("CARGO_PKG_VERSION")))
}

/// The usual name of the image. `deploy/kubernetes` names it as well; a test compares them.
pub(crate) fn reference() -> String {
    format!("localhost/portclash:{}", env!("CARGO_PKG_VERSION"))
}

/// Writes the image of a static `program` under its usual name for the lab, and returns the archive's path.
pub(crate) fn of(program: &Path) -> Result<PathBuf> {
    let path = workspace::set_up("lab").join("portclash.tar");
    write(program, &reference(), &path)?;
    Ok(path)
}

fn write(program: &Path, name: &str, output: &Path) -> Result<Written> {
    let folder = output.parent().context("the output has no folder")?;
    std::fs::create_dir_all(folder)?;
    let program = stripped(program, folder)?;
    let source = Source::read();
    let image = Image {
        name,
        tag: tag(name)?,
        created: source.time,
        labels: labels(&source),
        entrypoint: format!("/{PROGRAM}"),
        files: files(program)?,
    };
    let archive = image.archive()?;
    std::fs::write(output, &archive.bytes).with_context(|| format!("cannot write {}", output.display()))?;
    Ok(archive.written)
}

/// The tag in `NAME:TAG`; the port of a registry is none.
fn tag(name: &str) -> Result<&str> {
    let tag = name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.is_empty() && !tag.contains('/'));
    tag.with_context(|| format!("{name} has no tag; write it like localhost/portclash:1"))
}

/// The program without symbols, debug information and the linker's id, which depend on where it was built. What
/// remains must not.
fn stripped(program: &Path, folder: &Path) -> Result<Vec<u8>> {
    let to = folder.join("portclash");
    // binutils are there: the program was linked with them.
    let mut strip = Command::new("strip");
    strip.args(["--strip-all", "--remove-section=.note.gnu.build-id", "--remove-section=.comment", "-o"]);
    command::run(strip.arg(&to).arg(program)).context("cannot strip the program")?;
    let bytes = std::fs::read(&to)?;
    for place in [workspace::root(), workspace::build_directory()?, build::cargo_home()] {
        let text = place.display().to_string();
        let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
        ensure!(!found, "the program names {text}, a folder of this machine: it would differ on others");
    }
    Ok(bytes)
}

fn files(program: Vec<u8>) -> Result<Vec<File>> {
    let root = workspace::root();
    let text = |name: &str| {
        let path = root.join(name);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let file = |path: String, content: Vec<u8>| File { path, mode: FILE_MODE, content };
    Ok(vec![
        File { path: PROGRAM.to_owned(), mode: PROGRAM_MODE, content: program },
        // For whatever looks up who runs it.
        file("etc/passwd".to_owned(), b"root:x:0:0:root:/:/usr/bin/portclash\n".to_vec()),
        file("etc/group".to_owned(), b"root:x:0:\n".to_vec()),
        file(format!("{DOCUMENTS}/LICENSE-APACHE"), text("LICENSE-APACHE")?),
        file(format!("{DOCUMENTS}/LICENSE-MIT"), text("LICENSE-MIT")?),
        file(format!("{DOCUMENTS}/THIRD-PARTY"), licences::collect()?.into_bytes()),
    ])
}

/// What the image is made from.
struct Source {
    /// Seconds since 1970: `SOURCE_DATE_EPOCH`, else the commit's time, else 0.
    time: u64,
    /// The commit, marked if files differ from it.
    revision: Option<String>,
}

impl Source {
    fn read() -> Self {
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.current_dir(workspace::root()).args(arguments);
            command::output(&mut git).ok().map(|text| text.trim().to_owned())
        };
        let given = std::env::var("SOURCE_DATE_EPOCH").ok();
        let time = given.or_else(|| git(&["log", "-1", "--format=%ct"])).and_then(|text| text.parse().ok());
        let revision = git(&["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]);
        Self { time: time.unwrap_or(0), revision }
    }
}

/// Pre-defined keys of the image specification (annotations.md).
fn labels(source: &Source) -> BTreeMap<&'static str, String> {
    let mut labels = BTreeMap::from([
        ("org.opencontainers.image.title", "portclash".to_owned()),
        (
            "org.opencontainers.image.description",
            "Finds TCP connections that die because their source port is an IPVS service port".to_owned(),
        ),
        ("org.opencontainers.image.licenses", "MIT OR Apache-2.0".to_owned()),
        ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    if let Some(revision) = &source.revision {
        labels.insert("org.opencontainers.image.revision", revision.clone());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever builds and applies without changing anything gets pods that find their image.
    #[test]
    fn the_manifests_name_this_image() {
        for manifest in ["base/daemonset.yaml", "one-shot/job.yaml"] {
            let path = workspace::root().join("deploy/kubernetes").join(manifest);
            let text = std::fs::read_to_string(path).unwrap();
            let named: Vec<&str> =
                text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
            assert_eq!(named, [reference()], "{manifest}");
        }
    }

    #[test]
    fn a_registrys_port_is_no_tag() {
        assert_eq!(tag("localhost/portclash:0.1").unwrap(), "0.1");
        assert_eq!(tag("registry.example:5000/portclash:2").unwrap(), "2");
        for wrong in ["portclash", "registry.example:5000/portclash", "portclash:"] {
            assert!(tag(wrong).is_err(), "{wrong}");
        }
    }
}
