//! `portclash trace`: live, for a while.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::output::{Common, Format, WRITE, complain, width};
use super::packet_files::{PacketArgs, PacketFiles};
use super::pod_sources::PodSourceArgs;
use super::remote::Remote;
use super::status;
use super::stop::Stop;
use crate::diagnosis::incident::{Incident, Summary, Verdict};
use crate::diagnosis::{Diagnosis, Settings, Update};
use crate::kernel::ladder::Hooks;
use crate::node::netns::NetnsSpec;
use crate::observation::{Fact, Observation};
use crate::pods::session::Session as Names;
use crate::report::{json, text};
use crate::sources::kubelet_log::{KubeletLog, KubeletLogSource, node_root};
use crate::sources::live::{Live, LiveOptions};

/// Trace connects live: one line when a connect from a service port begins, the verdict when it is clear
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Stop after this time, such as 30s, 10m, 2h; without it, trace until ^C
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Stop after this many incidents
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Only connects of this process
    #[arg(long)]
    pid: Option<u32>,
    /// Only connects of processes with this name (the kernel's, 15 bytes)
    #[arg(long, value_name = "NAME")]
    comm: Option<String>,
    /// Only connects from this source port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only connects to this address, or address:port ([address]:port for IPv6)
    #[arg(long, value_name = "ADDR[:PORT]")]
    remote: Option<Remote>,
    /// Which kernel hooks to use; `portclash doctor` says what this kernel allows
    #[arg(long, value_enum, default_value_t)]
    hooks: Hooks,
    /// Take the service table from a file instead of the node: `ipvsadm -Ln`, `ipvsadm -Sn`, /proc/net/ip_vs
    #[arg(long, value_name = "FILE")]
    ipvs: Option<PathBuf>,
    /// Read the service table this often; where kprobes work, changes are noticed at once, and polling is ten times rarer
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    poll: Duration,
    /// Kubelet's log, to name the probe that failed: journal, journal:UNIT, a file, a directory of container logs, or none;
    /// auto takes the first that this node has
    #[arg(long, value_name = "auto|journal[:UNIT]|PATH|none", default_value = "auto")]
    kubelet_log: KubeletLog,
    /// Network namespace to trace, by path or by the pid of a process in it [default: that of pid 1]
    #[arg(long, value_name = "PATH|PID", default_value = "1", hide_default_value = true)]
    netns: NetnsSpec,
    #[command(flatten)]
    packets: PacketArgs,
    #[command(flatten)]
    sources: PodSourceArgs,
}

const EXAMPLES: &str = "\
Examples:
  portclash trace                                 until ^C, on the node or in a pod with hostPID and hostNetwork
  portclash trace --duration 10m                  for ten minutes, then the summary
  portclash trace --count 1 -o json               wait for the next incident, as JSON
  portclash trace --comm kubelet --remote 10.23.77.138:80
  portclash trace --pods file:pods.json           names from `kubectl get pods,svc -A -o json`
  portclash trace --netns /run/netns/blue         IPVS in another network namespace
  portclash trace --write hit.pcapng --write-size 10M --write-files 5
                                                  packets of what collides, for Wireshark: the last 5 files of 10 MiB

Needs root, or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_PTRACE.
Exit status: 0 nothing found, 1 a collision or used-up ports found, 2 could not trace, 3 nothing found, but the
evidence is incomplete.";

/// `30`, `30s`, `10m`, `2h`, `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let wrong = || format!("\"{text}\" is not a time; write it like 500ms, 30s, 10m or 2h");
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let milliseconds = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(milliseconds) {
        Some(0) | None => Err(wrong()),
        Some(total) => Ok(Duration::from_millis(total)),
    }
}

impl Args {
    /// Whether not every incident is asked for. The summary then counts what was.
    const fn filters(&self) -> bool {
        self.pid.is_some() || self.comm.is_some() || self.port.is_some() || self.remote.is_some()
    }

    /// Whether an incident is one of those that were asked for.
    fn wants(&self, incident: &Incident) -> bool {
        let local = incident.connection.local.as_deref().and_then(|text| text.parse::<SocketAddr>().ok());
        let remote = incident.connection.remote.as_deref().and_then(|text| text.parse::<SocketAddr>().ok());
        let owner = &incident.owner;
        self.pid.is_none_or(|pid| owner.pid == Some(pid))
            && self.comm.as_ref().is_none_or(|comm| owner.comm.as_ref() == Some(comm))
            && self.port.is_none_or(|port| local.is_some_and(|local| local.port() == port))
            && self.remote.is_none_or(|wanted| remote.is_some_and(|remote| wanted.is(remote)))
    }
}

/// Runs the command; the result is the exit status.
pub(super) fn run(args: &Args, common: &Common) -> Result<u8> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(trace(args, common))
}

