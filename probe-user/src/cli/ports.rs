//! `portclash ports`: who uses up ephemeral ports.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event};

use super::full_screen::{self, FullScreen};
use super::named_owners::NamedOwners;
use super::output::{Common, Format, WRITE, complain, width};
use super::pod_sources::PodSourceArgs;
use super::status;
use super::stop::Stop;
use super::trace::kernel_log_level;
use super::values::duration;
use crate::kernel::ladder::Hooks;
use crate::node::netns::NetnsSpec;
use crate::ports::model::{Outlook, Report, Sort};
use crate::ports::watch::{Watch, WatchOptions};
use crate::report::ports_screen::{After, Screen};
use crate::report::text::TextStyle;
use crate::report::{self, json};

/// Show who uses up ephemeral ports: connects, ports in use and TIME-WAIT per process and destination
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Count for this time, such as 30s or 5m, then print one table; without it, a full-screen view on a terminal, else 10s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// What rows are sorted by
    #[arg(long, value_name = "KEY", value_enum, default_value_t)]
    sort: Sort,
    /// Which kernel hooks to use; `portclash doctor` says what this kernel allows
    #[arg(long, value_enum, default_value_t)]
    hooks: Hooks,
    /// Network namespace to watch, by path or by the pid of a process in it [default: that of pid 1]
    #[arg(long, value_name = "PATH|PID", default_value = "1", hide_default_value = true)]
    netns: NetnsSpec,
    /// Count connects in all other namespaces too; ports in use and TIME-WAIT are known for --netns only
    #[arg(long)]
    all_namespaces: bool,
    #[command(flatten)]
    sources: PodSourceArgs,
}

const EXAMPLES: &str = "\
Examples:
  portclash ports                              full-screen view; q quits, s sorts, / filters
  portclash ports --duration 1m                count for a minute, then one table
  portclash ports --duration 10s -o json | jq 'select(.time_wait > 100)'
  portclash ports --netns 4711                 the ports of the pod that process 4711 runs in
  portclash ports --sort used-up               first what runs out first
  portclash ports --pods file:pods.json        pods' names from `kubectl get pods -A -o json`

Connects are counted in the kernel, per process and destination; nothing is sent per connect.
Columns: CONN/S connects per second, T-WAIT sockets in TIME-WAIT caused, FULL IN time until no port is left towards the
destination, COLL/H connects per hour that will get a service's port, FAIL connects that failed with EADDRNOTAVAIL.
The pod of a process is a column where it has room (from 114 columns on), else on a line of its own below.
Needs root, or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_SYS_PTRACE.
Exit status: 0 no port is missing, 1 source ports are used up or running out, 2 could not count, 3 no port is missing,
but the evidence is incomplete.";

/// How often counts are read.
const PERIOD: Duration = Duration::from_secs(1);
/// Time of a table where none is given.
const DEFAULT: Duration = Duration::from_secs(10);
/// How soon a signal is noticed.
const ATTENTION: Duration = Duration::from_millis(100);

/// Runs the command; the result is the exit status.
pub(super) fn run(args: &Args, common: &Common) -> Result<u8> {
    let on_screen = args.duration.is_none()
        && common.output == Format::Text
        && io::stdout().is_terminal()
        && io::stdin().is_terminal();
    // A second signal leaves no terminal behind that shows nothing.
    let stop = Stop::install_with(full_screen::give_back).context("handle SIGINT and SIGTERM")?;
    let mut watch = Watch::start(&WatchOptions {
        netns: args.netns.clone(),
        all_namespaces: args.all_namespaces,
        hooks: args.hooks,
        log_level: kernel_log_level(common.verbose),
    })?;
    let report = if on_screen {
        on_terminal(args, common, &mut watch, &stop)
    } else {
        once(args, common, &mut watch, &stop)
    };
    Ok(status_of(&report?))
}

