//! `portclash serve`: options from everywhere, and a run from start to end.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::live::{Bound, can_trace, listener, services, until};
use super::{portclash, refused, run};

/// Only a test that fails waits that long.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn options_in_force_are_printed_with_their_places_and_privileges_are_not_needed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serve.toml");
    fs::write(&file, "record = \"/var/lib/portclash\"\nlabel_pods = 7\n").unwrap();
    let mut command =
        portclash(&["serve", "--print-config", "--drain", "3s", "--config", file.to_str().unwrap()]);
    let output = command.env("PORTCLASH_RECORD_SIZE", "1G").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let place = file.display();
    for line in [
        format!("record = \"/var/lib/portclash\" # {place}:1"),
        format!("label-pods = 7 # {place}:2"),
        "record-size = \"1G\" # PORTCLASH_RECORD_SIZE".to_owned(),
        "drain = \"3s\" # command line".to_owned(),
        "listen = \"127.0.0.1:9847\" # default".to_owned(),
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
    }
}

#[test]
fn wrong_options_are_named_with_their_place_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serve.toml");
    let with = |text: &str| {
        fs::write(&file, text).unwrap();
        run(&["serve", "--config", file.to_str().unwrap()])
    };
    refused(&with("\nrecrod = \"/x\""), &["serve.toml:2: unknown key \"recrod\": did you mean \"record\"?"]);
    refused(&with("poll = \"5x\""), &["serve.toml:1: ", "500ms, 30s, 10m or 2h"]);
    refused(&with("webhook = \"ftp://x\""), &["--webhook: ", "http:// or https://"]);
    refused(
        &run(&["serve", "--config", "/nowhere/x.toml"]),
        &["read /nowhere/x.toml: No such file", "command line"],
    );
    let output = portclash(&["serve"]).env("PORTCLASH_LISTEN", "here").output().unwrap();
    refused(&output, &["PORTCLASH_LISTEN: ", "127.0.0.1:9847, [::1]:9847 or none"]);
    // clap's own message, as for every command.
    let output = run(&["serve", "--listen", "here"]);
    assert_eq!(output.status.code(), Some(2));
}

/// What is said unless the arguments say otherwise.
const USUAL: [[&str; 2]; 5] = [
    ["--hooks", "stable"],
    ["--netns", "/proc/self/ns/net"],
    ["--pods", "none"],
    ["--kubelet-log", "none"],
    ["--listen", "none"],
];

/// A sidecar that is ready, with everything around it.
pub(super) struct Sidecar {
    pub(super) child: Child,
    /// `None` = it writes elsewhere, or nobody reads it any more.
    pub(super) stdout: Option<BufReader<ChildStdout>>,
    stderr: BufReader<ChildStderr>,
    manager: UnixDatagram,
    said: String,
}

impl Sidecar {
    fn start(config: &Path, manager: UnixDatagram, args: &[&str]) -> Self {
        Self::start_with(config, manager, args, Stdio::piped())
    }

    pub(super) fn start_with(
        config: &Path,
        manager: UnixDatagram,
        args: &[&str],
        stdout: impl Into<Stdio>,
    ) -> Self {
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = manager.local_addr().unwrap();
        let usual = USUAL.iter().filter(|[option, _]| !args.contains(option)).flatten();
        let mut command = portclash(&["serve", "--config", config.to_str().unwrap()]);
        command.args(usual).args(args).env("NOTIFY_SOCKET", address.as_pathname().unwrap());
        let mut child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut sidecar = Self { child, stdout, stderr, manager, said: String::new() };
        sidecar.hear("READY=1");
        sidecar
    }

    /// Waits for this word to the service manager.
    pub(super) fn hear(&mut self, wanted: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = match self.manager.recv(&mut buffer) {
                Ok(length) => length,
                // A wait with a time limit is not taken up again by the kernel after this process was stopped.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    let _ = self.child.kill();
                    let _ = self.stderr.read_to_string(&mut self.said);
                    panic!("never heard {wanted} ({error}): {}", self.said);
                }
            };
            if String::from_utf8_lossy(&buffer[..length]).starts_with(wanted) {
                return;
            }
        }
    }

    /// Reads standard error up to a line with these words.
    pub(super) fn says(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "never said {words}: {}", self.said);
            self.said.push_str(&line);
            if line.contains(words) {
                return line;
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Its exit status, and all that it said on standard error.
    pub(super) fn ended(mut self) -> (Option<i32>, String) {
        let status = until(|| self.child.try_wait().unwrap());
        if status.is_none() {
            self.child.kill().unwrap();
        }
        self.stderr.read_to_string(&mut self.said).unwrap();
        (status.unwrap_or_else(|| panic!("it does not end: {}", self.said)).code(), self.said)
    }
}

/// Hands on the body of every POST and answers it with 200.
fn hook() -> (String, mpsc::Receiver<Value>) {
    hook_that(|_| "200 OK")
}

/// Hands on the body of every POST and answers it with this status and these headers, told how many came before.
pub(super) fn hook_that(
    answer: impl Fn(usize) -> &'static str + Send + 'static,
) -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for (count, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut reader = BufReader::new(&stream);
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) < 3 {
                    break;
                }
                if let Some((name, value)) = line.split_once(':')
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            write!(&stream, "HTTP/1.1 {}\r\ncontent-length: 0\r\n\r\n", answer(count)).unwrap();
            if send.send(serde_json::from_slice(&body).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, receive)
}

#[test]
fn a_sidecar_tells_counts_delivers_reloads_and_ends_in_order() {
    if !can_trace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("serve.toml");
    let (url, posts) = hook();
    fs::write(&config, format!("webhook = \"{url}\"\ncheck-every = \"none\"\n")).unwrap();
    let (_listener, server) = listener();
    let client = Bound::new();
    let services = services(&[client.address]);
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let mut sidecar = Sidecar::start(&config, manager, &["--ipvs", services.path().to_str().unwrap()]);

    client.connect(server);
    drop(client);
    let post = posts.recv_timeout(PATIENCE).expect("a POST");
    assert_eq!(post["schema"], "portclash.incident/v1");
    let mut line = String::new();
    sidecar.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), post, "standard output has the same");

    // A broken file changes nothing; one that is right again, what it can.
    fs::write(&config, "webhok = \"x\"").unwrap();
    sidecar.signal(Signal::SIGHUP);
    sidecar.hear("RELOADING=1\nMONOTONIC_USEC=");
    sidecar.hear("READY=1");
    let told = sidecar.says("nothing was changed");
    assert!(told.contains("serve.toml:1: unknown key \"webhok\": did you mean \"webhook\"?"), "{told}");
    fs::write(
        &config,
        format!("webhook = \"{url}\"\ncheck-every = \"none\"\ndrain = \"20s\"\npoll = \"7s\""),
    )
    .unwrap();
    sidecar.signal(Signal::SIGHUP);
    sidecar.hear("READY=1");
    assert_eq!(sidecar.says("next start"), "poll: takes effect at the next start\n");
    assert_eq!(sidecar.says("read again"), "the options were read again: drain changed\n");

    sidecar.signal(Signal::SIGTERM);
    sidecar.hear("STOPPING=1");
    let (status, said) = sidecar.ended();
    assert_eq!(status, Some(0), "{said}");
}
