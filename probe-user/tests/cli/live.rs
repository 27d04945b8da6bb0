//! Traces on this machine's own kernel, by the hooks that every kernel has; the services come from a file.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::loaded_programs;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, listen, socket,
};
use nix::unistd::Pid;
use serde_json::Value;

use super::{portclash, refused, run};

/// Long enough for a loaded machine; nothing waits for it unless something is broken.
const PATIENCE: Duration = Duration::from_mins(1);
const HERE: [&str; 4] = ["--netns", "/proc/self/ns/net", "--hooks", "stable"];

/// False, with a line that says so, where programs may not be loaded.
pub(super) fn can_trace() -> bool {
    let doctor = run(&["doctor", "--hooks", "stable", "--netns", "/proc/self/ns/net"]);
    let can = doctor.status.code() != Some(2);
    if !can {
        let text = String::from_utf8_lossy(&doctor.stdout).lines().take(3).collect::<Vec<_>>().join(" ");
        println!("skipped: portclash doctor says: {text}");
    }
    can
}

/// A socket bound to a free port of loopback, so that the port is known before the trace begins.
pub(super) struct Bound {
    socket: OwnedFd,
    pub(super) address: SocketAddr,
}

impl Bound {
    pub(super) fn new() -> Self {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let bound: SockaddrIn = getsockname(socket.as_raw_fd()).unwrap();
        Self { socket, address: SocketAddr::from((bound.ip(), bound.port())) }
    }

    pub(super) fn connect(&self, to: SocketAddr) {
        let SocketAddr::V4(to) = to else { panic!("{to}") };
        connect(self.socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    }
}

pub(super) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// As `ipvsadm -Ln` prints services.
pub(super) fn services(addresses: &[SocketAddr]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for address in addresses {
        writeln!(file, "TCP  {address} rr\n  -> 127.0.0.1:9             Masq    1      0          0")
            .unwrap();
    }
    file
}

/// A trace that has begun.
pub(super) struct Trace {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Trace {
    pub(super) fn begin(services: &tempfile::NamedTempFile, more: &[&str], stdout: impl Into<Stdio>) -> Self {
        let mut command = portclash(&["trace", "-o", "json", "--ipvs", services.path().to_str().unwrap()]);
        // This machine may have a kubelet.
        for source in ["--pods", "--kubelet-log"] {
            if !more.contains(&source) {
                command.args([source, "none"]);
            }
        }
        command.args(HERE).args(more).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("tracing: "), "{line}");
        Self { child, stderr }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Status, standard output as JSON objects, and what else was said on standard error.
    pub(super) fn end(mut self) -> (ExitStatus, Vec<Value>, String) {
        let status = self.wait();
        let mut out = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut out).unwrap();
        }
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        // What this kernel cannot serve is said at the start; it depends on the machine.
        let said = said.lines().filter(|line| !line.starts_with("reduced: ")).collect::<Vec<_>>().join("\n");
        (status, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), said)
    }

    fn wait(&mut self) -> ExitStatus {
        let status = until(|| self.child.try_wait().unwrap());
        status.unwrap_or_else(|| {
            self.child.kill().unwrap();
            panic!("the trace did not end");
        })
    }

    /// Ids of the programs whose descriptors the process holds.
    fn programs(&self) -> BTreeSet<u32> {
        let folder = format!("/proc/{}/fdinfo", self.child.id());
        let texts =
            fs::read_dir(folder).unwrap().flatten().filter_map(|file| fs::read_to_string(file.path()).ok());
        texts
            .filter_map(|text| {
                text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
            })
            .collect()
    }
}

pub(super) fn until<T>(mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(value) = probe() {
            return Some(value);
        }
        thread::sleep(Duration::from_millis(20));
    }
    None
}

/// The kernel frees programs a moment after their last descriptor has gone.
fn assert_gone(programs: &BTreeSet<u32>) {
    assert!(!programs.is_empty(), "a trace holds programs");
    let gone = until(|| {
        let left = loaded_programs().flatten().any(|program| programs.contains(&program.id()));
        (!left).then_some(())
    });
    assert!(gone.is_some(), "programs are still loaded: {programs:?}");
}

