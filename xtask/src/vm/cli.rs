//! `cargo xtask vm`: a command in the guest.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::{Cgroups, Guest, Kind, Line, boot};
use crate::build;
use crate::setup::kernels::Kernel;

/// Runs a command in a virtual machine that is set up as the lab's node.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Kernel to boot: 5.10, 6.1, 6.12 or 7.2
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// File to put into /root of the guest (may be given several times)
    #[arg(long, value_name = "FILE")]
    add: Vec<PathBuf>,
    /// Boot the node that runs containers, with cgroups of this version
    #[arg(long, value_name = "CGROUPS", num_args = 0..=1, default_missing_value = "v2", value_enum)]
    containers: Option<Cgroups>,
    /// Leave the portclash program out, so that it is not built
    #[arg(long)]
    without_portclash: bool,
    /// Seconds after which the machine is ended
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Boots, prints what the command prints, and ends with its status.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let kernel = Kernel::find(&arguments.kernel)?;
    let mut packages = vec!["portclash-tests"];
    if !arguments.without_portclash {
        packages.push("probe-user");
    }
    let binaries = build::static_binaries(&packages)?;
    let mut plan = vec!["run".to_owned()];
    plan.extend(arguments.command.iter().cloned());
    let guest = Guest {
        init: binaries.join("lab-init"),
        portclash: (!arguments.without_portclash).then(|| binaries.join("portclash")),
        files: arguments.add.clone(),
        programs: &[],
        kind: arguments.containers.map_or(Kind::Node, Kind::Containers),
        plan,
    };
    let status = boot(&kernel, &guest, Duration::from_secs(arguments.timeout), |line| {
        if let Line::Text(text) = line {
            println!("{text}");
        }
        Ok(())
    })?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(255)))
}
