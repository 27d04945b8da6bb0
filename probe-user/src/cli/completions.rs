//! `portclash completions SHELL` and `portclash man`, both from the command line's own definition.

use std::io;

use anyhow::Context;
use clap_complete::Shell;

use super::output::WRITE;
use super::status;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  portclash completions bash > /etc/bash_completion.d/portclash")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args, command: &mut clap::Command) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "portclash", &mut script);
    io::Write::write_all(&mut io::stdout(), &script).context(WRITE)?;
    Ok(status::NOTHING)
}

pub(super) fn man(command: clap::Command) -> anyhow::Result<u8> {
    clap_mangen::Man::new(command).render(&mut io::stdout()).context(WRITE)?;
    Ok(status::NOTHING)
}
