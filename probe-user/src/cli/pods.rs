//! `portclash pods`: which pods are on this node, and which probes they have.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use super::output::{Common, Format, WRITE, complain, width};
use super::pod_sources::PodSourceArgs;
use super::status;
use super::values::duration;
use crate::node::netns::{NetNs, NetnsSpec};
use crate::observation::Nanos;
use crate::pods::choice::PodChoice;
use crate::pods::index::PodIndex;
use crate::pods::session::Session;
use crate::report::{self, json, text};
use crate::sources::clock::Clock;

/// List the pods of this node with their probes, as far as a source tells
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    sources: PodSourceArgs,
    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    wait: Duration,
}

const EXAMPLES: &str = "\
Examples:
  portclash pods                                   on the node
  kubectl get pods -A -o json > pods.json
  portclash pods --pods file:pods.json             anywhere, from a file
  portclash pods --pods file:pods.json --node-name node-a -o json

-o json prints one object per probe (portclash.probe/v1).
Exit status: 0 listed, 2 no source answered, 3 listed, but something could not be read.";

/// Runs the command; the result is the exit status.
pub(super) fn run(args: &Args, common: &Common) -> Result<u8> {
    if args.sources.pods == PodChoice::None {
        bail!("--pods none leaves nothing to list; give auto, kubelet, api, cri or file:PATH");
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(list(args, common))
}

async fn list(args: &Args, common: &Common) -> Result<u8> {
    let netns = NetNs::open(&NetnsSpec::Pid(1)).or_else(|_| NetNs::own())?;
    let clock = Clock::sample();
    let mut session = args.sources.start(&netns, clock.now(), true)?;
    session.wait_for_pods(Instant::now() + args.wait, || clock.now()).await;
    let index = session.names().pods();
    if !index.sources().any_answered() {
        // Troubles of the network sources are in the log already.
        session.notes().iter().for_each(|note| complain(&format!("portclash: {note}")));
        bail!(
            "no source named the pods of this node; try --pods file:PATH with the output of `kubectl get pods -A -o json`"
        );
    }
    check_node(index, args.sources.node_name.as_deref())?;
    write(&session, common, clock.now()).context(WRITE)?;
    let complete = complaints(index).is_empty() && index.refused() == 0;
    Ok(if complete { status::NOTHING } else { status::INCOMPLETE })
}

fn complaints(index: &PodIndex) -> Vec<String> {
    let all = index.sources().iter();
    all.flat_map(|(kind, state)| state.complaints().into_iter().map(move |text| format!("{kind}: {text}")))
        .collect()
}

/// A node that was named must be one that pods are on, if the pods say where they are.
fn check_node(index: &PodIndex, given: Option<&str>) -> Result<()> {
    let Some(given) = given else { return Ok(()) };
    let pods = index.pods();
    let mut nodes: Vec<&str> = pods.iter().filter_map(|known| known.pod.node_name.as_deref()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    if nodes.is_empty() || nodes.contains(&given) {
        return Ok(());
    }
    let more = if nodes.len() > 8 { ", …" } else { "" };
    let some = nodes.get(..8.min(nodes.len())).unwrap_or_default().join(", ");
    bail!("--node-name {given}: no pod is on that node; there are pods on {some}{more}")
}

fn write(session: &Session, common: &Common, now: Nanos) -> io::Result<()> {
    let index = session.names().pods();
    let mut out = io::stdout().lock();
    match common.output {
        Format::Text | Format::Html => {
            let style = text::TextStyle { colour: common.colour(), width: width() };
            out.write_all(report::pods::page(index, session.notes(), now, style).as_bytes())?;
        }
        Format::Json => {
            for line in report::pods::lines(&report::pods::here(index)) {
                json::write_probe(&mut out, &line)?;
            }
            for complaint in complaints(index) {
                complain(&format!("portclash: {complaint}"));
            }
        }
    }
    out.flush()
}