#[test]
fn a_connect_from_a_service_port_is_one_incident_with_its_owner_and_other_ports_are_none() {
    if !can_trace() {
        return;
    }
    let (service, other) = (Bound::new(), Bound::new());
    let (listener, remote) = listener();
    let file = services(&[service.address]);
    let trace = Trace::begin(&file, &["--count", "1"], Stdio::piped());
    let programs = trace.programs();
    other.connect(remote);
    service.connect(remote);
    let accepted = [listener.accept().unwrap(), listener.accept().unwrap()];
    let local = service.address;
    drop((service, other, accepted));
    let (status, lines, said) = trace.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said, "");
    let [incident, summary] = lines.as_slice() else { panic!("one incident and the summary: {lines:?}") };
    assert_eq!(incident["schema"], "portclash.incident/v1");
    assert_eq!((&incident["verdict"], &incident["outcome"]), (&"collision".into(), &"survived".into()));
    assert_eq!(incident["connection"]["local"], local.to_string());
    assert_eq!(incident["connection"]["remote"], remote.to_string());
    assert_eq!(incident["service"]["address"], local.to_string());
    let owner = &incident["owner"];
    let comm = fs::read_to_string("/proc/thread-self/comm").unwrap();
    assert_eq!(owner["pid"], std::process::id());
    assert_eq!(owner["comm"], comm.trim_end());
    assert_eq!(owner["exe"], std::env::current_exe().unwrap().to_str().unwrap());
    assert_eq!(summary["schema"], "portclash.summary/v1");
    assert_eq!(summary["verdicts"], serde_json::json!({"collision": 1}));
    // Other tests trace beside this one; the kernel may skip a program that it interrupted, and counts that.
    let reasons =
        summary["lost"].as_object().unwrap().values().flat_map(|lost| lost.as_object().unwrap().keys());
    assert_eq!(reasons.filter(|reason| *reason != "missed").count(), 0, "{}", summary["lost"]);
    assert_gone(&programs);
}

/// A server that answers no SYN: its queue is full.
fn silent_server() -> (OwnedFd, SocketAddr, Vec<TcpStream>) {
    let server = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(server.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&server, Backlog::new(0).unwrap()).unwrap();
    let bound: SockaddrIn = getsockname(server.as_raw_fd()).unwrap();
    let address = SocketAddr::from((bound.ip(), bound.port()));
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        queue.push(stream);
        assert!(queue.len() < 100, "the queue never fills");
    }
    (server, address, queue)
}

fn failed_probe(at: jiff::Timestamp, target: &str) -> String {
    format!(
        "{at} stderr F I0915 19:09:04.534948  607529 prober.go:121] \"Probe failed\" probeType=\"Readiness\" pod=\"default/nginx\" \
         containerName=\"nginx\" probeResult=\"failure\" output=\"Get \\\"http://{target}/?token=SECRET\\\": context deadline exceeded\"\n"
    )
}

#[test]
fn the_kubelets_line_about_a_failed_probe_is_in_its_incident_and_another_is_counted() {
    if !can_trace() {
        return;
    }
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    bind(client.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let bound: SockaddrIn = getsockname(client.as_raw_fd()).unwrap();
    let (_server, remote, _queue) = silent_server();
    let SocketAddr::V4(to) = remote else { panic!("{remote}") };
    let file = services(&[SocketAddr::from((bound.ip(), bound.port()))]);
    let mut log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap().to_owned();
    let trace = Trace::begin(&file, &["--count", "1", "--kubelet-log", &path], Stdio::piped());
    assert_eq!(connect(client.as_raw_fd(), &SockaddrIn::from(to)), Err(nix::errno::Errno::EINPROGRESS));
    drop(client);
    log.write_all(failed_probe(jiff::Timestamp::now(), "10.0.0.1:80").as_bytes()).unwrap();
    log.write_all(failed_probe(jiff::Timestamp::now(), &remote.to_string()).as_bytes()).unwrap();
    let (status, lines, said) = trace.end();
    assert_eq!((status.code(), said), (Some(1), format!("kubelet log: {path}")));
    let [incident, summary] = lines.as_slice() else { panic!("one incident and the summary: {lines:?}") };
    assert_eq!((&incident["verdict"], &incident["outcome"]), (&"collision".into(), &"failed".into()));
    let [line] = incident["log_lines"].as_array().unwrap().as_slice() else { panic!("{incident}") };
    assert_eq!(line["file"], path);
    let text = line["text"].as_str().unwrap();
    assert!(
        text.starts_with("I0915 19:09:04.534948") && text.contains(&format!("http://{remote}/?…")),
        "{text}"
    );
    let last = incident["evidence"].as_array().unwrap().last().unwrap()["text"].as_str().unwrap();
    assert!(
        last.contains("readiness probe of container nginx in pod default/nginx failed with a timeout"),
        "{last}"
    );
    assert_eq!(
        (&summary["probe_failures_elsewhere"], &summary["probe_failures_ambiguous"]),
        (&1.into(), &0.into())
    );
}

#[test]
fn a_kubelet_log_that_cannot_be_read_is_refused_with_what_to_do() {
    let output = portclash(&["trace", "--kubelet-log", "/nowhere/kubelet.log"]).args(HERE).output().unwrap();
    refused(&output, &["/nowhere/kubelet.log", "No such file or directory", "--kubelet-log none"]);
}

#[test]
fn without_a_collision_a_signal_ends_the_trace_with_a_summary_and_nothing_found() {
    if !can_trace() {
        return;
    }
    let (service, other) = (Bound::new(), Bound::new());
    let (listener, remote) = listener();
    let file = services(&[service.address]);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let trace = Trace::begin(&file, &[], Stdio::piped());
        if signal == Signal::SIGINT {
            other.connect(remote);
            listener.accept().unwrap();
        }
        trace.signal(signal);
        let (status, lines, said) = trace.end();
        let [summary] = lines.as_slice() else { panic!("only the summary: {lines:?}") };
        assert_eq!((&summary["verdicts"], said.as_str()), (&serde_json::json!({}), ""));
        let complete = summary["incomplete"].as_array().unwrap().is_empty();
        assert_eq!(status.code(), Some(if complete { 0 } else { 3 }));
    }
}

