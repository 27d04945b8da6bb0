//! `cargo xtask demo`: the seed's incident, live, on a real kernel with real IPVS.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::setup::kernels::{self, Kernel};
use crate::vm::{Guest, Kind, Line, boot};
use crate::{build, setup};

const KERNEL: &str = "6.1";
const DEADLINE: Duration = Duration::from_mins(2);

const WHAT_NEXT: &str = "
To look further:
  cargo xtask vm -- portclash doctor     what this kernel allows, and which hook serves each need
  cargo xtask vm -- portclash trace --help
  cargo xtask test                       every scenario of the lab on kernels 6.1 and 6.12
  docs/mechanism.md                      why this happens, packet by packet
On a node of your own: build with `cargo build --release`, copy target/release/portclash there and run
`portclash trace` as root while the probes fail.";

/// Play the incident in a virtual machine and show what portclash says about it.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Sets up, builds, boots, plays.
pub(crate) fn run(_arguments: &Arguments) -> Result<ExitCode> {
    setup::everything(&kernels::parse_list(KERNEL)?, false)?;
    let binaries = build::static_binaries(&["probe-user", "portclash-tests"])?;
    let guest = Guest {
        init: binaries.join("lab-init"),
        portclash: Some(binaries.join("portclash")),
        files: Vec::new(),
        programs: &[],
        kind: Kind::Node,
        plan: vec!["demo".to_owned()],
    };
    println!("booting Linux {KERNEL} with a node, two pods and IPVS");
    let status = boot(&Kernel::find(KERNEL)?, &guest, DEADLINE, |line| {
        if let Line::Text(text) = line {
            println!("{text}");
        }
        Ok(())
    })?;
    if status == 0 {
        println!("{WHAT_NEXT}");
    }
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(255)))
}
