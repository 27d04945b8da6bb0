//! How `portclash serve` ends, and what must not end it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::mpsc;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use serde_json::Value;
use tempfile::TempDir;

use super::live::{Bound, can_trace, listener, services};
use super::serve::{PATIENCE, Sidecar, hook_that};

/// A sidecar that tells a webhook, and services that its collisions are with.
struct Scene {
    sidecar: Sidecar,
    posts: mpsc::Receiver<Value>,
    clients: Vec<Bound>,
    _folder: TempDir,
}

impl Scene {
    /// `answer`: what the webhook says, told how many POSTs came before.
    fn start(
        args: &[&str],
        answer: impl Fn(usize) -> &'static str + Send + 'static,
        stdout: impl Into<Stdio>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("serve.toml");
        let (url, posts) = hook_that(answer);
        fs::write(&config, format!("webhook = \"{url}\"\ncheck-every = \"none\"\n")).unwrap();
        let clients = vec![Bound::new(), Bound::new()];
        let services = services(&clients.iter().map(|client| client.address).collect::<Vec<_>>());
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let args = [&["--ipvs", services.path().to_str().unwrap()], args].concat();
        let sidecar = Sidecar::start_with(&config, manager, &args, stdout);
        Self { sidecar, posts, clients, _folder: folder }
    }

    /// One collision more, of another service; waits for its first POST.
    fn collide(&mut self) {
        let (_listener, server) = listener();
        let client = self.clients.pop().unwrap();
        client.connect(server);
        let address = client.address.to_string();
        drop(client);
        let post = self.posts.recv_timeout(PATIENCE).expect("a POST");
        assert_eq!(post["service"]["address"], address);
    }
}

#[test]
fn a_closed_standard_output_is_counted_and_everything_else_goes_on() {
    if !can_trace() {
        return;
    }
    let mut scene = Scene::start(&[], |_| "200 OK", Stdio::piped());
    scene.sidecar.stdout = None;
    scene.collide();
    let told = scene.sidecar.says("standard output");
    assert_eq!(told, "standard output: Broken pipe (os error 32); what cannot be written there is counted\n");
    scene.collide();
    scene.sidecar.signal(Signal::SIGTERM);
    scene.sidecar.hear("STOPPING=1");
    let (status, said) = scene.sidecar.ended();
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(said.matches("Broken pipe").count(), 1, "{said}");
}

#[test]
fn a_reader_that_has_stopped_holds_up_neither_the_work_nor_the_end() {
    if !can_trace() {
        return;
    }
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let room = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let full = vec![b'x'; usize::try_from(room).unwrap()];
    writer.write_all(&full).unwrap();
    let mut scene = Scene::start(&["--drain", "3s"], |_| "200 OK", writer);
    scene.collide();
    scene.collide();
    scene.sidecar.signal(Signal::SIGTERM);
    scene.sidecar.hear("STOPPING=1");
    let (status, said) = scene.sidecar.ended();
    assert_eq!(status, Some(0), "{said}");
    // Two incidents and the summary.
    assert!(said.contains("3 deliveries were given up at the end"), "{said}");
    let mut written = Vec::new();
    reader.read_to_end(&mut written).unwrap();
    assert!(written == full, "nothing came through");
}

/// Asks for far more than the sockets hold, and reads none of it.
fn dawdler(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    setsockopt(&stream, RcvBuf, &4096).unwrap();
    let requests = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    stream.write_all(requests.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 64]).unwrap();
    stream
}

#[test]
fn a_client_that_dawdles_takes_no_time_from_deliveries_at_the_end() {
    if !can_trace() {
        return;
    }
    let busy_at_first =
        |count| if count == 0 { "503 Service Unavailable\r\nretry-after: 600" } else { "200 OK" };
    let args = ["--listen", "127.0.0.1:0", "--drain", "30s"];
    let mut scene = Scene::start(&args, busy_at_first, Stdio::piped());
    let line = scene.sidecar.says("listening on");
    let client = dawdler(line.trim_end().trim_start_matches("listening on ").parse().unwrap());
    scene.collide();
    scene.sidecar.signal(Signal::SIGTERM);
    scene.sidecar.hear("STOPPING=1");
    // The client is still there, and would be until the time is over.
    scene.posts.recv_timeout(PATIENCE).expect("the same again, without waiting for ten minutes");
    drop(client);
    let (status, said) = scene.sidecar.ended();
    assert_eq!(status, Some(0), "{said}");
    assert!(!said.contains("given up"), "{said}");
}
