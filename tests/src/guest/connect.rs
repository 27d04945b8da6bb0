//! The process of a client: one connect in one particular way, and one line of JSON about it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, getsockname, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::client::{Connect, Then};
use crate::{cgroups, netns};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n";
/// MSG_FASTOPEN (include/linux/socket.h), which nix does not name.
const MSG_FASTOPEN: i32 = 0x2000_0000;

/// Connects as the argument says, prints `{"local": …, "error": …}`.
pub(super) fn run(argument: &str) -> Result<()> {
    let how = Connect::parse(argument)?;
    cgroups::join_asked()?;
    if how.namespace != "node" {
        netns::enter(how.namespace)?;
    }
    // Nothing is ever written: the end of standard input is the sign to begin.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let (socket, ended) = dial(&how)?;
    let local = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(address);
    let error = ended.err().map(|error| format!("{error:?}"));
    if error.is_none() && !how.fast_open {
        use_connection(how.then, socket)?;
    }
    let local = local.map(|local| local.to_string());
    println!("{}", serde_json::json!({"local": local, "error": error}));
    Ok(())
}

/// A socket whose connect (or bind) ended one way or the other.
fn dial(how: &Connect) -> Result<(OwnedFd, Result<(), Errno>)> {
    let remote = storage(how.remote, how.mapped);
    let family = if how.mapped || how.remote.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = if how.nonblocking { SockFlag::SOCK_NONBLOCK } else { SockFlag::empty() };
    let socket = socket(family, SockType::Stream, flags, None)?;
    if how.reuse_address {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if how.no_port {
        set_no_port(&socket)?;
    }
    let milliseconds = i64::try_from(how.timeout.as_millis())?;
    setsockopt(
        &socket,
        sockopt::SendTimeout,
        &TimeVal::new(milliseconds / 1000, milliseconds % 1000 * 1000),
    )?;
    if let Some(local) = how.local
        && let Err(error) = bind(socket.as_raw_fd(), &storage(local, how.mapped))
    {
        return Ok((socket, Err(error)));
    }
    let ended = if how.fast_open {
        // Returns once the SYN with the data has left; the answer tells that the connection came about.
        let flags = MsgFlags::from_bits_retain(MSG_FASTOPEN);
        match sendto(socket.as_raw_fd(), REQUEST, &remote, flags) {
            Ok(_) => wait(&socket, PollFlags::POLLIN, how)?,
            Err(error) => Err(error),
        }
    } else {
        connect(socket.as_raw_fd(), &remote)
    };
    let ended = if how.nonblocking && ended == Err(Errno::EINPROGRESS) {
        wait(&socket, PollFlags::POLLOUT, how)?
    } else {
        ended
    };
    Ok((socket, ended))
}

/// Waits for an event of a connect under way; ETIMEDOUT if it does not come in the client's time.
fn wait(socket: &OwnedFd, event: PollFlags, how: &Connect) -> Result<Result<(), Errno>> {
    use std::os::fd::AsFd;
    if how.timeout.is_zero() {
        return Ok(Err(Errno::EINPROGRESS));
    }
    let mut polled = [PollFd::new(socket.as_fd(), event)];
    if poll(&mut polled, PollTimeout::try_from(how.timeout)?)? == 0 {
        return Ok(Err(Errno::ETIMEDOUT));
    }
    let error = nix::sys::socket::getsockopt(socket, sockopt::SocketError)?;
    Ok(if error == 0 { Ok(()) } else { Err(Errno::from_raw(error)) })
}

fn set_no_port(socket: &OwnedFd) -> Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `on`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            u32::try_from(size_of::<libc::c_int>())?,
        )
    };
    Errno::result(result).map(drop).context("IP_BIND_ADDRESS_NO_PORT")
}

fn use_connection(then: Then, socket: OwnedFd) -> Result<()> {
    let mut stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    match then {
        Then::Get => {
            stream.write_all(REQUEST)?;
            stream.read_to_end(&mut Vec::new())?;
        }
        Then::CloseUnread => {
            stream.write_all(REQUEST)?;
            stream.peek(&mut [0])?;
        }
        Then::Abort => {
            let now = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&stream, sockopt::Linger, &now)?;
        }
    }
    Ok(())
}

fn storage(address: SocketAddr, mapped: bool) -> SockaddrStorage {
    match (address.ip(), mapped) {
        (IpAddr::V4(v4), true) => {
            SockaddrStorage::from(SocketAddr::from((v4.to_ipv6_mapped(), address.port())))
        }
        _ => SockaddrStorage::from(address),
    }
}

fn address(storage: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip().to_canonical(), v6.port()))))
}
