//! `portclash serve`: stay and watch.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ArgAction;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::output::{Common, WRITE, complain};
use super::pod_sources::PodSourceArgs;
use super::serve_config::{Configured, Reloader, print};
use super::serve_start;
use super::status;
use super::values::{MaybeTime, duration, duration_or_none, pods, seconds_or_none, size};
use crate::kernel::ladder::Hooks;
use crate::node::netns::NetnsSpec;
use crate::serve::deliver::{self, TargetOptions};
use crate::serve::http;
use crate::serve::privileges::renounce;
use crate::serve::run::{Change, Settings};
use crate::sources::kubelet_log::KubeletLog;

/// Stay and watch: metrics, incidents as JSON, a capture of each
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which kernel hooks to use; `portclash doctor` says what this kernel allows
    #[arg(long, value_enum, default_value_t)]
    pub(super) hooks: Hooks,
    /// Take the service table from a file instead of the node: `ipvsadm -Ln`, `ipvsadm -Sn`, /proc/net/ip_vs
    #[arg(long, value_name = "FILE")]
    pub(super) ipvs: Option<PathBuf>,
    /// Read the service table this often, less often if that takes over 1 % of a core; where kprobes work, changes are
    /// noticed at once, and polling is ten times rarer
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(super) poll: Duration,
    /// Kubelet's log, to name the probe that failed: journal, journal:UNIT, a file, a directory of container logs, or none;
    /// auto takes the first that this node has
    #[arg(long, value_name = "auto|journal[:UNIT]|PATH|none", default_value = "auto")]
    pub(super) kubelet_log: KubeletLog,
    /// Network namespace to trace, by path or by the pid of a process in it [default: that of pid 1]
    #[arg(long, value_name = "PATH|PID", default_value = "1", hide_default_value = true)]
    pub(super) netns: NetnsSpec,
    /// Size of each ring buffer between the kernel and this program: what does not fit while it is busy is lost, and
    /// counted. Resident memory counts it twice
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = size)]
    pub(super) ring_size: u64,
    /// Check this often whether service ports became source ports; none = never
    #[arg(long, value_name = "TIME|none", default_value = "5m", value_parser = duration_or_none)]
    pub(super) check_every: MaybeTime,
    /// Finish within this time when told to end
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(super) drain: Duration,
    #[command(flatten)]
    pub(super) privileges: PrivilegeArgs,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    pub(super) http: HttpArgs,
    #[command(flatten)]
    pub(super) deliver: DeliverArgs,
    #[command(flatten)]
    pub(super) record: RecordArgs,
    #[command(flatten)]
    pub(super) sources: PodSourceArgs,
}

/// What is given up after start.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PrivilegeArgs {
    /// Keep the privileges that only the start needs, and leave out the system call filter: to find out whether they are
    /// the reason for a trouble
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true",
          action = ArgAction::Set, hide_default_value = true, value_name = "true|false", hide_possible_values = true)]
    pub(super) keep_privileges: bool,
}

/// Where options come from besides the command line.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub(super) struct ConfigArgs {
    /// TOML file whose keys are the long names of these options [default: PORTCLASH_CONFIG, or
    /// /etc/portclash/serve.toml if that exists]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print the options in force as such a file, each with where it comes from, and do nothing else
    #[arg(long)]
    pub(super) print_config: bool,
}

/// The HTTP server.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub(super) struct HttpArgs {
    /// Where to serve /metrics, /incidents and the status page; none = nowhere. The port is neither in Kubernetes' range
    /// of node ports (30000-32767) nor in Linux' of source ports (32768-60999)
    #[arg(long, value_name = "ADDR:PORT|none", default_value = "127.0.0.1:9847")]
    pub(super) listen: Listen,
    /// Ask for the bearer token that is in this file
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Certificate chain of the server, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Count incidents by pod as well, for so many pods [100 if N is left out]; the others are counted together
    #[arg(long, value_name = "N", num_args = 0..=1, default_value = "0", default_missing_value = "100",
          hide_default_value = true, value_parser = pods)]
    pub(super) label_pods: usize,
}

