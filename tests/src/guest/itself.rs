//! A process that connects to itself, as node-local-dns does to ask for its own health.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Listens on `address`, connects to it `count` times, prints its pid, and stays until standard input ends. Its own
/// client closes first, so the client's end goes to TIME-WAIT.
pub(super) fn run(address: &str, count: &str) -> Result<()> {
    let count: u32 = count.parse()?;
    crate::cgroups::join_asked()?;
    let listener = TcpListener::bind(address).with_context(|| format!("no listener on {address}"))?;
    for _ in 0..count {
        let client = TcpStream::connect(address).context("connect")?;
        let (mut server, _) = listener.accept()?;
        drop(client);
        ensure!(server.read(&mut [0])? == 0, "the client sent something");
        drop(server);
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{}", std::process::id());
    // Nothing is ever written: the end of standard input is the sign to leave.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
