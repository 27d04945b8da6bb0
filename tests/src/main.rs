//! PID 1 of the lab, and every other program of it: one static binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    portclash_lab::guest::main()
}
