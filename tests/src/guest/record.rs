//! The seed's incident, once, recorded in every way that people have: for tests of what reads captures.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Lab, probe};
use crate::node::{BACKEND, NODE, POD};
use crate::process::run as run_tool;
use crate::story::PORT;
use crate::{host, node};

const FOLDER: &str = "/tmp/record";
/// Hexadecimal digits in a line to the host.
const LINE: usize = 4096;

/// Who captures where, and into which file: link types, formats and time resolutions differ as they do in practice.
const RECORDERS: &[(&str, &str, &str)] = &[
    ("node", "node-vpod.pcap", "tcpdump -Z root -U -i vpod -w"),
    ("node", "node-any.pcap", "tcpdump -Z root -U -i any -y LINUX_SLL2 -w"),
    ("node", "node-any-sll.pcap", "tcpdump -Z root -U -i any -y LINUX_SLL -w"),
    ("pod", "pod.pcapng", "dumpcap -i eth0 -w"),
    ("backend", "backend.pcap", "tcpdump -Z root -U --nano -i eth0 -w"),
];

/// A capturing program that has begun.
struct Recorder {
    name: &'static str,
    child: Child,
    messages: BufReader<std::process::ChildStderr>,
}

impl Recorder {
    fn start(namespace: &str, name: &'static str, line: &str) -> Result<Self> {
        let mut words: Vec<&str> = line.split(' ').collect();
        if namespace != "node" {
            words.splice(0..0, ["ip", "netns", "exec", namespace]);
        }
        let (program, arguments) = words.split_first().context("no program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(format!("{FOLDER}/{name}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start: {line}"))?;
        let mut messages = BufReader::new(child.stderr.take().context("no messages")?);
        let mut said = String::new();
        // tcpdump says the former, dumpcap the latter, once their sockets are open.
        while !said.contains("listening on") && !said.contains("File: ") {
            ensure!(messages.read_line(&mut said)? > 0, "{line} ended: {said}");
        }
        Ok(Self { name, child, messages })
    }

    fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT)?;
        let said = self.messages.lines().collect::<Result<Vec<_>, _>>()?.join("\n");
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}: {said}", self.name);
        Ok(())
    }
}

/// Plays and records, and hands every file to the host as lines `file NAME HEX`.
pub(super) fn run() -> Result<u8> {
    node::set_up()?;
    std::fs::create_dir_all(FOLDER)?;
    let mut lab = Lab::fresh()?;
    let (local, remote) = (format!("{NODE}:{PORT}"), format!("{POD}:80"));
    lab.service(&local, &[&format!("{BACKEND}:8443")])?;
    lab.service(&format!("{NODE}:{}", PORT + 100), &[])?;
    let recorders = RECORDERS.iter().map(|(namespace, name, line)| Recorder::start(namespace, name, line));
    let recorders = recorders.collect::<Result<Vec<_>>>()?;
    let collision = probe(&local, &remote)?;
    let fine = probe(&format!("{NODE}:{}", PORT + 1), &remote)?;
    let arguments = ["--write", &format!("{FOLDER}/trace.pcapng")];
    let (tables, traced) = lab.trace(&arguments, 1, |_| {
        let before = fine.run()?;
        ensure!(before.error.is_none(), "a connect from another port failed: {before:?}");
        let ended = collision.run()?;
        ensure!(ended.error.is_some(), "the collision came about");
        Ok([
            ("ip_vs.txt", std::fs::read_to_string("/proc/net/ip_vs")?),
            ("ip_vs_conn.txt", std::fs::read_to_string("/proc/net/ip_vs_conn")?),
            ("ipvsadm.txt", run_tool("ipvsadm -Ln")?),
            ("conntrack.txt", run_tool("conntrack -L")?),
        ])
    })?;
    recorders.into_iter().try_for_each(Recorder::stop)?;
    let [incident] = &*traced.incidents else { bail!("{} incidents instead of 1", traced.incidents.len()) };
    let told = format!("{incident}\n{}\n", traced.summary);
    for (name, text) in tables.iter().chain([&("trace.json", told)]) {
        std::fs::write(Path::new(FOLDER).join(name), text)?;
    }
    hand_over()
}

fn hand_over() -> Result<u8> {
    for entry in std::fs::read_dir(FOLDER)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a file without a name")?;
        let mut hex = String::new();
        for byte in std::fs::read(entry.path())? {
            let _ = write!(hex, "{byte:02x}");
        }
        let mut rest = hex.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(LINE));
            host::say(&format!("file {name} {line}"));
            rest = more;
        }
    }
    Ok(0)
}
