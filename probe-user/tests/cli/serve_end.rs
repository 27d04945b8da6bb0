//! How `portclash serve` ends, and what must not end it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::mpsc;

use nix::sys::signal::Signal;
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

    /// One collision more, of another service; waits for its POST.
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