/// One table.
fn once(args: &Args, common: &Common, watch: &mut Watch, stop: &Stop) -> Result<Report> {
    let mut names = NamedOwners::start(&args.sources, watch.netns())?;
    let time = args.duration.unwrap_or(DEFAULT);
    let hint = if args.duration.is_none() { "; --duration TIME sets another time" } else { "" };
    complain(&format!(
        "counting: connects in {} for {:.1} s; ^C ends it sooner{hint}",
        watch.place(),
        time.as_secs_f64()
    ));
    names.notes().iter().for_each(|note| complain(note));
    count(watch, &mut names, time, stop)?;
    let report = names.report(watch, true, args.sort);
    write(&report, common).context(WRITE)?;
    Ok(report)
}

/// The full-screen view. What there is to say beside it is said after it.
fn on_terminal(args: &Args, common: &Common, watch: &mut Watch, stop: &Stop) -> Result<Report> {
    let mut full_screen = FullScreen::take().context("take over the terminal")?;
    let mut names = NamedOwners::start(&args.sources, watch.netns())?;
    let screen = Screen::new(args.sort, common.colour());
    let report = show(&mut full_screen, screen, watch, &mut names, stop);
    drop(full_screen);
    names.notes().iter().for_each(|note| complain(note));
    report
}

fn status_of(report: &Report) -> u8 {
    let short = |outlook| matches!(outlook, Outlook::UsedUp | Outlook::RunningOut);
    if report.summary.unavailable > 0 || report.rows.iter().any(|row| short(row.outlook)) {
        status::FOUND
    } else if report.summary.incomplete.is_empty() {
        status::NOTHING
    } else {
        status::INCOMPLETE
    }
}

/// Counts for a time, or until a signal.
fn count(watch: &mut Watch, names: &mut NamedOwners, time: Duration, stop: &Stop) -> Result<()> {
    let end = Instant::now() + time;
    let mut due = Instant::now() + PERIOD;
    while !stop.is_requested() && Instant::now() < end {
        let wake = due.min(end).min(Instant::now() + ATTENTION);
        thread::sleep(wake.saturating_duration_since(Instant::now()));
        if Instant::now() >= due {
            watch.tick()?;
            // A pod that is gone when the time is over has its name by then.
            names.name(watch);
            due = Instant::now() + PERIOD;
        }
    }
    Ok(watch.finish()?)
}

/// The full-screen view, until a key or a signal ends it.
fn show(
    full_screen: &mut FullScreen,
    mut screen: Screen,
    watch: &mut Watch,
    names: &mut NamedOwners,
    stop: &Stop,
) -> Result<Report> {
    let mut report = names.report(watch, false, screen.sort());
    let mut due = Instant::now() + PERIOD;
    let mut changed = true;
    while !stop.is_requested() {
        if changed {
            full_screen
                .terminal()
                .draw(|frame| screen.draw(frame, &report))
                .context("draw on the terminal")?;
        }
        let wait = due.saturating_duration_since(Instant::now()).min(ATTENTION);
        changed = event::poll(wait).context("wait for keys")?;
        if changed
            && let Event::Key(key) = event::read().context("read a key")?
            && screen.key(key) == After::Quit
        {
            break;
        }
        if Instant::now() >= due {
            watch.tick()?;
            names.name(watch);
            due = Instant::now() + PERIOD;
            if !screen.paused() {
                report = names.report(watch, false, screen.sort());
                changed = true;
            }
        }
    }
    Ok(report)
}

fn write(report: &Report, common: &Common) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match common.output {
        Format::Text | Format::Html => {
            let style = TextStyle { colour: common.colour(), width: width() };
            out.write_all(report::ports::page(report, style).as_bytes())?;
        }
        Format::Json => json::write_ports(&mut out, report)?,
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::samples;

    #[test]
    fn the_status_says_whether_ports_are_missing_and_then_whether_all_was_seen() {
        let mut report = samples::report();
        assert_eq!(status_of(&report), status::FOUND);
        report.rows.retain(|row| row.outlook == Outlook::Lasts);
        assert_eq!(status_of(&report), status::FOUND, "a connect failed");
        report.summary.unavailable = 0;
        assert_eq!(status_of(&report), status::NOTHING);
        report.summary.incomplete.push("ports: 1 lost (evicted)".into());
        assert_eq!(status_of(&report), status::INCOMPLETE);
        report.rows.push(samples::report().rows.remove(3));
        assert_eq!(status_of(&report), status::FOUND);
    }
}
