//! `cargo xtask test`: everything that tells whether the project works.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::setup::kernels::{self, Kernel};
use crate::stages::{Tally, word};
use crate::vm::{Cgroups, Guest, Kind, Line, boot};
use crate::{build, command, image, setup, workspace};

/// Longest time for all scenarios of one boot; they take a third of it where nothing else runs.
const LAB_DEADLINE: Duration = Duration::from_mins(25);

/// Formatting, lints, documentation, dependencies, unit tests, and the lab on real kernels.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Kernels for the lab: a list such as 6.1,6.12, or all (5.10, 6.1, 6.12, 7.2)
    #[arg(long, default_value = "6.1,6.12")]
    kernels: String,
    /// Run only the lab's scenarios whose name contains this, and no other stage
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Leave the lab out
    #[arg(long, conflicts_with = "filter")]
    no_lab: bool,
}

/// Runs every stage, whatever fails; the last line is `N passed, M failed`.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let wanted = if arguments.no_lab { Vec::new() } else { kernels::parse_list(&arguments.kernels)? };
    let mut tally = Tally::default();
    tally.stage("set-up", || setup::everything(&wanted, arguments.filter.is_none()));
    if arguments.filter.is_none() {
        checks(&mut tally);
    }
    if !wanted.is_empty() {
        lab(&mut tally, &wanted, arguments.filter.as_deref().unwrap_or_default());
    }
    Ok(tally.finish())
}

fn checks(tally: &mut Tally) {
    let cargo = |arguments: &str| -> Result<()> {
        let mut cargo = workspace::cargo();
        cargo.args(arguments.split(' '));
        if arguments.starts_with("doc") {
            cargo.env("RUSTDOCFLAGS", "-D warnings");
        }
        command::run(&mut cargo)
    };
    tally.stage("formatting", || cargo("fmt --all --check"));
    tally.stage("lints", || cargo("clippy --quiet --workspace --all-targets --all-features -- -D warnings"));
    tally.stage("lints without features", || cargo("clippy --quiet -p probe-user -- -D warnings"));
    tally.stage("documentation", || cargo("doc --quiet --workspace --no-deps --all-features"));
    tally.stage("dependencies", || cargo("deny --log-level error check bans licenses sources"));
    tally.stage("unit tests", || cargo("test --quiet --workspace --all-features"));
}

fn lab(tally: &mut Tally, wanted: &[&'static kernels::Wanted], filter: &str) {
    let mut binaries = None;
    tally.stage("the lab's programs", || {
        binaries = Some(build::static_binaries(&["probe-user", "portclash-tests"])?);
        Ok(())
    });
    let Some(binaries) = binaries else { return };
    let mut played = 0;
    for wanted in wanted {
        for (kind, what, table) in KINDS {
            println!("== lab on kernel {}{what}", wanted.name);
            let boot = Boot { kernel: wanted.name, kind: *kind, what, table };
            match scenarios(tally, &boot, &binaries, filter) {
                Ok(count) => played += count,
                Err(error) => {
                    println!("{error:#}");
                    tally.count(&format!("lab {}{what}", wanted.name), false);
                }
            }
        }
    }
    if played == 0 {
        println!("no scenario has {filter:?} in its name");
        tally.count("lab", false);
    }
}

/// The guests that a kernel boots: what each is, how it is named, and which table of scenarios it plays.
const KINDS: &[(Kind, &str, &str)] = &[
    (Kind::Node, "", "node"),
    (Kind::Containers(Cgroups::V2), " cgroup2", "containers"),
    (Kind::Containers(Cgroups::V1), " cgroup1", "cgroup1"),
];

/// One boot of the lab.
struct Boot {
    kernel: &'static str,
    kind: Kind,
    what: &'static str,
    table: &'static str,
}

/// Where containers run, the image and the manifests that say how.
fn files(kind: Kind, binaries: &Path) -> Result<Vec<PathBuf>> {
    if kind == Kind::Node {
        return Ok(Vec::new());
    }
    let archive = image::of(&binaries.join("portclash"))?;
    let manifests = ["base/daemonset.yaml", "base/serve.toml", "one-shot/job.yaml"];
    let folder = workspace::root().join("deploy/kubernetes");
    Ok([archive].into_iter().chain(manifests.map(|name| folder.join(name))).collect())
}

/// Boots one kernel, prints and counts each scenario, and tells how many there were.
fn scenarios(tally: &mut Tally, lab: &Boot, binaries: &Path, filter: &str) -> Result<u32> {
    let kernel = format!("{}{}", lab.kernel, lab.what);
    let guest = Guest {
        init: binaries.join("lab-init"),
        portclash: Some(binaries.join("portclash")),
        files: files(lab.kind, binaries)?,
        programs: &[],
        kind: lab.kind,
        plan: ["test", lab.table, filter].map(str::to_owned).into(),
    };
    let (mut played, mut failed) = (0, 0);
    let status = boot(&Kernel::find(lab.kernel)?, &guest, LAB_DEADLINE, |line| {
        match line {
            Line::Result { name, passed, seconds } => {
                println!("lab {kernel:<5} {name} ... {} ({seconds} s)", word(*passed));
                tally.count(&format!("lab {kernel} {name}"), *passed);
                played += 1;
                failed += u32::from(!*passed);
            }
            Line::Text(text) => println!("    {text}"),
            Line::End(_) => {}
        }
        Ok(())
    })?;
    if status != 0 && failed == 0 {
        bail!("the guest ended with status {status}");
    }
    Ok(played)
}
