//! From all inputs to observations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::Packets;
use super::material::{FromInput, Material};
use crate::handshakes::{Connect, Context, Coverage, Covered, Explained, explain};
use crate::ipvs::table::{IpvsConnection, Protocol, canonical};
use crate::kubelet_log::{FailureClass, ProbeFailure};
use crate::node::conntrack_text::ConntrackRow;
use crate::node::sockets::{Socket, TcpState};
use crate::observation::{Fact, Nanos, Observation, Owner, Tuple};

/// Lowest port that programs are given as a source port by default almost everywhere; below it servers listen.
const FIRST_UNPRIVILEGED: u16 = 1024;
const EADDRNOTAVAIL: i32 = 99;
/// No more rows than this are looked at of one table of connections.
const MAX_ROWS: usize = 1 << 20;

/// What was gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) observations: Vec<Observation>,
    /// Handshakes by address and ISN + 1.
    pub(super) connects: BTreeMap<(Tuple, u32), usize>,
    /// How it is known that the source is a service, where the table alone does not say so.
    pub(super) covered: BTreeMap<SocketAddr, Vec<String>>,
    pub(super) notes: BTreeSet<String>,
}

pub(super) fn gather(material: &Material, packets: &Packets, coverage: &Coverage) -> Gathered {
    let mut gathered = Gathered::default();
    if let Some(table) = &coverage.table {
        let fact = Fact::Services { netns: None, table: Arc::clone(table) };
        gathered.tell(0, &Arc::from("IPVS table"), fact);
    }
    let told = gathered.packets(packets, coverage);
    for table in &material.connections {
        for row in table.value.iter().take(MAX_ROWS) {
            gathered.row(row, (&table.input, table.at), &told, coverage);
        }
    }
    for socket in &material.sockets {
        gathered.socket(socket, &told, coverage);
    }
    for row in &material.tracked {
        gathered.tracked(row, &told, coverage);
    }
    gathered
}

/// Connects that observations were made of, by their addresses: when they began, and their last packet.
type Told = BTreeMap<Tuple, (Nanos, Nanos)>;

impl Gathered {
    fn tell(&mut self, at: Nanos, source: &Arc<str>, fact: Fact) {
        self.observations.push(Observation { at, source: Arc::clone(source), fact });
    }

    fn packets(&mut self, packets: &Packets, coverage: &Coverage) -> Told {
        let context = Context {
            coverage,
            place: &|input, place| packets.place(input, place),
            end: &|input| packets.end(input),
        };
        let mut told = Told::new();
        let mut astray: BTreeMap<SocketAddr, u64> = BTreeMap::new();
        for (index, connect) in packets.joined.connects.iter().enumerate() {
            match explain(connect, &context) {
                Some(Explained::Connect { tuple, covered, observations }) => {
                    self.connects.insert((tuple, connect.number), index);
                    self.observations.extend(observations);
                    self.note_cover(tuple.local, &covered, coverage);
                    told.insert(tuple, span(connect));
                }
                Some(Explained::Astray { server: _, backend }) => *astray.entry(backend).or_default() += 1,
                None => {
                    // A row of a table may still tell what became of it.
                    if let Some(tuple) = connect.tuple() {
                        told.entry(tuple).or_insert_with(|| span(connect));
                    }
                }
            }
        }
        for (backend, count) in astray {
            self.notes.insert(format!(
                "backend {backend} reset {count} replies to connects that no input shows: they look hijacked. A capture of the \
                 node that made those connects, from their SYN on, tells whose they are"
            ));
        }
        told
    }

    fn note_cover(&mut self, local: SocketAddr, covered: &Covered, coverage: &Coverage) {
        let Covered::NodePort { names, .. } = covered else { return };
        let text = match (&coverage.table, &coverage.cut) {
            (Some(_), Some(cut)) => format!(
                "the IPVS table that was given has no service at {local}, but it is not whole ({cut}). Port {} is the NodePort of {}, \
                 and kube-proxy makes a service of that on every address of a node: taken as one",
                local.port(),
                names.join(", ")
            ),
            _ => format!(
                "no IPVS table was given. Port {} is the NodePort of {}, of which kube-proxy in IPVS mode makes a service on every \
                 address of a node",
                local.port(),
                names.join(", ")
            ),
        };
        self.covered.entry(local).or_default().push(text);
    }