/// Where incidents go.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Where incidents go")]
pub(super) struct DeliverArgs {
    /// An incident of the same service and owner is counted, not told again; the counts are told this often
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub(super) repeat_every: Duration,
    /// POST each incident as JSON to this address, http:// or https://
    #[arg(long, value_name = "URL")]
    pub(super) webhook: Option<String>,
    /// Bearer token for it
    #[arg(long, value_name = "FILE", requires = "webhook")]
    pub(super) webhook_token_file: Option<PathBuf>,
    /// Authority of its certificate [default: the system's]
    #[arg(long, value_name = "FILE", requires = "webhook")]
    pub(super) webhook_ca: Option<PathBuf>,
    /// Tell each hit probe as an Event on its pod (needs the feature kube, and RBAC: create and patch events)
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true",
          action = ArgAction::Set, hide_default_value = true, value_name = "true|false", hide_possible_values = true)]
    pub(super) kubernetes_events: bool,
    /// Send each incident as a log record to this OTLP/HTTP receiver, such as http://127.0.0.1:4318 (needs the feature otlp)
    #[arg(long, value_name = "URL")]
    pub(super) otlp: Option<String>,
    /// Bearer token for it
    #[arg(long, value_name = "FILE", requires = "otlp")]
    pub(super) otlp_token_file: Option<PathBuf>,
    /// Authority of its certificate [default: the system's]
    #[arg(long, value_name = "FILE", requires = "otlp")]
    pub(super) otlp_ca: Option<PathBuf>,
    /// Send it the metrics as well, those of /metrics, this often, at least 1s apart; none = never [default: none]
    #[arg(long, value_name = "TIME|none", value_parser = seconds_or_none, requires = "otlp")]
    pub(super) otlp_metrics_every: Option<MaybeTime>,
}

/// The flight recorder.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Flight recorder")]
pub(super) struct RecordArgs {
    /// Keep the packets of each incident in this directory, one pcapng file each
    #[arg(long, value_name = "DIR")]
    pub(super) record: Option<PathBuf>,
    /// All of them together at most this large; the oldest go
    #[arg(long, value_name = "SIZE", default_value = "100M", value_parser = size)]
    pub(super) record_size: u64,
    /// At most so many files; the oldest go
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) record_files: u32,
}

impl DeliverArgs {
    /// The ways out. `node`: its name in the cluster.
    fn options(&self, node: Option<String>, sources: &PodSourceArgs) -> Result<deliver::Options> {
        let target = |url: &Option<String>, token_file: &Option<PathBuf>, ca: &Option<PathBuf>| {
            let (token_file, ca) = (token_file.clone(), ca.clone());
            url.clone().map(|url| TargetOptions { url, token_file, ca })
        };
        if self.kubernetes_events && cfg!(not(feature = "kube")) {
            bail!("--kubernetes-events: this portclash was built without the feature kube");
        }
        if self.otlp.is_some() && cfg!(not(feature = "otlp")) {
            bail!("--otlp: this portclash was built without the feature otlp");
        }
        #[cfg(not(feature = "kube"))]
        let _ = sources;
        let options = deliver::Options {
            node,
            webhook: target(&self.webhook, &self.webhook_token_file, &self.webhook_ca),
            #[cfg(feature = "kube")]
            events: self.kubernetes_events.then(|| sources.api_server()),
            #[cfg(feature = "otlp")]
            otlp: target(&self.otlp, &self.otlp_token_file, &self.otlp_ca),
            #[cfg(feature = "otlp")]
            otlp_metrics_every: self.otlp_metrics_every.and_then(|MaybeTime(time)| time),
        };
        options.check()?;
        Ok(options)
    }
}

impl HttpArgs {
    /// What the server is told; `None` = there is none.
    pub(super) fn options(&self) -> Option<http::Options> {
        let Listen::On(listen) = self.listen else { return None };
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        Some(http::Options { token_file: self.token_file.clone(), tls, ..http::Options::new(listen) })
    }
}

impl Args {
    /// The ways out. `node`: its name in the cluster.
    pub(super) fn deliveries(&self, node: Option<String>) -> Result<deliver::Options> {
        self.deliver.options(node, &self.sources)
    }

    /// What can be changed while it runs.
    pub(super) fn settings(&self) -> Settings {
        let label_pods = self.http.label_pods;
        Settings {
            label_pods: (label_pods > 0).then_some(label_pods),
            check_every: self.check_every.0,
            repeat_every: self.deliver.repeat_every,
            record_limits: (
                self.record.record_size,
                usize::try_from(self.record.record_files).unwrap_or(usize::MAX),
            ),
            drain: self.drain,
        }
    }
}

