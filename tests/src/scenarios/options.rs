//! What the tracer's options show, and when they end it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::clients::PATIENCE;
use super::expected::{Addresses, Collision, advice_to_reserve, timed_out};
use crate::client::{Connect, Ended, Running};
use crate::lab::{Lab, assert_incidents, probe};
use crate::node::{NODE, POD, ipvsadm};
use crate::process::run;
use crate::tracer::Tracer;

/// The ports of the services, as the advice names them.
const PORTS: &str = "36770-36772";

/// Three collisions and one tracer per filter: each shows those that it was asked for, and counts no other.
pub(super) fn filters(lab: &mut Lab) -> Result<()> {
    lab.serve("pod", 81)?;
    lab.serve("node", 8082)?;
    let addresses = [
        Addresses::v4(36770),
        Addresses { remote: format!("{POD}:81"), ..Addresses::v4(36771) },
        Addresses { remote: format!("{NODE}:8082"), ..Addresses::v4(36772) },
    ];
    let mut connects = Vec::new();
    for (each, name) in addresses.iter().zip(["kubelet", "prober", "prober"]) {
        lab.service(&each.local, &[&each.backend])?;
        let mut connect = probe(&each.local, &each.remote)?;
        connect.name = name;
        connect.timeout = Duration::from_millis(500);
        connects.push(connect);
    }
    let mut running = connects.iter().map(Connect::start_waiting).collect::<Result<Vec<_>>>()?;
    let pid = running.first().map_or(0, Running::pid).to_string();
    let of_pod_81 = format!("{POD}:81");
    let filters: [(&[&str], &[usize]); 6] = [
        (&["--pid", &pid], &[0]),
        (&["--comm", "kubelet"], &[0]),
        (&["--port", "36771"], &[1]),
        (&["--remote", POD], &[0, 1]),
        (&["--remote", &of_pod_81], &[1]),
        (&["--comm", "prober", "--remote", POD], &[1]),
    ];
    let mut tracers = Vec::new();
    for (arguments, _) in filters {
        tracers.push(Tracer::start(arguments)?);
    }
    let mut clients = Vec::new();
    for mut client in running.drain(..) {
        client.go();
        clients.push(client.wait()?);
    }
    // The last one is shown by no filter, so there is nothing to wait for.
    std::thread::sleep(Duration::from_secs(1));
    let mut wrong = Vec::new();
    for ((arguments, wanted), mut tracer) in filters.into_iter().zip(tracers) {
        tracer.wait_for_incidents(wanted.len())?;
        let (traced, messages) = tracer.stop()?;
        let mut expected = Vec::new();
        for &index in wanted {
            let parts = addresses.get(index).zip(connects.get(index)).zip(clients.get(index));
            if let Some(((addresses, connect), client)) = parts {
                expected.push(short(addresses, connect, client, PORTS)?);
            }
        }
        if let Err(error) = assert_incidents(&traced, &expected) {
            lab.note("portclash trace said", &messages);
            wrong.push(format!("{}: {error:#}", arguments.join(" ")));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    clients.iter().try_for_each(timed_out)
}

/// `--duration` and `--count` end the trace without a signal.
pub(super) fn ends_by_itself(lab: &mut Lab) -> Result<()> {
    let addresses = Addresses::v4(36773);
    lab.service(&addresses.local, &[&addresses.backend])?;
    let timed = Tracer::start(&["--duration", "3s"])?;
    let start = Instant::now();
    let (traced, _) = timed.end()?;
    let took = start.elapsed();
    assert_incidents(&traced, &[])?;
    ensure!(
        took > Duration::from_millis(2500) && took < Duration::from_secs(8),
        "--duration 3s took {took:?}"
    );

    let mut connect = probe(&addresses.local, &addresses.remote)?;
    connect.timeout = Duration::from_millis(500);
    let counting = Tracer::start(&["--count", "1"])?;
    let client = connect.run()?;
    let (traced, messages) = counting.end()?;
    lab.note("portclash trace said", &messages);
    timed_out(&client)?;
    assert_incidents(&traced, &[short(&addresses, &connect, &client, "36773")?])
}

/// A dump of another table takes the place of the node's own.
pub(super) fn services_from_a_file(lab: &mut Lab) -> Result<()> {
    const FILE: &str = "/tmp/services";
    let (listed, own) = (Addresses::v4(36774), Addresses::v4(36775));
    lab.service(&listed.local, &[&listed.backend])?;
    std::fs::write(FILE, run("ipvsadm -Sn")?)?;
    ipvsadm("-C")?;
    lab.service(&own.local, &[&own.backend])?;
    let mut connect = probe(&listed.local, &listed.remote)?;
    connect.timeout = PATIENCE;
    let colliding = probe(&own.local, &own.remote)?;
    let (clients, traced) = lab.trace(&["--ipvs", FILE], 1, |_| Ok((connect.run()?, colliding.run()?)))?;
    ensure!(clients.0.error.is_none(), "the connect failed: {:?}", clients.0.error);
    timed_out(&clients.1)?;
    let expected = Collision::new(&listed, &connect, &clients.0)
        .with("/duration_ms", json!({"<between>": [0, 3000]}))
        .with("/connection/syn_retransmits", json!({"<between>": [0, 1]}));
    assert_incidents(&traced, &[expected.survived()])
}

/// A collision of a client that gave up before its first retransmission.
fn short(addresses: &Addresses, connect: &Connect, client: &Ended, ports: &str) -> Result<Value> {
    Collision::new(addresses, connect, client)
        .with("/duration_ms", json!({"<between>": [400, 2500]}))
        .with("/connection/syn_retransmits", json!({"<between>": [0, 1]}))
        .with("/advice", json!([advice_to_reserve(ports)]))
        .hijacked("backend")
}
