//! `portclash check`: judge this node, or one that files describe.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::output::{Common, Format, WRITE, width};
use super::status;
use super::values::duration;
use crate::exposure::check::{Check, Status, judge};
use crate::exposure::node::{Node, Sourced};
use crate::node::netns::NetnsSpec;
use crate::node::port_ranges::PortRanges;
use crate::node::sysctl::EphemeralRange;
use crate::report::{self, check_script, json, text};
use crate::sources::node_files::{self, Description, is_stdin};
use crate::sources::node_live;

/// Say whether connects of a node can fail because their source port is a service, how often, and what to set
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Network namespace to look at, by path or by the pid of a process in it [default: that of pid 1]
    #[arg(long, value_name = "PATH|PID", conflicts_with_all = NODE_OPTIONS)]
    netns: Option<NetnsSpec>,
    /// Count connects for this long, such as 10s, instead of deriving their rate from sockets in TIME-WAIT
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with_all = NODE_OPTIONS)]
    measure: Option<Duration>,
    /// Where the node's file system is, for sysctl files and manifests [default: that of pid 1]
    #[arg(long, value_name = "DIR", conflicts_with_all = NODE_OPTIONS)]
    root: Option<PathBuf>,
    /// The node's net.ipv4.ip_local_port_range
    #[arg(long, value_name = "\"FIRST LAST\"", help_heading = NODE)]
    local_port_range: Option<EphemeralRange>,
    /// The node's net.ipv4.ip_local_reserved_ports; "" = nothing is reserved
    #[arg(long, value_name = "PORTS", help_heading = NODE)]
    reserved_ports: Option<PortRanges>,
    /// The node's IPVS table: `ipvsadm -Ln`, `ipvsadm -Sn`, /proc/net/ip_vs
    #[arg(long, value_name = "FILE", help_heading = NODE)]
    ipvs: Option<PathBuf>,
    /// The node's TCP sockets: `ss -tan`, `netstat -tan`
    #[arg(long, value_name = "FILE", help_heading = NODE)]
    sockets: Option<PathBuf>,
    /// An address of the node; without it, those that carry a NodePort or that connects start from
    #[arg(long, value_name = "ADDR", value_delimiter = ',', help_heading = NODE)]
    local_address: Vec<IpAddr>,
    /// The node's kernel, as `uname -r` prints it
    #[arg(long, value_name = "RELEASE", help_heading = NODE)]
    kernel: Option<String>,
    /// Services of the cluster: `kubectl get svc -A`, also with -o wide, json or yaml
    #[arg(long, value_name = "FILE", help_heading = CLUSTER)]
    services: Option<PathBuf>,
    /// Log of a kube-proxy older than 1.24, in which it says which NodePorts it could not listen on
    #[arg(long, value_name = "FILE", help_heading = CLUSTER)]
    kube_proxy_log: Option<PathBuf>,
    /// --service-node-port-range of the API server
    #[arg(long, value_name = "FIRST-LAST", value_parser = node_port_range, help_heading = CLUSTER)]
    node_port_range: Option<(u16, u16)>,
    /// Other ports that must not become source ports, because programs must be able to listen there
    #[arg(long, value_name = "PORTS", help_heading = CLUSTER)]
    extra_ports: Option<PortRanges>,
    /// Print a shell script that reserves the ports, to be read and then run; nothing is changed by portclash itself
    #[arg(long)]
    fix_script: bool,
}

const NODE: &str = "Describe another node (then nothing is read from this one)";
const CLUSTER: &str = "What a node does not know by itself";
const NODE_OPTIONS: [&str; 6] =
    ["local_port_range", "reserved_ports", "ipvs", "sockets", "local_address", "kernel"];

const EXAMPLES: &str = "\
Examples:
  portclash check                                   this node, as root, on the node or in a pod with hostPID
  portclash check --measure 10s                     the same, with connects counted for ten seconds
  portclash check --node-port-range 20000-40000     the same, with the range that the API server uses
  portclash check --fix-script > fix.sh             what to do, as a script to read
  portclash check --local-port-range \"1024 65000\" --reserved-ports \"\" --node-port-range 20000-40000 \\
      --ipvs ipvsadm.txt --services svc.txt --sockets ss.txt
  ipvsadm -Ln | portclash check --local-port-range \"$(sysctl -n net.ipv4.ip_local_port_range)\" --ipvs -

A file may be \"-\" for standard input, once. Describing a node needs no privileges.
Exit status: 0 no connect can collide, 1 some can, 2 could not judge, 3 none found, but something could not be read.";

/// Runs the command; the result is the exit status.
pub(super) fn run(args: &Args, common: &Common) -> Result<u8> {
    let check = judge(&read(args)?);
    write(&check, args, common).context(WRITE)?;
    Ok(match (check.status, check.incomplete.is_empty()) {
        (Status::Fail, _) => status::FOUND,
        (Status::Pass, true) => status::NOTHING,
        (Status::Pass, false) => status::INCOMPLETE,
    })
}

fn read(args: &Args) -> Result<Node> {
    let files = [&args.ipvs, &args.sockets, &args.services, &args.kube_proxy_log];
    if files.into_iter().flatten().filter(|path| is_stdin(path)).count() > 1 {
        bail!(
            "standard input can be read only once: give a file to all but one of --ipvs, --sockets, --services and \
             --kube-proxy-log"
        );
    }
    let given = Description {
        local_port_range: args.local_port_range,
        reserved_ports: args.reserved_ports.clone(),
        ipvs: args.ipvs.clone(),
        sockets: args.sockets.clone(),
        local_addresses: args.local_address.clone(),
        kernel: args.kernel.clone(),
    };
    let mut node = if given.is_empty() {
        node_live::read(&args.netns.clone().unwrap_or_default(), args.measure, args.root.as_deref())?
    } else {
        let Some(range) = given.local_port_range else {
            bail!(
                "the local port range of that node is not known: give --local-port-range \"$(sysctl -n \
                 net.ipv4.ip_local_port_range)\" from there (Linux has \"32768 60999\" where nobody sets it)"
            )
        };
        node_files::read(&given, range)?
    };
    if let Some(path) = &args.services {
        let read = node_files::read_services(path)?;
        node.services = read.services;
        node.findings.extend(read.findings);
        node.incomplete.extend(read.incomplete);
    }
    if let Some(path) = &args.kube_proxy_log {
        let (refused, unreadable) = node_files::read_kube_proxy_log(path)?;
        node.refused = refused;
        node.incomplete.extend(unreadable);
    }
    if let Some(value) = args.node_port_range {
        node.node_port_range = Some(Sourced { value, source: "--node-port-range".to_owned() });
    }
    node.extra_ports = args.extra_ports.clone().unwrap_or_default();
    Ok(node)
}

fn write(check: &Check, args: &Args, common: &Common) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match common.output {
        _ if args.fix_script => out.write_all(check_script::script(check).as_bytes())?,
        Format::Text | Format::Html => {
            let style = text::TextStyle { colour: common.colour(), width: width() };
            out.write_all(report::check::page(check, style).as_bytes())?;
        }
        Format::Json => json::write_check(&mut out, check)?,
    }
    out.flush()
}

/// One range, as the API server takes it: `30000-32767`.
fn node_port_range(text: &str) -> Result<(u16, u16), String> {
    let ports: PortRanges =
        text.parse().map_err(|error: crate::node::port_ranges::PortsError| error.to_string())?;
    match ports.ranges() {
        [range] => Ok(*range),
        _ => Err(format!("\"{text}\" is not one range of ports, such as 30000-32767")),
    }
}
