//! `portclash doctor`: what can be traced here, and what is missing.

use std::io::{self, Write};

use anyhow::{Context, Result};

use super::output::{Common, Format, WRITE, width};
use super::status;
use crate::doctor::{self, Doctor, Status, environment, trial};
use crate::kernel::ladder::Hooks;
use crate::node::netns::NetnsSpec;
use crate::report::{self, json, text};

/// Say what can be traced here, by which kernel hooks, what is missing and how to get it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which kernel hooks to try, as for `portclash trace`
    #[arg(long, value_enum, default_value_t)]
    hooks: Hooks,
    /// Network namespace to look at, by path or by the pid of a process in it [default: that of pid 1]
    #[arg(long, value_name = "PATH|PID", default_value = "1", hide_default_value = true)]
    netns: NetnsSpec,
}

const EXAMPLES: &str = "\
Examples:
  portclash doctor                     on the node, or in the pod that shall trace
  portclash doctor --hooks stable      what would be left without fentry and kprobes
  portclash doctor -o json | jq '.needs[] | select(.status != \"ok\")'

Loads and attaches every hook, makes two connects on loopback, and removes everything again.
Exit status: 0 everything can be traced, 2 nothing can be traced, 3 tracing works with less evidence.";

/// Runs the command; the result is the exit status.
pub(super) fn run(args: &Args, common: &Common) -> Result<u8> {
    let trial = trial::run(args.hooks);
    let doctor = doctor::judge(&environment::read(&args.netns), &trial);
    write(&doctor, common).context(WRITE)?;
    Ok(match doctor.status {
        Status::Ok => status::NOTHING,
        Status::Missing => status::FAILED,
        Status::Reduced => status::INCOMPLETE,
    })
}

fn write(doctor: &Doctor, common: &Common) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match common.output {
        Format::Text | Format::Html => {
            let style = text::TextStyle { colour: common.colour(), width: width() };
            out.write_all(report::doctor::page(doctor, style).as_bytes())?;
        }
        Format::Json => json::write_doctor(&mut out, doctor)?,
    }
    out.flush()
}
