//! Proves the field layout before anything is trusted: connects on throw-away loopback sockets must come back from the
//! kernel side exactly as they were made. A wrong offset loads and runs like a right one; it just yields garbage.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage};
use probe_ebpf::{Event, Kind};

use super::counts::CountMap;
use super::event::{decode, socket_address};
use super::loader::{LoadError, Tracer};
use crate::ipvs::table::{Protocol, ServiceId};

/// How long the events of a loopback connect may take; on a loaded, emulated machine they can be slow.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why the self-test failed.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// A socket call failed.
    #[error("self-test: {operation} on loopback: {source}")]
    Socket {
        /// The call.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A map operation failed.
    #[error(transparent)]
    Map(#[from] LoadError),
    /// An event did not come.
    #[error(
        "self-test: a loopback connect was made, but its {0} event did not come back from the kernel side; \
         another hook (--hooks kprobe or --hooks stable) may work"
    )]
    NoEvent(&'static str),
    /// An event came with a wrong value: the layout is not this kernel's.
    #[error(
        "self-test: the kernel side reports {field} = {seen}, but it is {real}: the field layout does not fit this kernel; please report it"
    )]
    Wrong {
        /// Which value.
        field: &'static str,
        /// As the kernel side saw it.
        seen: String,
        /// As it is.
        real: String,
    },
}

/// What the self-test found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTest {
    /// False if the pids that the kernel side reports are not those that /proc shows here (a nested pid namespace).
    pub pids_match: bool,
    /// True if the owner (pid) came back at all.
    pub owner_seen: bool,
    /// True if IPv6 was tested (loopback has an IPv6 address).
    pub ipv6: bool,
}

/// Runs the self-test in the calling thread's network namespace, whose inode is `netns`.
pub fn run(tracer: &mut Tracer, ring: &mut RingBuf<MapData>, netns: u32) -> Result<SelfTest, SelfTestError> {
    let mut result = one(tracer, ring, netns, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if TcpListener::bind(v6).is_ok() {
        one(tracer, ring, netns, v6)?;
        result.ipv6 = true;
    }
    Ok(result)
}

fn one(
    tracer: &mut Tracer,
    ring: &mut RingBuf<MapData>,
    netns: u32,
    loopback: SocketAddr,
) -> Result<SelfTest, SelfTestError> {
    let fail = |operation| move |source| SelfTestError::Socket { operation, source };
    let listener = with_free_port(loopback, TcpListener::bind).map_err(fail("bind"))?;
    let remote = listener.local_addr().map_err(fail("getsockname"))?;
    let (socket, local) = with_free_port(loopback, bound_socket).map_err(fail("bind"))?;
    let service = [ServiceId::Address(Protocol::Tcp, local)];
    tracer.services.add(netns, &service)?;
    let connected = nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(remote));
    let events =
        connected.map_err(|error| fail("connect")(error.into())).and_then(|()| collect(ring, local, remote));
    tracer.services.remove(netns, &service)?;
    let (began, established) = events?;
    check(&began, &established, netns)
}

/// The same for the connect counts: connects on loopback must be counted, with the right addresses, process and
/// namespace. All namespaces must be selected.
pub fn run_counts(counts: &CountMap, netns: u32) -> Result<SelfTest, SelfTestError> {
    let mut result = one_count(counts, netns, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if TcpListener::bind(v6).is_ok() {
        one_count(counts, netns, v6)?;
        result.ipv6 = true;
    }
    Ok(result)
}

fn one_count(counts: &CountMap, netns: u32, loopback: SocketAddr) -> Result<SelfTest, SelfTestError> {
    let fail = |operation| move |source| SelfTestError::Socket { operation, source };
    let listener = with_free_port(loopback, TcpListener::bind).map_err(fail("bind"))?;
    let remote = listener.local_addr().map_err(fail("getsockname"))?;
    let (socket, local) = with_free_port(loopback, bound_socket).map_err(fail("bind"))?;
    let connected = nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(remote));
    connected.map_err(|error| fail("connect")(error.into()))?;
    let entries = counts.read()?;
    let found = entries.iter().find(|(key, _)| socket_address(key.remote, key.remote_port) == remote);
    let Some((key, count)) = found else { return Err(SelfTestError::NoEvent("connect count")) };
    let wrong = |field, seen: String, real: String| SelfTestError::Wrong { field, seen, real };
    if key.netns != netns {
        return Err(wrong("network namespace", key.netns.to_string(), netns.to_string()));
    }
    let seen = socket_address(key.local, 0).ip();
    if seen != local.ip() {
        return Err(wrong("local address", seen.to_string(), local.ip().to_string()));
    }
    if count.connects != 1 {
        return Err(wrong("number of connects", count.connects.to_string(), "1".to_owned()));
    }
    Ok(SelfTest { pids_match: key.pid == std::process::id(), owner_seen: key.pid != 0, ipv6: false })
}