/// Level of the BPF programs' own lines, as aya-log numbers them (4 = debug); they are for -vv and more.
pub(super) const fn kernel_log_level(verbose: u8) -> u8 {
    match verbose {
        0 | 1 => 0,
        2 => 4,
        _ => 5,
    }
}

async fn trace(args: &Args, common: &Common) -> Result<u8> {
    let mut stop = Stop::install().context("handle SIGINT and SIGTERM")?;
    let options = LiveOptions {
        netns: args.netns.clone(),
        ipvs: args.ipvs.clone(),
        poll: args.poll,
        hooks: args.hooks,
        log_level: kernel_log_level(common.verbose),
        packets: args.packets.wanted(),
    };
    let packets = args.packets.create()?;
    let mut log = KubeletLogSource::start(&args.kubelet_log, &node_root()).await?;
    let mut live = Live::start(&options)?;
    complain(&live.opening());
    let names = args.sources.start(live.netns(), live.clock().now(), false)?;
    names.notes().iter().for_each(|note| complain(&format!("portclash: {}: {note}", args.sources.pods)));
    let mut session = Session::new(args, common, names, packets);
    if let Some(log) = &log {
        complain(&format!("kubelet log: {}", log.name()));
        session.wait_for_log();
    } else if args.kubelet_log == KubeletLog::Auto {
        complain(
            "kubelet log: none found, so no probe is named by it; give its file or unit with --kubelet-log",
        );
    }
    session.diagnosis.set_node(live.node_facts());
    let end = args.duration.map(|duration| Instant::now() + duration);
    while !session.enough() {
        let now = live.clock().now();
        let due = session.diagnosis.next_deadline().map(|at| Instant::now() + until(at, now));
        let wake = [end, due].into_iter().flatten().min();
        let observations = tokio::select! {
            observations = live.next(wake) => observations?,
            update = session.names.next() => {
                session.names.take(update, now);
                continue;
            }
            observations = next_lines(log.as_mut()) => observations,
            () = stop.requested() => break,
        };
        session.take(&mut live, observations)?;
        session.note_trouble(log.as_mut());
        if end.is_some_and(|end| end <= Instant::now()) {
            break;
        }
    }
    if !session.enough() {
        // Whatever ended the trace, what happened before it counts.
        let mut remaining = live.remaining();
        remaining.extend(log.as_mut().map(KubeletLogSource::remaining).unwrap_or_default());
        session.take(&mut live, remaining)?;
    }
    session.note_trouble(log.as_mut());
    session.finish(&live, log.as_ref())
}

/// Lines of the kubelet's log, as soon as there are any.
async fn next_lines(log: Option<&mut KubeletLogSource>) -> Vec<Observation> {
    match log {
        Some(log) => log.next().await,
        None => std::future::pending().await,
    }
}

fn until(at: i64, now: i64) -> Duration {
    Duration::from_nanos(u64::try_from(at.saturating_sub(now)).unwrap_or(0))
}

/// Diagnosis, output and counts of one run.
struct Session<'a> {
    args: &'a Args,
    format: Format,
    style: text::TextStyle,
    diagnosis: Diagnosis,
    names: Names,
    packets: PacketFiles,
    /// Incidents shown, false alarms not counted.
    shown: u64,
    /// Concluded connections that were asked for, per verdict.
    verdicts: BTreeMap<Verdict, u64>,
    /// Ids whose verdict was printed while the connection was still open.
    explained: std::collections::HashSet<String>,
    /// What went wrong with the kubelet's log.
    trouble: Vec<String>,
}

/// How long a connection that ended is kept for the kubelet's line about it: the kubelet logs at once, and the line then
/// goes through the journal or is polled for in a file.
const LOG_WAIT_NS: i64 = 2_000_000_000;

impl<'a> Session<'a> {
    fn new(args: &'a Args, common: &Common, names: Names, packets: PacketFiles) -> Self {
        Self {
            args,
            format: common.output,
            style: text::TextStyle { colour: common.colour(), width: width() },
            diagnosis: Diagnosis::new(Settings::default()),
            names,
            packets,
            shown: 0,
            verdicts: BTreeMap::new(),
            explained: std::collections::HashSet::new(),
            trouble: Vec::new(),
        }
    }

    /// Before the first observation: incidents wait for their log line.
    fn wait_for_log(&mut self) {
        self.diagnosis = Diagnosis::new(Settings { log_wait_ns: LOG_WAIT_NS, ..Settings::default() });
    }

    fn note_trouble(&mut self, log: Option<&mut KubeletLogSource>) {
        for trouble in log.map(KubeletLogSource::take_trouble).unwrap_or_default() {
            complain(&trouble);
            self.trouble.push(trouble);
        }
    }

    fn enough(&self) -> bool {
        self.args.count.is_some_and(|count| self.shown >= count)
    }

