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
use super::values::duration;
use crate::diagnosis::Update;
use crate::diagnosis::incident::{Incident, Summary, Verdict};
use crate::kernel::ladder::Hooks;
use crate::kernel::loader::Rings;
use crate::node::netns::NetnsSpec;
use crate::report::{json, text};
use crate::sources::kubelet_log::{KubeletLog, KubeletLogSource, node_root};
use crate::sources::live::{Live, LiveOptions};
use crate::trace::Trace;

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
    /// Only connects to this address, or address:port (`[address]:port` for IPv6)
    #[arg(long, value_name = "ADDR[:PORT]")]
    remote: Option<Remote>,
    /// Which kernel hooks to use; `portclash doctor` says what this kernel allows
    #[arg(long, value_enum, default_value_t)]
    hooks: Hooks,
    /// Take the service table from a file instead of the node: `ipvsadm -Ln`, `ipvsadm -Sn`, /proc/net/ip_vs
    #[arg(long, value_name = "FILE")]
    ipvs: Option<PathBuf>,
    /// Read the service table this often, less often if that takes over 1 % of a core; where kprobes work, changes are
    /// noticed at once, and polling is ten times rarer
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
        rings: Rings::default(),
    };
    let packets = args.packets.create()?;
    let log = KubeletLogSource::start(&args.kubelet_log, &node_root()).await?;
    let live = Live::start(&options)?;
    complain(&live.opening());
    let names = args.sources.start(live.netns(), live.clock().now(), false)?;
    names.notes().iter().for_each(|note| complain(&format!("portclash: {}: {note}", args.sources.pods)));
    say_which_log(log.as_ref(), &args.kubelet_log);
    let mut trace = Trace::new(live, log, names);
    let mut session = Session::new(args, common, packets);
    let end = args.duration.map(|duration| Instant::now() + duration);
    while !session.enough() {
        let updates = tokio::select! {
            updates = trace.next(end) => updates?,
            () = stop.requested() => break,
        };
        session.take(&mut trace, &updates)?;
        if end.is_some_and(|end| end <= Instant::now()) {
            break;
        }
    }
    if !session.enough() {
        // Whoever does not want to wait for proof sends a second signal.
        let updates = trace.remaining(Duration::MAX).await;
        session.take(&mut trace, &updates)?;
    }
    session.finish(&mut trace)
}

/// Which log of the kubelet is read.
pub(super) fn say_which_log(log: Option<&KubeletLogSource>, wanted: &KubeletLog) {
    if let Some(log) = log {
        complain(&format!("kubelet log: {}", log.name()));
    } else if *wanted == KubeletLog::Auto {
        complain(
            "kubelet log: none found, so no probe is named by it; give its file or unit with --kubelet-log",
        );
    }
}

/// Output and counts of one run.
struct Session<'a> {
    args: &'a Args,
    format: Format,
    style: text::TextStyle,
    packets: PacketFiles,
    /// Incidents shown, false alarms not counted.
    shown: u64,
    /// Concluded connections that were asked for, per verdict.
    verdicts: BTreeMap<Verdict, u64>,
    /// Ids whose verdict was printed while the connection was still open.
    explained: std::collections::HashSet<String>,
}

impl<'a> Session<'a> {
    fn new(args: &'a Args, common: &Common, packets: PacketFiles) -> Self {
        Self {
            args,
            format: common.output,
            style: text::TextStyle { colour: common.colour(), width: width() },
            packets,
            shown: 0,
            verdicts: BTreeMap::new(),
            explained: std::collections::HashSet::new(),
        }
    }

    fn enough(&self) -> bool {
        self.args.count.is_some_and(|count| self.shown >= count)
    }

    fn take(&mut self, trace: &mut Trace, updates: &[Update]) -> Result<()> {
        self.packets.take(trace.live_mut());
        self.show(updates).context(WRITE)?;
        trace.take_trouble().iter().for_each(|trouble| complain(trouble));
        Ok(())
    }

    fn show(&mut self, updates: &[Update]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for update in updates {
            if self.enough() {
                break;
            }
            let (Update::Began(incident) | Update::Clear(incident) | Update::Concluded(incident)) = update;
            if !self.args.wants(incident) {
                self.packets.unwanted(incident);
                continue;
            }
            match update {
                Update::Began(_) => {}
                Update::Clear(incident) => self.packets.clear(incident),
                Update::Concluded(incident) => self.packets.concluded(incident),
            }
            match self.format {
                Format::Text | Format::Html => self.show_text(&mut out, update)?,
                Format::Json => {
                    if let Update::Concluded(incident) = update {
                        json::write_incident(&mut out, incident)?;
                    }
                }
            }
            if let Update::Concluded(incident) = update {
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

    fn finish(mut self, trace: &mut Trace) -> Result<u8> {
        let updates = trace.finish();
        self.show(&updates).context(WRITE)?;
        let mut summary = trace.summary()?;
        if self.args.filters() || self.args.count.is_some() {
            summary.verdicts.clone_from(&self.verdicts);
        }
        let all = !self.enough();
        self.packets.finish(trace.live(), all, &mut summary)?;
        self.write_summary(&summary).context(WRITE)?;
        Ok(match (self.shown, summary.incomplete.is_empty()) {
            (1.., _) => status::FOUND,
            (0, true) => status::NOTHING,
            (0, false) => status::INCOMPLETE,
        })
    }
}
