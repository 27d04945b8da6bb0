//! The columns of `ss`, `netstat` and `lsof`: addresses, and the processes that hold a socket.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::SocketUser;
use crate::ipvs::table::canonical;

/// Most processes of one socket that are kept.
const MAX_USERS: usize = 256;
/// Length of a netstat column without `-W` in which an address was cut to fit: 22 bytes and a colon
/// (`addr_do_one`, net-tools netstat.c).
const CUT_COLUMN: usize = 23;

/// Why a word is no address and port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    #[error(
        "`{0}` has a name in it: list sockets by number (ss -tan, netstat -tan, lsof -nP), so that they can be compared"
    )]
    Name(String),
    #[error("`{0}` is not an address and port")]
    Unreadable(String),
    #[error("`{0}` may have been cut to the width of its column: run netstat with -W, or ss -tan")]
    MayBeCut(String),
}

pub(super) fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// `10.0.0.1:80`, `[fd00::1]:80`, `::ffff:10.0.0.1:80`, `:::80`, `*:80`, `127.0.0.53%lo:53`, `[fe80::1]%eth0:22`.
/// `*` as address is `::`, as port 0.
pub(super) fn address(word: &str) -> Result<SocketAddr, AddressError> {
    let shown = || word.chars().take(100).collect::<String>();
    let (host, port) = word.rsplit_once(':').ok_or_else(|| AddressError::Unreadable(shown()))?;
    let ip = bare_ip(host);
    let number = if port == "*" { Some(0) } else { port.parse().ok().filter(|_| is_number(port)) };
    match (ip, number) {
        (Some(ip), Some(port)) => Ok(canonical(SocketAddr::new(ip, port))),
        (None, Some(_)) if is_name(host) => Err(AddressError::Name(shown())),
        (Some(_), None) if is_name(port) => Err(AddressError::Name(shown())),
        (None, None) if is_name(host) && is_name(port) => Err(AddressError::Name(shown())),
        _ => Err(AddressError::Unreadable(shown())),
    }
}

/// An address in a column of netstat, which cuts long ones silently; a cut one may look like another address.
pub(super) fn netstat_address(word: &str) -> Result<SocketAddr, AddressError> {
    let colons = word.bytes().filter(|byte| *byte == b':').count();
    if word.len() == CUT_COLUMN && colons > 1 {
        return Err(AddressError::MayBeCut(word.to_owned()));
    }
    address(word)
}

/// An address without port, with or without brackets and zone.
pub(super) fn bare_ip(host: &str) -> Option<IpAddr> {
    if host == "*" {
        return Some(Ipv6Addr::UNSPECIFIED.into());
    }
    let host = host.split_once('%').map_or(host, |(address, _)| address);
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// As names of hosts and of services (/etc/services) are written.
fn is_name(word: &str) -> bool {
    word.contains(|c: char| c.is_ascii_alphabetic())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._%+*".contains(&byte))
}

/// `users:(("kubelet",pid=5621,fd=10),("kube-proxy",pid=7,fd=3))`, and the form of older versions,
/// `users:(("sshd",1234,3))`. Each process once, however many descriptors it has.
pub(super) fn users(text: &str) -> Vec<SocketUser> {
    let mut users = Vec::new();
    let Some((_, mut rest)) = text.split_once("users:(") else { return users };
    while let Some((_, after)) = rest.split_once("(\"") {
        let Some((comm, after)) = after.split_once("\",") else { break };
        let digits = after.strip_prefix("pid=").unwrap_or(after);
        let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        if let Ok(pid) = digits.parse() {
            let user = SocketUser { comm: comm.to_owned(), pid };
            if !users.contains(&user) {
                users.push(user);
            }
        }
        if users.len() >= MAX_USERS {
            break;
        }
        rest = after;
    }
    users
}

/// `ino:12345` of `ss -e`; 0 where there is none.
pub(super) fn inode(text: &str) -> Option<u64> {
    let (_, after) = text.split_once(" ino:")?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|inode| *inode != 0)
}

/// `14125/kube-proxy` of `netstat -p`, in the columns behind the state. The name may hold blanks.
pub(super) fn netstat_program(words: &[&str]) -> Vec<SocketUser> {
    const TIMERS: [&str; 5] = ["off", "on", "keepalive", "timewait", "probe"];
    // With -e, user and inode come first.
    let program = words.iter().position(|word| program_of(word).is_some());
    let Some((pid, name)) = program.and_then(|at| program_of(words.get(at)?)) else { return Vec::new() };
    let mut comm = name.to_owned();
    for word in words.iter().skip(program.unwrap_or_default() + 1) {
        if TIMERS.contains(word) || word.starts_with("unkn-") {
            break;
        }
        comm.push(' ');
        comm.push_str(word);
    }
    vec![SocketUser { comm, pid }]
}

fn program_of(word: &str) -> Option<(u32, &str)> {
    let (pid, name) = word.split_once('/')?;
    Some((pid.parse().ok()?, name))
}