/// `--listen`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// Here.
    On(SocketAddr),
    /// Nowhere.
    Nowhere,
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Nowhere);
        }
        let wrong = |_| "write it like 127.0.0.1:9847, [::1]:9847 or none".to_owned();
        text.parse().map(Self::On).map_err(wrong)
    }
}

const EXAMPLES: &str = "\
Examples:
  portclash serve                                 metrics on http://127.0.0.1:9847/, incidents on standard output
  portclash serve --record /var/lib/portclash     and a capture of each incident
  portclash serve --listen 10.0.0.7:9847 --token-file token --tls-cert cert.pem --tls-key key.pem
                                                  for a scraper elsewhere
  portclash serve --webhook https://hooks.example.net/portclash --webhook-token-file token
  PORTCLASH_RECORD_SIZE=1G portclash serve        every option is also a variable
  portclash serve --config serve.toml --print-config

A flag comes before its variable (PORTCLASH_RECORD_SIZE), the variable before the file (record-size = \"1G\").
SIGHUP reads the file again. SIGTERM ends in order; a second one at once.
Exit status: 0 told to end, 2 could not watch, or no longer, 3 only a new start can watch everything.";

/// Runs the command; the result is the exit status.
pub(super) fn run(configured: Option<Configured>, common: &Common) -> Result<u8> {
    let configured = configured.context("read the options of portclash serve")?;
    if configured.args.config.print_config {
        io::stdout().lock().write_all(print(&configured).as_bytes()).context(WRITE)?;
        return Ok(status::NOTHING);
    }
    let args = configured.args.clone();
    let mut builder = Builder::new_current_thread();
    if !args.privileges.keep_privileges {
        // Threads that may wait (for files, for names of hosts) need no capability, whatever this one keeps.
        builder.on_thread_start(|| {
            if let Err(error) = renounce() {
                tracing::error!("a thread keeps capabilities: {error}");
            }
        });
    }
    let runtime = builder.enable_all().build().context("start the runtime")?;
    run_to_end(runtime, async {
        let mut hangup = signal(SignalKind::hangup()).context("handle SIGHUP")?;
        let mut reloader = Reloader::new(configured);
        let reload = async |node: Option<&str>| {
            // The stream ends only with the runtime.
            let _ = hangup.recv().await;
            reread(&mut reloader, &args.sources, node)
        };
        Box::pin(serve_start::serve(&args, common, reload)).await
    })
}

/// Runs the work, and waits for nothing else: a name of a host that is still looked up, or a table that is still read,
/// must not keep the process beyond the end.
fn run_to_end<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// Reads the options again; `None` = nothing changes, and it was said why. `started`: those that count until the next start.
pub(super) fn reread(reloader: &mut Reloader, started: &PodSourceArgs, node: Option<&str>) -> Option<Change> {
    let reread = match reloader.read() {
        Ok(reread) => reread,
        Err(error) => {
            complain(&format!("portclash: {error}; nothing was changed"));
            return None;
        }
    };
    if !reread.next_start.is_empty() {
        complain(&format!("{}: takes effect at the next start", reread.next_start.join(", ")));
    }
    if reread.changed.is_empty() {
        let else_ = if reread.next_start.is_empty() { "" } else { " else" };
        complain(&format!("the options were read again: nothing{else_} changed"));
        return None;
    }
    let args = &reread.new.args;
    let ways = ["webhook", "kubernetes-events", "otlp"];
    let changes_ways = reread.changed.iter().any(|key| ways.iter().any(|way| key.starts_with(way)));
    let deliveries = changes_ways.then(|| args.deliver.options(node.map(str::to_owned), started)).transpose();
    let change = match deliveries {
        Ok(deliveries) => Change { settings: args.settings(), deliveries },
        Err(error) => {
            complain(&format!("portclash: {error:#}; nothing was changed"));
            return None;
        }
    };
    complain(&format!("the options were read again: {} changed", reread.changed.join(", ")));
    reloader.accept(reread);
    Some(change)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn work_on_other_threads_does_not_keep_the_process() {
        let (go, wait) = mpsc::channel::<()>();
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().build().unwrap();
            let work = async { drop(tokio::task::spawn_blocking(move || wait.recv())) };
            run_to_end(runtime, work);
            end.send(()).unwrap();
        });
        // Only a test that fails waits that long.
        assert!(ended.recv_timeout(Duration::from_mins(1)).is_ok(), "it waits for the other thread");
        drop(go);
    }
}
