//! Command line: one file per subcommand, with its arguments, wiring and exit status.

mod analyze;
mod check;
mod completions;
mod doctor;
mod full_screen;
mod named_owners;
mod output;
mod packet_files;
mod pod_sources;
mod pods;
mod ports;
mod progress;
mod remote;
mod serve;
mod serve_config;
mod serve_plan;
mod serve_start;
mod stop;
mod trace;
mod values;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Exit statuses of the contract.
pub(crate) mod status {
    /// Nothing found.
    pub(crate) const NOTHING: u8 = 0;
    /// Found: a collision, an exposure.
    pub(crate) const FOUND: u8 = 1;
    /// Could not do it.
    pub(crate) const FAILED: u8 = 2;
    /// Done, but the evidence is incomplete.
    pub(crate) const INCOMPLETE: u8 = 3;
}

/// Finds TCP connects of a Kubernetes node that die because their source port is an IPVS service port.
#[derive(Debug, Parser)]
#[command(name = "portclash", version, max_term_width = 100, propagate_version = true)]
#[command(
    after_help = "Exit status: 0 nothing found, 1 found, 2 could not do it, 3 done, but the evidence is incomplete."
)]
struct Cli {
    #[command(flatten)]
    common: output::Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Trace(trace::Args),
    Analyze(analyze::Args),
    Ports(ports::Args),
    Serve(Box<serve::Args>),
    Pods(pods::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
    /// Print the manual page
    Man,
}

/// Runs the command that the process arguments ask for.
pub fn run() -> ExitCode {
    let (cli, configured) = match serve_config::from_process() {
        Ok(both) => both,
        Err(serve_config::ConfigError::CommandLine(error)) => error.exit(),
        Err(error) => {
            output::complain(&format!("portclash: {error}"));
            return ExitCode::from(status::FAILED);
        }
    };
    start_log(cli.common.verbose);
    if cli.common.output == output::Format::Html && !matches!(cli.command, Command::Analyze(_)) {
        output::complain(
            "portclash: -o html is for `portclash analyze` only; this command has text and json",
        );
        return ExitCode::from(status::FAILED);
    }
    let result = match cli.command {
        Command::Check(args) => check::run(&args, &cli.common),
        Command::Trace(args) => trace::run(&args, &cli.common),
        Command::Analyze(args) => analyze::run(&args, &cli.common),
        Command::Ports(args) => ports::run(&args, &cli.common),
        // Its options come from a file and the environment as well.
        Command::Serve(_) => serve::run(configured, &cli.common),
        Command::Pods(args) => pods::run(&args, &cli.common),
        Command::Doctor(args) => doctor::run(&args, &cli.common),
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
        Command::Man => completions::man(Cli::command()),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        // Whoever reads our output has had enough: no error.
        Err(error) if is_closed_pipe(&error) => ExitCode::from(status::NOTHING),
        Err(error) => {
            output::complain(&format!("portclash: {}", message(&error)));
            ExitCode::from(status::FAILED)
        }
    }
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "warn,probe_user=debug,portclash_bpf=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("PORTCLASH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colour = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log_output);
    log.with_ansi(colour).without_time().init();
}

fn log_output() -> Box<dyn io::Write> {
    if full_screen::is_taken() { Box::new(io::sink()) } else { Box::new(io::stderr()) }
}

/// The error and its causes, except those whose words its own message already holds.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

/// Whether nobody reads standard output any more. Another pipe or connection that broke is an error like any other.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<&str>() == Some(&output::WRITE)
        && error.chain().any(|cause| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_that_the_message_names_is_not_said_twice() {
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        let text = missing.to_string();
        let named = anyhow::Error::new(missing).context(format!("read services from x: {text}"));
        assert_eq!(message(&named), "read services from x: No such file or directory (os error 2)");
        let full = Err::<(), _>(io::Error::from_raw_os_error(libc::ENOSPC)).context("write").unwrap_err();
        assert_eq!(message(&full), "write: No space left on device (os error 28)");
    }

    #[test]
    fn only_standard_output_may_be_closed() {
        let broken = || Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_closed_pipe(&broken().context(output::WRITE).unwrap_err()));
        assert!(!is_closed_pipe(&broken().context("start the thread of the HTTP server").unwrap_err()));
        assert!(!is_closed_pipe(&broken().context("wait for events").context("trace").unwrap_err()));
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert!(!is_closed_pipe(&Err::<(), _>(full).context(output::WRITE).unwrap_err()));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