#[test]
fn a_second_signal_ends_a_trace_whose_output_nobody_reads() {
    if !can_trace() {
        return;
    }
    let file = services(&[Bound::new().address]);
    let (_reader, mut writer) = std::io::pipe().unwrap();
    // Full, so that the summary cannot be written.
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let mut trace = Trace::begin(&file, &[], writer);
    let programs = trace.programs();
    // Two signals at once are one: again, until it ends.
    let status = until(|| {
        trace.signal(Signal::SIGINT);
        trace.child.try_wait().unwrap()
    });
    assert_eq!(status.map(|status| status.code()), Some(Some(130)));
    assert_gone(&programs);
    trace.wait();
}

#[test]
fn a_trace_that_is_killed_leaves_nothing_attached() {
    if !can_trace() {
        return;
    }
    let mut trace = Trace::begin(&services(&[Bound::new().address]), &[], Stdio::null());
    let programs = trace.programs();
    trace.signal(Signal::SIGKILL);
    trace.wait();
    assert_gone(&programs);
}

#[test]
fn a_reader_that_has_had_enough_ends_the_trace_without_a_complaint() {
    if !can_trace() {
        return;
    }
    let (first, second) = (Bound::new(), Bound::new());
    let (listener, remote) = listener();
    let file = services(&[first.address, second.address]);
    let (reader, writer) = std::io::pipe().unwrap();
    let trace = Trace::begin(&file, &[], writer);
    first.connect(remote);
    drop((listener.accept().unwrap(), first));
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"schema\":\"portclash.incident/v1\""), "{line}");
    // The reader has gone; the next incident finds that out.
    second.connect(remote);
    drop((listener.accept().unwrap(), second));
    let (status, _, said) = trace.end();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_closed_standard_error_stops_nothing() {
    if !can_trace() {
        return;
    }
    let file = services(&[Bound::new().address]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = portclash(&[
        "trace",
        "--pods",
        "none",
        "--duration",
        "100ms",
        "--ipvs",
        file.path().to_str().unwrap(),
    ]);
    let output = command.args(HERE).stderr(writer).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}", output.status);
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("Summary"));
}

#[test]
fn a_service_file_that_cannot_be_used_is_named_with_the_reason() {
    if !can_trace() {
        return;
    }
    let cases: &[(&str, &[&str])] = &[
        ("/nowhere/services", &["/nowhere/services", "No such file or directory"]),
        ("/", &["Is a directory"]),
        ("/etc/passwd", &["/etc/passwd", "ipvsadm -Ln"]),
        ("/dev/null", &["/dev/null"]),
        (env!("CARGO_BIN_EXE_portclash"), &["program", "ipvsadm -Ln"]),
    ];
    for (path, words) in cases {
        let mut command = portclash(&["trace", "--pods", "none", "--ipvs", path]);
        let output = command.args(HERE).output().unwrap();
        refused(&output, words);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            message.matches("os error").count(),
            usize::from(message.contains("os error")),
            "{message}"
        );
    }
}
