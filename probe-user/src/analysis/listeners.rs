//! Ports that a listener could not have, or has although they are services.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::material::{FromInput, Material};
use crate::diagnosis::incident::Incident;
use crate::diagnosis::listen::{ListenConflict, listen_conflict};
use crate::exposure::exposed::tcp_services;
use crate::handshakes::Coverage;
use crate::kubernetes::kube_proxy_log::RefusedPort;
use crate::node::sockets::{Socket, TcpState};
use crate::observation::Owner;

/// The component that held NodePorts open itself until Kubernetes 1.23.
const KUBE_PROXY: &str = "kube-proxy";

/// One incident per port.
pub(super) fn conflicts(material: &Material, coverage: &Coverage) -> Vec<Incident> {
    let node = material.node_facts();
    let refused =
        material.refused.iter().filter(|from| from.value.in_use).map(|from| refused(from, material));
    let listening = listening(material, coverage);
    refused.chain(listening).map(|conflict| listen_conflict(&conflict, &node)).collect()
}

/// A NodePort that kube-proxy could not listen on.
fn refused(from: &FromInput<RefusedPort>, material: &Material) -> ListenConflict {
    let port = from.value.port;
    let is_holder =
        |socket: &&FromInput<Socket>| socket.value.local.port() == port && !is_kube_proxy(&socket.value);
    let holders: Vec<_> = material.sockets.iter().filter(is_holder).collect();
    let mut texts = vec![format!(
        "kube-proxy could not listen on {} (line {}{}): the port was taken, so it skipped the service",
        from.value,
        from.value.line,
        match from.value.times {
            1 => String::new(),
            times => format!(", {times} times"),
        }
    )];
    texts.extend(
        holders.iter().take(4).map(|socket| format!("{}: {}", socket.input, describe(&socket.value))),
    );
    ListenConflict {
        at: from.at,
        source: Arc::clone(&from.input),
        local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        holder: only_user(holders.iter().map(|from| &from.value)),
        service: None,
        texts,
    }
}

/// Listeners on addresses that are services: IPVS takes what is meant for them.
fn listening(material: &Material, coverage: &Coverage) -> Vec<ListenConflict> {
    let table = coverage.table.as_deref();
    let mut by_port: BTreeMap<u16, IpAddr> = BTreeMap::new();
    for (ip, port) in table.into_iter().flat_map(tcp_services) {
        by_port.entry(port).or_insert(ip);
    }
    let listeners = material
        .sockets
        .iter()
        .filter(|from| from.value.state == TcpState::Listen && !is_kube_proxy(&from.value));
    let conflict = |from: &FromInput<Socket>| {
        let socket = &from.value;
        let address = if socket.local.ip().is_unspecified() {
            // Before Kubernetes 1.24 such a listener is kube-proxy itself: only a named one counts.
            let ip = by_port.get(&socket.local.port()).filter(|_| !socket.users.is_empty())?;
            SocketAddr::new(*ip, socket.local.port())
        } else {
            socket.local
        };
        let service = coverage.of(address).service().cloned()?;
        let text = format!(
            "{}, but {address} is an IPVS service: IPVS takes what is meant for it",
            describe(socket)
        );
        Some(ListenConflict {
            at: from.at,
            source: Arc::clone(&from.input),
            local: socket.local,
            holder: only_user(std::iter::once(socket)),
            service: Some(service),
            texts: vec![text],
        })
    };
    listeners.filter_map(conflict).collect()
}

fn is_kube_proxy(socket: &Socket) -> bool {
    socket.users.iter().any(|user| user.comm == KUBE_PROXY)
}

fn describe(socket: &Socket) -> String {
    let users: Vec<String> =
        socket.users.iter().map(|user| format!("{} (pid {})", user.comm, user.pid)).collect();
    let who = if users.is_empty() { "an unknown process".to_owned() } else { users.join(", ") };
    match socket.state {
        TcpState::Listen => format!("{who} listens on {}", socket.local),
        _ => format!("{who} has a connection from {} to {}", socket.local, socket.remote),
    }
}

/// The process, if it is the same for all.
fn only_user<'a>(sockets: impl Iterator<Item = &'a Socket>) -> Option<Arc<Owner>> {
    let mut users: Vec<_> = sockets.flat_map(|socket| &socket.users).collect();
    users.dedup_by_key(|user| user.pid);
    let [user] = users.as_slice() else { return None };
    Some(Arc::new(Owner { pid: Some(user.pid), comm: Some(user.comm.clone()), ..Owner::default() }))
}