/// Binds to a port of the kernel's choice. On a node that has used up its ephemeral ports, which is what portclash is
/// there to find, any other port does.
fn with_free_port<T>(loopback: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let first = bind(loopback);
    if !first.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
        return first;
    }
    let others = (1024..=u16::MAX).rev().map(|port| bind(SocketAddr::new(loopback.ip(), port)));
    others.into_iter().find(Result::is_ok).unwrap_or(first)
}

fn bound_socket(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = nix::sys::socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    let bound: SockaddrStorage = nix::sys::socket::getsockname(socket.as_raw_fd())?;
    let local = match (bound.as_sockaddr_in(), bound.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::from((v4.ip(), v4.port())),
        (_, Some(v6)) => SocketAddr::from((v6.ip(), v6.port())),
        _ => return Err(io::Error::other("getsockname gave no IP address")),
    };
    Ok((socket, local))
}

/// Waits for the two events of this connect; other events in the ring are dropped (tracing has not begun).
fn collect(
    ring: &mut RingBuf<MapData>,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<(Event, Event), SelfTestError> {
    let (mut began, mut established, mut other) = (None, None, None);
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        while let Some(record) = ring.next() {
            let Ok((kind, event)) = decode(&record) else { continue };
            let tuple = (
                socket_address(event.local, event.local_port),
                socket_address(event.remote, event.remote_port),
            );
            match kind {
                Kind::ConnectBegan if tuple == (local, remote) => began = Some(event),
                Kind::StateChanged if tuple == (local, remote) => established = Some(event),
                Kind::ConnectBegan => other = Some(tuple),
                _ => {}
            }
        }
        if let (Some(began), Some(established)) = (began, established) {
            return Ok((began, established));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    match (began, other) {
        (Some(_), _) => Err(SelfTestError::NoEvent("outcome")),
        (None, Some(seen)) => Err(SelfTestError::Wrong {
            field: "addresses",
            seen: format!("{} -> {}", seen.0, seen.1),
            real: format!("{local} -> {remote}"),
        }),
        (None, None) => Err(SelfTestError::NoEvent("connect")),
    }
}

const TCP_ESTABLISHED: i32 = 1;

fn check(began: &Event, established: &Event, netns: u32) -> Result<SelfTest, SelfTestError> {
    let wrong = |field, seen: u64, real: u64| SelfTestError::Wrong {
        field,
        seen: seen.to_string(),
        real: real.to_string(),
    };
    if began.netns != netns {
        return Err(wrong("network namespace", began.netns.into(), netns.into()));
    }
    if established.code != TCP_ESTABLISHED {
        return Err(wrong("TCP state", u64::from(established.code.unsigned_abs()), 1));
    }
    // Two independent fields agree: the number the SYN is sent with, and what the peer acknowledged of it.
    if established.seq != began.seq.wrapping_add(1) {
        return Err(wrong(
            "initial sequence number + 1",
            began.seq.wrapping_add(1).into(),
            established.seq.into(),
        ));
    }
    Ok(SelfTest { pids_match: began.pid == std::process::id(), owner_seen: began.pid != 0, ipv6: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_is_taken_where_the_kernel_has_none_left() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let used_up = |address: SocketAddr| match address.port() {
            0 | 60_000.. => Err(io::Error::from(io::ErrorKind::AddrInUse)),
            port => Ok(port),
        };
        assert_eq!(with_free_port(loopback, used_up).unwrap(), 59_999);
        let denied = |_| Err::<u16, _>(io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(with_free_port(loopback, denied).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let none = |_| Err::<u16, _>(io::Error::from(io::ErrorKind::AddrInUse));
        assert_eq!(with_free_port(loopback, none).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