    fn take(&mut self, live: &mut Live, mut observations: Vec<Observation>) -> Result<()> {
        let mut updates = Vec::new();
        self.names.add_targets(&mut observations, live.clock().now());
        let table_changed = observations.iter().any(|seen| matches!(seen.fact, Fact::Services { .. }));
        if table_changed {
            self.diagnosis.set_node(live.node_facts());
        }
        for observation in observations {
            updates.extend(self.diagnosis.observe(observation));
        }
        for row in live.missing_proof(&self.diagnosis.open_connections()) {
            updates.extend(self.diagnosis.observe(row));
        }
        updates.extend(self.diagnosis.advance(live.clock().now()));
        self.packets.take(live);
        self.show(updates, live).context(WRITE)
    }

    fn show(&mut self, mut updates: Vec<Update>, live: &Live) -> io::Result<()> {
        if !updates.is_empty() {
            self.names.take_waiting(live.clock().now());
        }
        for update in &mut updates {
            let (Update::Began(incident) | Update::Clear(incident) | Update::Concluded(incident)) = update;
            self.names.name(incident, live.netns());
        }
        let mut out = io::stdout().lock();
        for update in updates {
            if self.enough() {
                break;
            }
            let (Update::Began(incident) | Update::Clear(incident) | Update::Concluded(incident)) = &update;
            if !self.args.wants(incident) {
                self.packets.unwanted(incident);
                continue;
            }
            match &update {
                Update::Began(_) => {}
                Update::Clear(incident) => self.packets.clear(incident),
                Update::Concluded(incident) => self.packets.concluded(incident),
            }
            match self.format {
                Format::Text | Format::Html => self.show_text(&mut out, &update)?,
                Format::Json => {
                    if let Update::Concluded(incident) = &update {
                        json::write_incident(&mut out, incident)?;
                    }
                }
            }
            if let Update::Concluded(incident) = &update {
                self.shown += u64::from(incident.verdict != Verdict::None);
                *self.verdicts.entry(incident.verdict).or_default() += 1;
            }
        }
        out.flush()
    }

    fn show_text(&mut self, out: &mut impl Write, update: &Update) -> io::Result<()> {
        let style = self.style;
        match update {
            Update::Began(incident) => out.write_all(text::began_line(incident, style).as_bytes()),
            Update::Clear(incident) => {
                self.explained.insert(incident.id.clone());
                out.write_all(text::verdict_block(incident, style).as_bytes())
            }
            Update::Concluded(incident) if self.explained.remove(&incident.id) => {
                out.write_all(text::concluded_line(incident, style).as_bytes())
            }
            Update::Concluded(incident) => out.write_all(text::verdict_block(incident, style).as_bytes()),
        }
    }

    fn write_summary(&self, summary: &Summary) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Text | Format::Html => {
                out.write_all(text::summary_block(summary, self.style).as_bytes())?;
            }
            Format::Json => json::write_summary(&mut out, summary)?,
        }
        out.flush()
    }

    /// What only the log can tell.
    fn add_log(&self, summary: &mut Summary, log: &KubeletLogSource) {
        summary.probe_failures_elsewhere = Some(self.diagnosis.probe_failures_elsewhere());
        summary.probe_failures_ambiguous = Some(self.diagnosis.probe_failures_ambiguous());
        summary.incomplete.extend(self.trouble.iter().cloned());
        if log.lost() > 0 {
            let lost = log.lost();
            summary.lost.entry("kubelet log".to_owned()).or_default().insert("lines".to_owned(), lost);
            summary.incomplete.push(format!("kubelet log: {lost} lines lost"));
        }
    }

    fn finish(mut self, live: &Live, log: Option<&KubeletLogSource>) -> Result<u8> {
        let updates = self.diagnosis.finish(live.clock().now());
        self.show(updates, live).context(WRITE)?;
        let mut summary = live.summary(&self.diagnosis)?;
        if self.args.filters() || self.args.count.is_some() {
            summary.verdicts.clone_from(&self.verdicts);
        }
        if let Some(log) = log {
            self.add_log(&mut summary, log);
        }
        let all = !self.enough();
        self.packets.finish(live, all, &mut summary)?;
        self.write_summary(&summary).context(WRITE)?;
        Ok(match (self.shown, summary.incomplete.is_empty()) {
            (1.., _) => status::FOUND,
            (0, true) => status::NOTHING,
            (0, false) => status::INCOMPLETE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_unit() {
        assert_eq!(duration("30").unwrap(), Duration::from_secs(30));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("2h").unwrap(), Duration::from_hours(2));
        for wrong in ["", "0", "s", "1d", "-1s", "18446744073709551615h", "1 s"] {
            assert!(duration(wrong).unwrap_err().contains("30s"), "{wrong}");
        }
    }
}
