//! Developer commands. `cargo xtask --help` lists them.

mod bench;
mod build;
mod command;
mod demo;
mod image;
mod initramfs;
mod modules;
mod record;
mod reliability;
mod setup;
mod stages;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, demo, tests and virtual machines",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what the build and the virtual machines need
    Setup(setup::Arguments),
    /// Run every check, every test and the lab's scenarios
    Test(test::Arguments),
    /// Play the incident in a virtual machine and show what portclash says about it
    Demo(demo::Arguments),
    /// Write the container image: an OCI archive with the static program
    Image(image::Arguments),
    /// Measure what tracing costs
    Bench(bench::Arguments),
    /// Let the sidecar run for long, under overload, and while things around it break
    Reliability(reliability::Arguments),
    /// Record the incident in a virtual machine: captures for the tests of what reads them
    Record(record::Arguments),
    /// Run a command in a virtual machine that is set up as the lab's node
    Vm(vm::cli::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup(arguments) => setup::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Image(arguments) => image::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Reliability(arguments) => reliability::run(&arguments),
        Task::Record(arguments) => record::run(&arguments),
        Task::Vm(arguments) => vm::cli::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
