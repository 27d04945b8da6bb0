//! The socket that is listened on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

/// Listens without blocking. `[::]` is every address of the machine, those of IPv4 as well, whatever
/// `net.ipv6.bindv6only` says; without IPv6 it is those of IPv4.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        every_address(address.port())?
    } else {
        TcpListener::bind(address)?
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn every_address(port: u16) -> io::Result<TcpListener> {
    match both_families(port) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
        made => Ok(made?),
    }
}

fn both_families(port: u16) -> nix::Result<TcpListener> {
    let made = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // As the standard library does: what waits in TIME-WAIT must not keep a new start from listening.
    setsockopt(&made, sockopt::ReuseAddr, &true)?;
    setsockopt(&made, sockopt::Ipv6V6Only, &false)?;
    bind(made.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))?;
    nix::sys::socket::listen(&made, Backlog::new(128)?)?;
    Ok(made.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn every_address_is_that_of_both_families() {
        let listener = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).unwrap();
        // Without IPv6 nobody can come that way.
        let has_v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        assert_eq!(TcpStream::connect((Ipv6Addr::LOCALHOST, address.port())).is_ok(), has_v6);
    }

    #[test]
    fn one_address_is_one_address() {
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        assert!(listener.local_addr().unwrap().ip().is_loopback());
        let taken = listen(listener.local_addr().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
