//! Processes and threads that connect, and count for themselves what they did.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use serde_json::Value;

use crate::lab::restore;
use crate::node::{BACKEND, NODE, POD};

/// The probed pod's server.
pub fn remote() -> Result<SocketAddr> {
    Ok(SocketAddr::new(POD.parse()?, 80))
}

/// Makes services on ports of the node, one backend each.
pub fn services(first: u16, count: u16) -> Result<()> {
    let rule = |port| format!("-A -t {NODE}:{port} -s rr\n-a -t {NODE}:{port} -r {BACKEND}:8443 -m\n");
    restore(&(first..first + count).map(rule).collect::<String>())
}

/// Begins a connect from a port of the node; the socket stays open until it is dropped.
pub fn begin(port: u16, remote: SocketAddr) -> Result<OwnedFd> {
    let local = SockaddrStorage::from(SocketAddr::new(NODE.parse()?, port));
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    bind(socket.as_raw_fd(), &local).with_context(|| format!("cannot bind to port {port}"))?;
    let ended = connect(socket.as_raw_fd(), &SockaddrStorage::from(remote));
    ensure!(ended == Err(Errno::EINPROGRESS), "connect() from port {port} ended with {ended:?}");
    Ok(socket)
}

/// A process that connects from service ports as fast as it can.
pub struct Flood(Child);

impl Flood {
    /// Starts one on ports that no other one has.
    pub fn start(first: u16, count: u16, time: Duration) -> Result<Self> {
        let numbers = [u64::from(first), u64::from(count), u64::try_from(time.as_millis())?];
        let child = Command::new("/proc/self/exe")
            .arg("flood")
            .args(numbers.map(|number| number.to_string()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a flood")?;
        Ok(Self(child))
    }

    /// Waits for its end; returns how many connects it made.
    pub fn wait(self) -> Result<u64> {
        let output = self.0.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let told: Value = serde_json::from_str(&text).with_context(|| format!("a flood said {text:?}"))?;
        told.get("connects").and_then(Value::as_u64).context("a flood did not count")
    }
}

/// The process of a [`Flood`].
pub fn flood(first: &str, count: &str, milliseconds: &str) -> Result<()> {
    let (first, count): (u16, u16) = (first.parse()?, count.parse()?);
    let time = Duration::from_millis(milliseconds.parse()?);
    let remote = remote()?;
    let begun = Instant::now();
    let mut connects = 0_u64;
    while begun.elapsed() < time {
        // All at once are closed when all have begun.
        let sockets = (first..first + count).map(|port| begin(port, remote));
        connects += u64::try_from(sockets.collect::<Result<Vec<_>>>()?.len())?;
    }
    println!("{}", serde_json::json!({"connects": connects}));
    Ok(())
}
