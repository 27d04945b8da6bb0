//! The `portclash` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    probe_user::cli::run()
}
