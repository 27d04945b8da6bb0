//! Counts connects on this machine's own kernel, by the hooks that every kernel has, in network namespaces of the tests'
//! own; and looks at the full-screen view in tmux.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::live::{can_trace, until};
use super::{portclash, refused, run};

/// Where node-local-dns listens.
const DNS: &str = "169.254.20.10:8080";

/// Work on a thread of its own in a network namespace of its own, until this value is dropped.
struct Elsewhere {
    /// Names the namespace.
    netns: String,
    /// Name of the thread, which is the task's name.
    comm: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Elsewhere {
    /// `work` is called again and again.
    fn start(mut work: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::Builder::new().name("node-cache".into()).spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            ip("addr add 169.254.20.10/32 dev lo");
            let tid = nix::unistd::gettid();
            let comm = fs::read_to_string("/proc/thread-self/comm").unwrap().trim_end().to_owned();
            ready.send((format!("/proc/{}/task/{tid}/ns/net", std::process::id()), comm)).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                work();
            }
        });
        let (netns, comm) = is_ready.recv().unwrap();
        Self { netns, comm, stop, thread: Some(thread.unwrap()) }
    }

    /// Connects to itself as often as said.
    fn connecting_to_itself(every: Duration) -> Self {
        let mut listener = None;
        Self::start(move || {
            let listener = listener.get_or_insert_with(|| TcpListener::bind(DNS).unwrap());
            connect_and_close(listener);
            thread::sleep(every);
        })
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// The client closes first, so that its end goes to TIME-WAIT.
fn connect_and_close(listener: &TcpListener) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
}

/// The objects that `portclash ports` prints for a namespace: rows, and the summary.
fn counted(netns: &str, more: &[&str]) -> (i32, Vec<Value>, Value) {
    let args = ["ports", "--pods", "none", "--hooks", "stable", "-o", "json", "--netns", netns];
    let output = run(&[&args, more].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = rows.pop().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(summary["schema"], "portclash.ports-summary/v1");
    assert!(rows.iter().all(|row| row["schema"] == "portclash.ports/v1"));
    (output.status.code().unwrap(), rows, summary)
}

#[test]
fn a_process_that_connects_to_itself_once_a_second_is_listed_within_three_seconds() {
    if !can_trace() {
        return;
    }
    let dns = Elsewhere::connecting_to_itself(Duration::from_secs(1));
    let (status, rows, summary) = counted(&dns.netns, &["--duration", "3s"]);
    let own: Vec<&Value> = rows.iter().filter(|row| !row["owner"].is_null()).collect();
    let [row] = own.as_slice() else { panic!("one row with an owner: {rows:#?}") };
    assert_eq!(row["owner"]["pid"], std::process::id());
    assert_eq!(row["owner"]["comm"], dns.comm);
    assert_eq!(row["owner"]["exe"], std::env::current_exe().unwrap().to_str().unwrap());
    assert_eq!(row["destination"], DNS);
    // On a loaded machine the process itself is late.
    let connects = row["connects"].as_u64().unwrap();
    assert!((1..=4).contains(&connects), "{row:#}");
    let rate = row["connects_per_second"].as_f64().unwrap();
    assert!(rate > 0.0 && rate < 1.5, "{row:#}");
    assert!(row["time_wait"].as_u64().unwrap() <= connects, "{row:#}");
    assert_eq!((&row["unavailable"], &summary["unavailable"]), (&0.into(), &0.into()));
    let complete = summary["incomplete"].as_array().unwrap().is_empty();
    assert_eq!(status, if complete { 0 } else { 3 });
}

#[test]
fn every_connect_is_counted_and_its_time_wait_is_its_owners() {
    if !can_trace() {
        return;
    }
    let (go, may_go) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel();
    let elsewhere = Elsewhere::start(move || {
        if may_go.recv().is_err() {
            return thread::sleep(Duration::from_millis(20));
        }
        let listener = TcpListener::bind(DNS).unwrap();
        (0..200).for_each(|_| connect_and_close(&listener));
        done.send(()).unwrap();
    });
    // Ends when it is told to, once all connects are made.
    let args = ["ports", "--pods", "none", "--hooks", "stable", "-o", "json", "--duration", "1m", "--netns"];
    let mut child =
        portclash(&args).arg(&elsewhere.netns).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("counting: "), "{line}");
    go.send(()).unwrap();
    is_done.recv().unwrap();
    drop(go);
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let row: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&row["connects"], &row["owner"]["pid"]), (&200.into(), &std::process::id().into()));
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["connects"], &summary["lost"]), (&200.into(), &serde_json::json!({})));
}

