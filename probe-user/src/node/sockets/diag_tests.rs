use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::node::netns::tests::fresh;

/// A namespace with loopback; `None` without the privileges.
fn lab() -> Option<NetNs> {
    let netns = fresh()?;
    let up = || Command::new("ip").args(["link", "set", "lo", "up"]).status();
    netns.run_inside(up).unwrap().is_ok_and(|status| status.success()).then_some(netns)
}

/// Closes the client's end first, so that it goes to TIME-WAIT.
fn time_wait(listener: &TcpListener, server: SocketAddr) -> SocketAddr {
    let mut client = TcpStream::connect(server).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let local = client.local_addr().unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    drop(accepted);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    local
}

fn find(rows: &[Row], local: SocketAddr, state: TcpState) -> Option<&Row> {
    rows.iter().find(|row| row.local == local && row.state == state)
}

fn rows(netns: &NetNs, states: States) -> Vec<Row> {
    let (rows, reading) = fold(netns, states, Vec::new, Vec::push).unwrap();
    assert_eq!(reading, Reading { way: Way::Netlink, note: None, unreadable: Vec::new() });
    rows
}

#[test]
fn sockets_of_every_kind_in_a_namespace_of_their_own() {
    let Some(netns) = lab() else { return };
    let inside = || {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 8080)).unwrap();
        let v6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8081)).unwrap();
        let waiting = time_wait(&v4, v4.local_addr().unwrap());
        let mapped = time_wait(&v6, "127.0.0.1:8081".parse().unwrap());
        let six = time_wait(&v6, "[::1]:8081".parse().unwrap());
        // Last, because it stays in the listener's queue.
        let open = TcpStream::connect(v4.local_addr().unwrap()).unwrap();
        (v4, v6, open, [waiting, mapped, six])
    };
    let (v4, _v6, mut open, waiting) = netns.run_inside(inside).unwrap();
    let all = rows(&netns, States::ALL);
    let listener = find(&all, v4.local_addr().unwrap(), TcpState::Listen).unwrap();
    assert!(listener.inode != 0 && listener.remote.port() == 0);
    assert!(find(&all, "[::]:8081".parse().unwrap(), TcpState::Listen).is_some());
    let established = find(&all, open.local_addr().unwrap(), TcpState::Established).unwrap();
    assert_eq!(established.remote, v4.local_addr().unwrap());
    for local in waiting {
        let row = find(&all, local, TcpState::TimeWait).unwrap();
        assert!(row.time_wait_left_ms.unwrap() <= 60_000, "{row:?}");
    }
    assert_eq!(waiting[1].ip(), Ipv4Addr::LOCALHOST);
    open.write_all(b"x").unwrap();

    let only = rows(&netns, States::of(&[TcpState::TimeWait]));
    assert_eq!(only.len(), 3, "{only:?}");
    let (counts, _) = count_time_waits(&netns, |_| true).unwrap();
    assert_eq!(counts[&Ipv4Addr::LOCALHOST.into()].count, 2);
    assert_eq!(counts[&Ipv6Addr::LOCALHOST.into()].count, 1);
    let (counts, _) = count_time_waits(&netns, |row| row.remote.port() == 8080).unwrap();
    assert_eq!(counts.len(), 1);
    let sockets = read_of(&netns, States::of(&[TcpState::Listen])).unwrap().sockets;
    assert_eq!(sockets.len(), 2);
    assert!(sockets.iter().all(|socket| socket.inode.is_some()));
}

#[test]
fn another_namespace_has_other_sockets() {
    let Some(netns) = lab() else { return };
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert_eq!(rows(&netns, States::ALL), []);
    let own = NetNs::own().unwrap();
    assert!(!rows(&own, States::of(&[TcpState::Listen])).is_empty());
}

// prometheus/node_exporter#1061, influxdata/telegraf#6559
#[test]
fn proc_is_only_the_way_that_is_left_and_agrees() {
    let Some(netns) = lab() else { return };
    let inside = || {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 8080)).unwrap();
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 8080)).unwrap();
        time_wait(&v4, v4.local_addr().unwrap());
        time_wait(&v6, v6.local_addr().unwrap());
        (v4, v6)
    };
    let _listeners = netns.run_inside(inside).unwrap();
    let by_proc = || {
        fold_proc(
            States::ALL,
            &Vec::new,
            &mut |rows: &mut Vec<Row>, row| rows.push(row),
            "Operation not permitted".into(),
        )
    };
    let (mut by_proc, reading) = netns.run_inside(by_proc).unwrap().unwrap();
    assert_eq!(reading.way, Way::Proc { refused: "Operation not permitted".into() });
    let mut by_netlink = rows(&netns, States::ALL);
    for rows in [&mut by_proc, &mut by_netlink] {
        for row in rows.iter_mut() {
            row.time_wait_left_ms = row.time_wait_left_ms.map(|_| 0);
        }
        rows.sort_by_key(|row| (row.local, row.remote));
    }
    assert_eq!(by_proc.len(), 4);
    assert_eq!(by_proc, by_netlink);
}

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn feed(bytes: &[u8]) -> (io::Result<bool>, bool, usize) {
    let mut log = RowLog::default();
    let mut take = |_| {};
    let mut dump = Dump { sequence: 1, interrupted: false, number: 0, log: &mut log, take: &mut take };
    let ended = dump.datagram(bytes);
    (ended, dump.interrupted, log.finish().len())
}

#[test]
fn an_interrupted_dump_and_a_refused_one_are_noticed() {
    let (ended, interrupted, _) = feed(&message(NLMSG_DONE, NLM_F_DUMP_INTR, &[0; 4]));
    assert!(ended.unwrap() && interrupted);
    let (ended, ..) = feed(&message(NLMSG_ERROR, 0, &(-libc::ENOENT).to_ne_bytes()));
    assert!(is_refusal(&ended.unwrap_err()));
    let (ended, ..) = feed(&message(NLMSG_DONE, 0, &(-libc::ENOMEM).to_ne_bytes()));
    assert!(!is_refusal(&ended.unwrap_err()));
    assert!(feed(&message(NLMSG_OVERRUN, 0, &[])).0.is_err());
}

#[test]
fn a_bad_row_hides_no_other() {
    let mut bytes = message(BY_FAMILY, 2, &[2; 10]);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(message(NLMSG_DONE, 2, &[0; 4]));
    let (ended, _, unreadable) = feed(&bytes);
    assert!(ended.unwrap());
    assert_eq!(unreadable, 1);
    assert_eq!(feed(&[1; 20]).2, 1);
}
