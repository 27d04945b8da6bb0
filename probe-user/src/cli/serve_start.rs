//! Starts what `portclash serve` consists of, in the one order that works: everything that takes privileges or reads
//! secrets first, then privileges are dropped, and only then do threads begin that answer strangers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::output::{Common, complain};
use super::serve::Args;
use super::serve_plan::{self, NodeRoot};
use super::status;
use super::stop::Stop;
use super::trace::{kernel_log_level, say_which_log};
use crate::kernel::loader::Rings;
use crate::node::netns::{NetNs, NetnsSpec};
use crate::serve::deliver::Deliveries;
use crate::serve::http;
use crate::serve::notify::Notifier;
use crate::serve::privileges::Confined;
use crate::serve::recent::Recent;
use crate::serve::recheck::Recheck;
use crate::serve::recorder::{self, Opened, Recorder};
use crate::serve::run::{Change, End, Parts, Settings, run};
use crate::serve::snapshot::Requests;
use crate::sources::kubelet_log::{KubeletLogSource, node_root};
use crate::sources::live::{Live, LiveOptions};
use crate::trace::Trace;

/// Questions of the server that wait for the loop.
const WAITING_REQUESTS: usize = 16;

/// Serves until it is told to stop; the result is the exit status. `reload` ends whenever somebody asks for changes, and
/// yields them if there are any; it is told this node's name in the cluster.
pub(super) async fn serve(
    args: &Args,
    common: &Common,
    mut reload: impl AsyncFnMut(Option<&str>) -> Option<Change>,
) -> Result<u8> {
    let settings = args.settings();
    // What is wrong with an address is said before anything starts; the node's name matters later.
    args.deliveries(None)?;
    let notifier = Notifier::from_env().context("NOTIFY_SOCKET or WATCHDOG_USEC")?;
    let bound = args.http.options().map(|options| http::bind(&options)).transpose()?;
    let recorder = args.record.record.clone().map(|dir| open_recorder(dir, &settings)).transpose()?;
    let root = node_root();
    let log = KubeletLogSource::start(&args.kubelet_log, &root).await?;
    let node_files = NodeRoot::open(&root);
    let netns = netns(&args.netns);
    let mut live = Live::start(&LiveOptions {
        netns: netns.clone(),
        ipvs: args.ipvs.clone(),
        poll: args.poll,
        hooks: args.hooks,
        log_level: kernel_log_level(common.verbose),
        packets: args.record.record.is_some(),
        rings: Rings::of(args.ring_size),
    })?;
    complain(&live.opening());
    complain(
        "connects that began before this are not seen; what was open when an earlier run ended is not known",
    );
    let names = args.sources.start(live.netns(), live.clock().now(), false)?;
    names.notes().iter().for_each(|note| complain(&format!("portclash: {}: {note}", args.sources.pods)));
    say_which_log(log.as_ref(), &args.kubelet_log);
    let node_name = names.hints().best_name();
    let ways = args.deliveries(node_name.clone())?;
    let way_files = ways.files();
    let (requests, asked) = mpsc::channel(WAITING_REQUESTS);
    let deliveries = Deliveries::start(&ways, requests.clone())?;
    let confined = if args.privileges.keep_privileges {
        complain("privileges are kept, as asked for");
        None
    } else {
        let plan = serve_plan::plan(args, &way_files, &root, log.as_ref());
        let confined = serve_plan::confine(plan, &mut live)?;
        if let Some(cost) = without_going_there(&netns) {
            complain(&cost);
        }
        Some(confined)
    };
    // From here on threads may begin: they have no more than this one.
    let installed = match &confined {
        Some(confined) => confined.sealed(Stop::install)?,
        None => Stop::install(),
    };
    let mut stop = installed.context("handle SIGINT and SIGTERM")?;
    let recent = Recent::default();
    let server =
        bound.map(|bound| start_server(bound, requests, recent.clone(), confined.as_ref())).transpose()?;
    let recheck = Recheck::new(netns, Some(node_files.path()), settings.check_every);
    let trace = Trace::new(live, log, names).conclusions_only();
    let parts = Parts {
        trace,
        recheck,
        recorder: recorder.map(|opened| opened.start(recent.clone())),
        deliveries,
        recent,
        requests: asked,
        server,
        notifier,
        confined,
        say: complain,
    };
    match run(parts, settings, stop.requested(), async || reload(node_name.as_deref()).await).await? {
        End::Stopped => Ok(status::NOTHING),
        End::NeedsRestart => {
            complain(
                "portclash: ip_vs was loaded again, and hooking it takes privileges that were dropped: it ends, so that \
                 whoever started it starts it anew",
            );
            Ok(status::INCOMPLETE)
        }
    }
}

/// This process's own namespace.
const OWN: &str = "/proc/self/ns/net";

/// The namespace of process 1 is this process's own in a pod on the host's network; named as its own it can be read
/// without privileges.
fn netns(wanted: &NetnsSpec) -> NetnsSpec {
    let inode = |spec: &NetnsSpec| NetNs::open(spec).ok().map(|netns| netns.inode);
    let own = NetnsSpec::Path(OWN.into());
    let is_default = *wanted == NetnsSpec::default();
    match inode(wanted) {
        Some(wanted_inode) if inode(&own) == Some(wanted_inode) => own,
        // Process 1 may not be looked at: then the own namespace is what there is.
        None if is_default => own,
        _ => wanted.clone(),
    }
}

/// What cannot be known of this namespace without the privilege to enter it again.
fn without_going_there(netns: &NetnsSpec) -> Option<String> {
    let costs = match netns {
        NetnsSpec::Path(path) if path == Path::new(OWN) => return None,
        NetnsSpec::Path(_) => "its services stay as they were at the start, and its exposure is not checked",
        // The table of a process's namespace can be read from outside.
        NetnsSpec::Pid(_) => "its exposure is not checked",
    };
    Some(format!(
        "portclash: reduced: this is another network namespace, and entering it again takes privileges that were \
         dropped: {costs}. Run portclash in there (nsenter --net=PATH portclash serve), or with --keep-privileges"
    ))
}

fn open_recorder(dir: PathBuf, settings: &Settings) -> Result<Opened> {
    let (max_bytes, max_files) = settings.record_limits;
    Recorder::open(recorder::Options { dir, max_bytes, max_files }).context("--record")
}

fn start_server(
    bound: http::Bound,
    requests: Requests,
    recent: Recent,
    confined: Option<&Confined>,
) -> Result<http::Server> {
    let address = bound.address();
    let context = http::Context { requests, recent };
    let server = match confined {
        Some(confined) => confined.sealed(|| bound.start(context))??,
        None => bound.start(context)?,
    };
    complain(&format!("listening on {address}"));
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_namespace_costs_is_said_and_the_own_one_costs_nothing() {
        assert_eq!(without_going_there(&NetnsSpec::Path(OWN.into())), None);
        assert_eq!(netns(&NetnsSpec::Pid(std::process::id())), NetnsSpec::Path(OWN.into()));
        let by_path = without_going_there(&NetnsSpec::Path("/run/netns/x".into())).unwrap();
        assert!(by_path.contains("services stay as they were") && by_path.contains("nsenter"), "{by_path}");
        let by_pid = without_going_there(&NetnsSpec::Pid(7)).unwrap();
        assert!(by_pid.contains("exposure") && !by_pid.contains("services stay"), "{by_pid}");
    }
}