#[test]
fn connects_that_find_no_port_are_counted_with_their_process_and_destination() {
    if !can_trace() {
        return;
    }
    let mut set_up = None;
    let full = Elsewhere::start(move || {
        let kept = set_up.get_or_insert_with(|| {
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001").unwrap();
            let listener = TcpListener::bind(DNS).unwrap();
            let clients = [0, 1].map(|_| TcpStream::connect(DNS).unwrap());
            (listener, clients)
        });
        let error = TcpStream::connect(kept.0.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        thread::sleep(Duration::from_millis(100));
    });
    let (status, rows, summary) = counted(&full.netns, &["--duration", "2s"]);
    let row = rows.iter().find(|row| row["owner"]["pid"] == std::process::id()).unwrap();
    assert_eq!(row["destination"], DNS);
    assert_eq!(row["connects"], 0, "none of them got a port");
    assert!(row["unavailable"].as_u64().unwrap() >= 2, "{row:#}");
    assert_eq!((&row["outlook"], &row["seconds_until_used_up"]), (&"used_up".into(), &0.0.into()));
    assert_eq!(summary["unavailable"], row["unavailable"]);
    assert_eq!(summary["usable_ports"], 2);
    // The two that were made before are nobody's, as far as was seen.
    let unknown = rows.iter().find(|row| row["owner"].is_null()).unwrap();
    assert_eq!(unknown["local_ports_in_use"], 2);
    assert_eq!(status, 1);
}

#[test]
fn a_connect_that_is_refused_had_a_port_and_counts() {
    if !can_trace() {
        return;
    }
    let refusing = Elsewhere::start(|| {
        assert_eq!(TcpStream::connect(DNS).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        thread::sleep(Duration::from_millis(100));
    });
    let (_, rows, summary) = counted(&refusing.netns, &["--duration", "2s"]);
    let row = rows.iter().find(|row| row["owner"]["pid"] == std::process::id()).unwrap();
    assert!(row["connects"].as_u64().unwrap() >= 2, "{row:#}");
    assert_eq!((&row["unavailable"], &summary["unavailable"]), (&0.into(), &0.into()), "{row:#}");
}

#[test]
fn processes_that_live_for_a_moment_are_one_row() {
    if !can_trace() {
        return;
    }
    let mut listener = None;
    let elsewhere = Elsewhere::start(move || {
        let listener = listener.get_or_insert_with(|| TcpListener::bind(DNS).unwrap());
        // bash connects by itself, and is gone.
        let connect = format!("exec 3<>/dev/tcp/{}", DNS.replace(':', "/"));
        let ended = Command::new("bash").args(["-c", &connect]).status().unwrap();
        assert!(ended.success());
        listener.accept().unwrap();
    });
    let (_, rows, _) = counted(&elsewhere.netns, &["--duration", "3s"]);
    let ended: Vec<&Value> = rows.iter().filter(|row| row["owner"]["ended"] == true).collect();
    let [group] = ended.as_slice() else { panic!("one row of those that have ended: {rows:#?}") };
    let owner = &group["owner"];
    assert_eq!((&owner["comm"], &owner["pid"]), (&"bash".into(), &Value::Null));
    assert!(owner["processes"].as_u64().unwrap() >= 2, "{owner:#}");
    assert_eq!(group["connects"], owner["processes"], "each connected once");
}

#[test]
fn what_cannot_be_watched_is_named() {
    refused(&run(&["ports", "--netns", "/nowhere", "--duration", "1s"]), &["/nowhere", "No such file"]);
    for (args, words) in [(["--duration", "5x"], "500ms, 30s"), (["--sort", "magic"], "time-wait")] {
        let output = run(&[&["ports"][..], &args].concat());
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_list_of_pods_that_cannot_be_read_is_refused_before_anything_is_counted() {
    if !can_trace() {
        return;
    }
    let args = ["ports", "--hooks", "stable", "--netns", "/proc/self/ns/net", "--duration", "1m", "--pods"];
    refused(
        &run(&[&args[..], &["file:/nowhere/pods.json"]].concat()),
        &["/nowhere/pods.json", "No such file"],
    );
}

/// A terminal in tmux, with a server of its own.
struct Terminal {
    name: String,
}

impl Terminal {
    /// `None`, with a line that says so, where tmux is not installed.
    fn open(name: &str, columns: u16, lines: u16) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("skipped: tmux is not installed (cargo xtask setup installs it)");
            return None;
        }
        let terminal = Self { name: format!("portclash-test-{name}-{}", std::process::id()) };
        let (x, y) = (columns.to_string(), lines.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &x, "-y", &y, "env", "PS1=$ ", "sh"]);
        Some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux").args(["-L", &self.name]).args(args).output().unwrap();
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Whether the cursor is shown, and whether a program has the other screen.
    fn modes(&self) -> (bool, bool) {
        let modes = self.tmux(&["display-message", "-p", "#{cursor_flag} #{alternate_on}"]);
        let mut modes = modes.split_whitespace().map(|mode| mode == "1");
        (modes.next().unwrap(), modes.next().unwrap())
    }

    /// The screen as soon as it holds all of `words`.
    #[track_caller]
    fn wait_for(&self, words: &[&str]) -> String {
        let found = until(|| {
            let screen = self.screen();
            words.iter().all(|word| screen.contains(word)).then_some(screen)
        });
        found.unwrap_or_else(|| panic!("{words:?} did not come; the screen:\n{}", self.screen()))
    }

    /// Starts the view and waits for its first screen.
    fn view(&self, netns: &str) {
        let program = env!("CARGO_BIN_EXE_portclash");
        self.keys(&[
            &format!("clear; {program} ports --pods none --hooks stable --netns {netns}; echo left=$?"),
            "Enter",
        ]);
        self.wait_for(&["portclash ports  ", "CONN/S", "q quit"]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.name, "kill-server"]).status();
    }
}

#[test]
fn the_full_screen_view_sorts_filters_resizes_and_leaves_the_terminal_as_it_was() {
    if !can_trace() {
        return;
    }
    let Some(terminal) = Terminal::open("view", 80, 24) else { return };
    let dns = Elsewhere::connecting_to_itself(Duration::from_secs(1));
    terminal.view(&dns.netns);
    let begun = Instant::now();
    let pid = std::process::id().to_string();
    let screen = terminal.wait_for(&[&pid, &dns.comm, DNS]);
    println!("listed after {:?}", begun.elapsed());
    let row = screen.lines().find(|line| line.contains(&pid)).unwrap();
    let rate: f64 = row.split_whitespace().next().unwrap().parse().unwrap();
    assert!(rate > 0.0 && rate < 2.5, "{row}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    terminal.keys(&["s"]);
    terminal.wait_for(&["sort: connects "]);
    terminal.keys(&["/", "no-such", "Enter"]);
    terminal.wait_for(&["filter: no-such", "no row matches the filter"]);
    terminal.keys(&["Escape"]);
    terminal.wait_for(&[DNS]);
    terminal.tmux(&["resize-window", "-x", "60", "-y", "10"]);
    terminal.wait_for(&["needs 80 columns"]);
    terminal.tmux(&["resize-window", "-x", "120", "-y", "40"]);
    terminal.wait_for(&["POD ", DNS]);
    assert_eq!(terminal.modes(), (false, true), "the view hides the cursor on a screen of its own");
    terminal.keys(&["q"]);
    let left = terminal.wait_for(&["left="]);
    assert_eq!(terminal.modes(), (true, false));
    assert!(left.contains("left=0") || left.contains("left=3"), "{left}");
    assert!(!left.contains("CONN/S"), "the screen of before is back:\n{left}");
    terminal.keys(&["echo typed", "Enter"]);
    terminal.wait_for(&["echo typed\ntyped"]);
}

#[test]
fn interrupt_and_signal_end_the_view_in_order() {
    if !can_trace() {
        return;
    }
    let Some(terminal) = Terminal::open("signals", 100, 30) else { return };
    let dns = Elsewhere::connecting_to_itself(Duration::from_millis(200));
    terminal.view(&dns.netns);
    terminal.keys(&["C-c"]);
    terminal.wait_for(&["left="]);
    terminal.view(&dns.netns);
    let shell = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let shell = shell.trim();
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    let viewer = children.split_whitespace().next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(viewer), nix::sys::signal::Signal::SIGTERM).unwrap();
    let left = terminal.wait_for(&["left="]);
    assert!(!left.contains("CONN/S"), "{left}");
    assert_eq!(terminal.modes(), (true, false));
    terminal.keys(&["echo typed", "Enter"]);
    terminal.wait_for(&["echo typed\ntyped"]);
}
