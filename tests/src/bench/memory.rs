//! Memory of the tracer, its own and the kernel's for it, and that so many services fit.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::client::{Server, connect_from};
use super::observer::AUTO;
use super::programs::{FdInfo, fd_infos, number};
use crate::reliability::process::Usage;

/// Address of the service with this number. All are on the loopback, so that any can be bound to; none has a port
/// that the kernel gives to clients (32768 and up).
fn service(number: u32) -> SocketAddr {
    let port = 20_000 + u16::try_from(number % 10_000).unwrap_or_default();
    SocketAddr::from((Ipv4Addr::from_bits(0x7f01_0000 + number), port))
}

/// Writes a table of `ipvsadm -Sn`: so many services, two backends each.
pub(super) fn write_services(count: u32) -> Result<PathBuf> {
    let mut text = String::new();
    for number in 0..count {
        let service = service(number);
        let _ = writeln!(text, "-A -t {service} -s rr");
        for backend in 0..2 {
            let backend = Ipv4Addr::from_bits(0x0a00_0000 + number * 2 + backend);
            let _ = writeln!(text, "-a -t {service} -r {backend}:8080 -m -w 1");
        }
    }
    let path = PathBuf::from(format!("/tmp/bench-services-{count}"));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Starts the tracer with so many services and looks at what it takes; a connect from the last one must be caught.
pub(super) fn measure(count: u32) -> Result<Value> {
    let services = write_services(count)?;
    let server = Server::start()?;
    let mut tracer = AUTO.trace(&services)?;
    // It is read once; natively, /tmp is the machine's.
    std::fs::remove_file(services)?;
    let usage = Usage::of(tracer.pid())?;
    let maps = fd_infos(tracer.pid(), "map_id")?.iter().map(map).collect::<Result<Vec<_>>>()?;
    let last = service(count - 1);
    connect_from(last, server.address())?;
    tracer.wait_for_incidents(1)?;
    let (told, _) = tracer.stop()?;
    let local = told.incidents.first().and_then(|incident| incident.pointer("/connection/local"));
    ensure!(
        local.and_then(Value::as_str) == Some(&last.to_string()),
        "{count} services: a connect from {last} was seen as {local:?}"
    );
    let losses = told.summary.get("lost").cloned().unwrap_or_default();
    ensure!(losses == json!({}), "{count} services: lost {losses}");
    Ok(json!({
        "services": count,
        "resident_kib": usage.resident_kib,
        "peak_kib": usage.peak_kib,
        "maps": maps,
        "last_service_caught": true,
        "lost": losses,
    }))
}

fn map(info: &FdInfo) -> Result<Value> {
    let id = u32::try_from(number(info, "map_id")?)?;
    let map = aya::maps::MapInfo::from_id(id)?;
    Ok(json!({"name": map.name_as_str(), "kib": number(info, "memlock")?.div_ceil(1024)}))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_services_are_the_same_and_none_has_a_client_port() {
        let services: BTreeSet<SocketAddr> = (0..200_000).map(service).collect();
        assert_eq!(services.len(), 200_000);
        assert!(services.iter().all(|service| service.ip().is_loopback() && service.port() < 32_768));
    }
}
