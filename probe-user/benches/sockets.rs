//! Sockets in TIME-WAIT, counted per local address: by inet_diag, and by `ss -tan | awk` and others.
//!
//! `cargo xtask bench sockets` runs it, as root. Arguments: how many sockets, and rounds. Everything happens in a
//! network namespace of its own. Prints one object of JSON.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use probe_user::node::netns::NetNs;
use probe_user::node::sockets::TcpState;
use probe_user::node::sockets::diag::{States, count_time_waits, read_of};
use probe_user::node::sockets::text::parse_sockets;
use serde_json::json;

/// Ports that are connected to, so that each needs only part of the local ports.
const DESTINATIONS: usize = 8;
const AWK: &str =
    "ss -tan | awk '/^TIME-WAIT/ { sub(/:[0-9]+$/, \"\", $4); n[$4]++ } END { for (a in n) print n[a], a }'";

/// A way to count, by its name; it gives the count.
type Way<'a> = (&'static str, Box<dyn Fn() -> u64 + 'a>);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [count, rounds] = arguments.as_slice() else {
        eprintln!("arguments: COUNT ROUNDS");
        return;
    };
    let (count, rounds): (u64, usize) = (count.parse().unwrap(), rounds.parse().unwrap());
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    shell("ip link set lo up");
    for (name, value) in
        [("ip_local_port_range", "1024 65535"), ("tcp_max_tw_buckets", "262144"), ("tcp_tw_reuse", "0")]
    {
        std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).unwrap();
    }
    make_time_waits(count);
    let netns = NetNs::own().unwrap();
    let listing = shell("ss -tan");
    let ways = ways(&netns, &listing);
    let mut times = vec![Vec::new(); ways.len()];
    for _ in 0..=rounds {
        for ((name, way), times) in ways.iter().zip(&mut times) {
            let begin = Instant::now();
            let counted = way();
            times.push(begin.elapsed());
            assert_eq!(counted, count, "{name}: every socket is counted");
        }
    }
    // The first round warms up.
    let medians: Vec<f64> =
        times.into_iter().map(|times| median(times.into_iter().skip(1).collect())).collect();
    let base = medians.last().copied().unwrap_or(f64::NAN);
    let rows: Vec<_> = ways
        .iter()
        .zip(&medians)
        .map(|((name, _), ms)| json!({"name": name, "ms": ms, "ratio": ms / base}))
        .collect();
    println!("{}", json!({"sockets": count, "rounds": rounds, "ways": rows}));
}

/// The last is what the others are compared with.
fn ways<'a>(netns: &'a NetNs, listing: &'a str) -> Vec<Way<'a>> {
    vec![
        (
            "inet_diag, counted per local address",
            Box::new(|| count_time_waits(netns, |_| true).unwrap().0.values().map(|waits| waits.count).sum()),
        ),
        (
            "inet_diag, all rows kept",
            Box::new(|| {
                let read = read_of(netns, States::of(&[TcpState::TimeWait])).unwrap();
                u64::try_from(read.sockets.len()).unwrap()
            }),
        ),
        (
            "text of ss -tan, parsed",
            Box::new(|| {
                let parsed = parse_sockets(listing.as_bytes());
                let waiting = parsed.sockets.iter().filter(|socket| socket.state == TcpState::TimeWait);
                u64::try_from(waiting.count()).unwrap()
            }),
        ),
        (
            "awk on /proc/net/tcp",
            Box::new(|| shell("awk '$4 == \"06\"' /proc/net/tcp | wc -l").trim().parse().unwrap()),
        ),
        (
            "ss -tan | awk, counted per local address",
            Box::new(|| shell(AWK).split_whitespace().next().unwrap().parse().unwrap()),
        ),
    ]
}

/// The client closes first, so that its end goes to TIME-WAIT.
fn make_time_waits(count: u64) {
    let listen = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listeners: Vec<TcpListener> = (0..DESTINATIONS).map(listen).collect();
    for (_, listener) in (0..count).zip(listeners.iter().cycle()) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        drop(client);
        drop(accepted);
    }
}

fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command}");
    String::from_utf8(output.stdout).unwrap()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}
