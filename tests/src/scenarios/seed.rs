//! The seed's incident: kubelet probes a pod from a port that is a service of the node.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::expected::{Addresses, Collision};
use crate::lab::{Lab, assert_incidents, probe};
use crate::process::sysctl;

/// `conn_reuse_mode=0`, as kube-proxy sets it before kernel 5.9: every SYN-ACK is reset.
pub(super) fn reuse_mode_0(lab: &mut Lab) -> Result<()> {
    play(lab, &Addresses::v4(36704), &[], BEST)
}

/// `conn_reuse_mode=1`, the kernel's own: the second SYN-ACK is dropped instead.
pub(super) fn reuse_mode_1(lab: &mut Lab) -> Result<()> {
    sysctl("net/ipv4/vs/conn_reuse_mode", "1")?;
    play(lab, &Addresses::v4(36705), &[], BEST)
}

/// The same over IPv6.
pub(super) fn v6(lab: &mut Lab) -> Result<()> {
    play(lab, &Addresses::v6(36704), &[], BEST)
}

/// Kernels or policies without BPF trampolines.
pub(super) fn kprobe_rung(lab: &mut Lab) -> Result<()> {
    play(lab, &Addresses::v4(36706), &["--hooks", "kprobe"], KPROBES)
}

/// Kernels or policies without kprobes: hooks with a stable interface only.
pub(super) fn stable_rung(lab: &mut Lab) -> Result<()> {
    play(lab, &Addresses::v4(36707), &["--hooks", "stable"], STABLE)
}

/// Which way serves which need. A program that a kernel refuses shows here first: the next way takes over in silence.
type Ways = [(&'static str, &'static str); 4];
const BEST: &Ways =
    &[("connect", "fentry"), ("connect_end", "fexit"), ("hijack", "kprobe"), ("table_change", "kretprobe")];
const KPROBES: &Ways =
    &[("connect", "kprobe"), ("connect_end", "kretprobe"), ("reset", "kprobe"), ("hijack", "kprobe")];
const STABLE: &Ways = &[
    ("connect", "sockops"),
    ("connect_end", "tracepoint"),
    ("reset", "tracepoint"),
    ("hijack", "ip_vs_conn"),
];

fn play(lab: &mut Lab, addresses: &Addresses, arguments: &[&str], ways: &Ways) -> Result<()> {
    lab.service(&addresses.local, &[&addresses.backend])?;
    let connect = probe(&addresses.local, &addresses.remote)?;
    let (client, traced) = lab.trace(arguments, 1, |_| connect.run())?;
    super::expected::timed_out(&client)?;
    for (need, way) in ways {
        let served = traced.summary.pointer(&format!("/hooks/{need}")).and_then(Value::as_str);
        ensure!(served == Some(way), "{need} is served by {served:?} instead of {way}");
    }
    assert_incidents(&traced, &[Collision::new(addresses, &connect, &client).hijacked("backend")?])
}
