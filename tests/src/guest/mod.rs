//! What the one binary of the guest does, by how it is called.

mod burst;
mod choose;
mod connect;
mod demo;
mod init;
mod itself;
mod kubelet;
mod limited;
mod record;
mod test;

use std::process::ExitCode;

pub use init::load_module;

use crate::{bench, host, node, process, reliability};

/// Entry point of `lab-init`.
pub fn main() -> ExitCode {
    // In a container it is process 1 as well, but under another name.
    if std::process::id() == 1 && std::env::args().next().is_some_and(|name| name == "/init") {
        return init::run();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((mode, rest)) if mode == "run" => run(rest),
        Some((mode, rest)) if mode == "test" => test::run(rest),
        Some((mode, _)) if mode == "demo" => demo::run(),
        Some((mode, _)) if mode == "record" => record::run(),
        Some((mode, rest)) if mode == "bench" => bench::run(rest),
        Some((mode, rest)) if mode == "reliability" => reliability::run(rest),
        Some((mode, [first, count, milliseconds])) if mode == "flood" => {
            reliability::load::flood(first, count, milliseconds).map(|()| 0)
        }
        Some((mode, [local, first, count, remote])) if mode == "burst" => {
            burst::run(local, first, count, remote).map(|()| 0)
        }
        Some((mode, [settings])) if mode == "kubelet" => kubelet::run(settings).map(|()| 0),
        Some((mode, [way, count, home, services])) if mode == "choose" => {
            choose::run(way, count, home, services).map(|()| 0)
        }
        Some((mode, [address, count])) if mode == "itself" => itself::run(address, count).map(|()| 0),
        Some((mode, [names, command @ ..])) if mode == "limited" => limited::run(names, command).map(|()| 0),
        Some((mode, [how])) if mode == "connect" => connect::run(how).map(|()| 0),
        _ => Err(anyhow::anyhow!("unknown mode {arguments:?}")),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            report(&error);
            ExitCode::from(2)
        }
    }
}

/// Sets the node up, runs a command and shows what it prints as it comes.
fn run(command: &[String]) -> anyhow::Result<u8> {
    node::set_up()?;
    process::stream(command, |_| {})
}

/// To whoever reads this program's output: a client's is read by the lab, the lab's by the host.
fn report(error: &anyhow::Error) {
    const OF_A_CLIENT: [&str; 7] = ["connect", "burst", "choose", "flood", "itself", "kubelet", "limited"];
    if std::env::args().nth(1).is_some_and(|mode| OF_A_CLIENT.contains(&mode.as_str())) {
        println!("{error:#}");
    } else {
        host::say(&format!("error: {error:#}"));
    }
}