    /// A row of the IPVS connection table.
    fn row(&mut self, row: &IpvsConnection, from: (&Arc<str>, Nanos), told: &Told, coverage: &Coverage) {
        if row.protocol != Protocol::Tcp {
            return;
        }
        let (input, at) = from;
        let tuple = Tuple { local: canonical(row.virtual_address), remote: canonical(row.client) };
        let as_client = Tuple { local: tuple.remote, remote: tuple.local };
        if let Some((_, last)) = told.get(&tuple) {
            // The table tells no time: it belongs to the connect with these addresses.
            self.tell(*last, input, Fact::ConnectionRow { row: row.clone(), netns: None });
        } else if let Some((first, _)) = told.get(&as_client).filter(|_| row.state == "TIME_WAIT") {
            let fact = Fact::Remembered { tuple: as_client, netns: None, state: row.state.clone() };
            self.tell(*first, input, fact);
        } else if looks_hijacked(row, coverage) {
            let service = coverage.of(tuple.local).service().cloned();
            let fact =
                Fact::ConnectBegan { tuple, netns: None, isn: None, socket: None, owner: None, service };
            self.tell(at, input, fact);
            self.tell(at, input, Fact::ConnectionRow { row: row.clone(), netns: None });
        }
    }

    /// A socket that waits for a reply, from a port that is a service.
    fn socket(&mut self, from: &FromInput<Socket>, told: &Told, coverage: &Coverage) {
        let socket = &from.value;
        let tuple = Tuple { local: canonical(socket.local), remote: canonical(socket.remote) };
        if socket.state != TcpState::SynSent {
            return;
        }
        let covered = coverage.of(tuple.local);
        let Some(service) = covered.service().cloned() else { return };
        let owner = match socket.users.as_slice() {
            [user] => {
                let owner = Owner { pid: Some(user.pid), comm: Some(user.comm.clone()), ..Owner::default() };
                Some(Arc::new(owner))
            }
            // Several hold it, or the list does not say who.
            _ => None,
        };
        let at = told.get(&tuple).map_or(from.at, |(first, _)| *first);
        let isn =
            self.connects.keys().find(|(known, _)| *known == tuple).map(|(_, number)| number.wrapping_sub(1));
        let fact =
            Fact::ConnectBegan { tuple, netns: None, isn, socket: None, owner, service: Some(service) };
        self.tell(at, &from.input, fact);
        self.note_cover(tuple.local, &covered, coverage);
    }

    /// A row of connection tracking.
    fn tracked(&mut self, row: &FromInput<ConntrackRow>, told: &Told, coverage: &Coverage) {
        let ConntrackRow { original, reply, state, .. } = &row.value;
        let wire = Tuple { local: canonical(reply.destination), remote: canonical(reply.source) };
        let own = Tuple { local: canonical(original.source), remote: canonical(original.destination) };
        if let Some((first, _)) = told.get(&own).filter(|_| state.as_deref() == Some("TIME_WAIT")) {
            let state = "TIME_WAIT".to_owned();
            self.tell(*first, &row.input, Fact::Remembered { tuple: own, netns: None, state });
        }
        if row.value.masqueraded().is_none() || !coverage.is_service(wire.local) {
            return;
        }
        let fact = Fact::Masqueraded { tuple: wire, netns: None, original: original.source };
        if let Some((first, _)) = told.get(&wire) {
            self.tell(*first, &row.input, fact);
        } else if row.value.unreplied && matches!(state.as_deref(), Some("SYN_SENT" | "SYN_RECV")) {
            let at = row.value.at.unwrap_or(row.at);
            let service = coverage.of(wire.local).service().cloned();
            let began = Fact::ConnectBegan {
                tuple: wire,
                netns: None,
                isn: None,
                socket: None,
                owner: None,
                service,
            };
            self.tell(at, &row.input, began);
            self.tell(at, &row.input, fact);
        }
    }
}

fn span(connect: &Connect) -> (Nanos, Nanos) {
    (connect.seen.first().map_or(0, |seen| seen.at), connect.last())
}

/// A server that is a "client" of a service: IPVS made a connection of its reply.
fn looks_hijacked(row: &IpvsConnection, coverage: &Coverage) -> bool {
    let answers = coverage.is_backend(row.client) || row.client.port() < FIRST_UNPRIVILEGED;
    let open = matches!(row.state.as_str(), "ESTABLISHED" | "FIN_WAIT" | "TIME_WAIT");
    let known = coverage.table.is_none() || coverage.is_service(row.virtual_address);
    answers && !open && known && row.client.port() != 0
}

/// A failed probe of the kubelet's log.
pub(super) fn failure(failure: &ProbeFailure) -> Option<Observation> {
    let at = failure.at?;
    let source = Arc::clone(&failure.file);
    let fact = if failure.class == FailureClass::OutOfPorts {
        Fact::ConnectFailed {
            local: None,
            remote: failure.target,
            netns: None,
            socket: None,
            errno: EADDRNOTAVAIL,
            owner: None,
        }
    } else {
        Fact::ProbeFailed { failure: Arc::new(failure.clone()), targets: Vec::new() }
    };
    Some(Observation { at, source, fact })
}
