//! Many connects, each to a destination of its own: which source ports does the kernel choose?

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind, connect, getsockname, getsockopt,
    setsockopt, socket, sockopt,
};

use crate::node::NODE;

/// First two bytes of the destinations' addresses; a pod answers for all of them.
const NETWORK: [u8; 2] = [10, 99];
/// The destination that connects come back to; the others are seen once.
const HOME: u16 = 0xfffe;
/// How many collisions are watched for [`PATIENCE`]; the others are closed at once.
const WATCHED: usize = 20;
/// How long a connect may take, milliseconds.
const PATIENCE: u16 = 200;

/// Connects `count` times from the node, the source port chosen by `connect` or by `bind`; every `home`-th time to the
/// same destination. `services`: a file with the service ports. Prints one line of JSON.
pub(super) fn run(way: &str, count: &str, home: &str, services: &str) -> Result<()> {
    let (count, home): (u16, u16) = (count.parse()?, home.parse()?);
    let services = std::fs::read_to_string(services).with_context(|| format!("cannot read {services}"))?;
    let services: BTreeSet<u16> = services.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let (mut even, mut connected, mut at_home) = (0, 0, Vec::new());
    let (mut collisions, mut collisions_connected) = (Vec::new(), 0);
    for index in 0..count {
        let goes_home = home > 0 && index % home == 0;
        let [high, low] = if goes_home { HOME } else { index }.to_be_bytes();
        let address = Ipv4Addr::new(NETWORK[0], NETWORK[1], high, low);
        let (socket, port) = dial(way, (address, 80).into())?;
        even += u16::from(port % 2 == 0);
        if goes_home {
            at_home.push(port);
        }
        if services.contains(&port) {
            if collisions.len() < WATCHED {
                collisions_connected += u16::from(connects(&socket)?);
            }
            collisions.push(port);
        } else {
            connected += u16::from(connects(&socket)?);
        }
    }
    println!(
        "{}",
        serde_json::json!({
            "connects": count,
            "even": even,
            "connected": connected,
            "home": at_home,
            "collisions": collisions,
            "collisions_connected": collisions_connected,
        })
    );
    Ok(())
}

/// A socket under way to `remote`, and its source port. It resets when it is closed, so that no port stays in TIME-WAIT.
fn dial(way: &str, remote: SocketAddr) -> Result<(OwnedFd, u16)> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    match way {
        "connect" => {}
        "bind" => {
            let local = SocketAddr::new(NODE.parse()?, 0);
            bind(socket.as_raw_fd(), &SockaddrStorage::from(local))?;
        }
        other => bail!("unknown way {other}"),
    }
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(remote)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => bail!("connect to {remote}: {error}"),
    }
    let local = getsockname::<SockaddrIn>(socket.as_raw_fd())?;
    anyhow::ensure!(local.ip().to_string() == NODE, "the source address is {}", local.ip());
    Ok((socket, local.port()))
}

/// Whether the connection comes about in time.
fn connects(socket: &OwnedFd) -> Result<bool> {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let ready = poll(&mut polled, PollTimeout::from(PATIENCE))? == 1;
    Ok(ready && getsockopt(socket, sockopt::SocketError)? == 0)
}
