//! Small TCP servers in a namespace.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{Shutdown, shutdown};

use crate::netns;

/// A web server that answers every request with `200 OK`. It stops when this value is dropped.
pub struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a port of every address of a namespace, IPv4 and IPv6 (`node`: the node's own).
    pub fn start(namespace: &str, port: u16) -> Result<Self> {
        Self::start_at(namespace, SocketAddr::from(([0u16; 8], port)))
    }

    /// Listens on one address of a namespace.
    pub fn start_at(namespace: &str, address: SocketAddr) -> Result<Self> {
        let listener = netns::run_in(namespace, move || Ok(TcpListener::bind(address)?))
            .with_context(|| format!("no server on {address} in {namespace}"))?;
        let accepting = listener.try_clone()?;
        // A listener keeps the namespace it was made in, whatever thread accepts.
        let thread = std::thread::spawn(move || {
            loop {
                match accepting.accept() {
                    Ok((stream, _)) => drop(std::thread::spawn(move || answer(stream))),
                    // The listener was shut down.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => break,
                    // Too many files are open at this moment, or a client was gone before it was accepted.
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread out of accept(2), which then fails.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves one request; a client that goes away is no failure of the server.
fn answer(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut request = [0; 1024];
    if matches!(stream.read(&mut request), Ok(length) if length > 0) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
    }
}

/// Whether a server of the node's namespace, or one that it has a route to, answers a request.
pub fn answers(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok();
    asked && matches!(stream.read(&mut [0; 16]), Ok(length) if length > 0)
}
