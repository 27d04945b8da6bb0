//! One shape for all facts: canonical addresses, and the keys each can be joined by.

use std::net::SocketAddr;

use super::index::Keys;
use crate::ipvs::table::{IpvsConnection, Protocol, canonical};
use crate::observation::{Fact, Nanos, Observation, ResetCause, Tuple};

/// The errno that means "no free source port towards that destination".
pub(super) const EADDRNOTAVAIL: i32 = 99;

/// A fact that waits for its connection, or has found it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) observation: Observation,
    pub(super) keys: Keys,
    pub(super) owner: Option<super::index::Id>,
    /// When it came, a connection that it fits was concluded already.
    pub(super) late: bool,
}

impl Held {
    pub(super) fn new(observation: Observation) -> Self {
        let observation = Observation { fact: canonical_fact(observation.fact), ..observation };
        let keys = keys(&observation.fact);
        Self { observation, keys, owner: None, late: false }
    }

    pub(super) fn at(&self) -> Nanos {
        self.observation.at
    }

    /// Whether the fact can make an incident, so that it is worth telling that it found no connection.
    pub(super) fn kind(&self) -> Option<&'static str> {
        Some(match self.observation.fact {
            Fact::Reset { .. } => "reset",
            Fact::Hijacked { .. } => "hijacked",
            Fact::NoBackend { .. } => "no_backend",
            Fact::ConnectionRow { .. } => "connection_row",
            Fact::SynRetransmitted { .. } => "syn_retransmitted",
            Fact::Established { .. } => "established",
            Fact::Died { .. } => "died",
            Fact::ResetOtherwise { .. } => "reset_otherwise",
            Fact::Masqueraded { .. } => "masqueraded",
            Fact::FirstSynLost { .. } => "first_syn_lost",
            Fact::Remembered { .. } => "remembered",
            Fact::ReplyIgnored { .. } => "reply_ignored",
            Fact::NoService { .. } => "no_service",
            Fact::FellSilent { .. } => "fell_silent",
            // Any connect of the node can fail; those that were not flagged are none of our business.
            // A log line is counted on its own.
            Fact::ConnectFailed { .. }
            | Fact::ConnectBegan { .. }
            | Fact::Services { .. }
            | Fact::ProbeFailed { .. } => return None,
        })
    }
}

fn keys(fact: &Fact) -> Keys {
    let path = |tuple: Tuple, seq: Option<u32>| Keys {
        socket: None,
        tuple: Some(tuple),
        remote: Some(tuple.remote),
        seq,
    };
    let life = |tuple: Option<Tuple>, socket: Option<u64>| Keys { socket, tuple, remote: None, seq: None };
    match fact {
        Fact::ConnectBegan { tuple, isn, socket, .. } => {
            Keys { socket: *socket, ..path(*tuple, isn.map(|isn| isn.wrapping_add(1))) }
        }
        Fact::Reset { remote, local, seq, .. } => path(Tuple { local: *local, remote: *remote }, Some(*seq)),
        Fact::Hijacked { connection, ack, .. } => path(tuple_of(connection), *ack),
        Fact::NoBackend { tuple, ack, .. } => path(*tuple, *ack),
        Fact::ConnectionRow { row, .. } if row.protocol == Protocol::Tcp => life(Some(tuple_of(row)), None),
        Fact::SynRetransmitted { tuple, socket, .. }
        | Fact::Established { tuple, socket, .. }
        | Fact::Died { tuple, socket, .. } => life(Some(*tuple), *socket),
        Fact::ResetOtherwise { tuple, .. }
        | Fact::Masqueraded { tuple, .. }
        | Fact::FirstSynLost { tuple, .. }
        | Fact::Remembered { tuple, .. }
        | Fact::ReplyIgnored { tuple, .. }
        | Fact::NoService { tuple, .. }
        | Fact::FellSilent { tuple, .. } => life(Some(*tuple), None),
        Fact::ConnectFailed { local: Some(local), remote: Some(remote), socket, .. } => {
            life(Some(Tuple { local: *local, remote: *remote }), *socket)
        }
        Fact::ConnectFailed { socket, .. } => life(None, *socket),
        Fact::ConnectionRow { .. } | Fact::Services { .. } | Fact::ProbeFailed { .. } => Keys::default(),
    }
}

/// The connect whose reply IPVS took for a new connection.
pub(super) fn tuple_of(connection: &IpvsConnection) -> Tuple {
    Tuple { local: connection.virtual_address, remote: connection.client }
}

/// The socket had no port yet when its connect failed.
pub(super) fn without_port(local: Option<SocketAddr>) -> bool {
    local.is_none_or(|local| local.port() == 0)
}

fn canonical_tuple(tuple: Tuple) -> Tuple {
    Tuple { local: canonical(tuple.local), remote: canonical(tuple.remote) }
}

fn canonical_row(row: IpvsConnection) -> IpvsConnection {
    IpvsConnection {
        client: canonical(row.client),
        virtual_address: canonical(row.virtual_address),
        backend: canonical(row.backend),
        ..row
    }
}

/// A v4-mapped IPv6 address and its IPv4 address are one address, whichever source writes which.
fn canonical_fact(mut fact: Fact) -> Fact {
    match &mut fact {
        Fact::ConnectBegan { tuple, .. }
        | Fact::NoBackend { tuple, .. }
        | Fact::SynRetransmitted { tuple, .. }
        | Fact::Established { tuple, .. }
        | Fact::Died { tuple, .. }
        | Fact::FirstSynLost { tuple, .. }
        | Fact::Remembered { tuple, .. }
        | Fact::ReplyIgnored { tuple, .. }
        | Fact::NoService { tuple, .. }
        | Fact::FellSilent { tuple, .. } => *tuple = canonical_tuple(*tuple),
        Fact::ResetOtherwise { tuple, cause, .. } => {
            *tuple = canonical_tuple(*tuple);
            if let ResetCause::NoReverseNat(address) = cause {
                *address = canonical(*address);
            }
        }
        Fact::Masqueraded { tuple, original, .. } => {
            *tuple = canonical_tuple(*tuple);
            *original = canonical(*original);
        }
        Fact::ConnectFailed { local, remote, .. } => {
            *local = local.map(canonical);
            *remote = remote.map(canonical);
        }
        Fact::Reset { remote, local, .. } => {
            *remote = canonical(*remote);
            *local = canonical(*local);
        }
        Fact::Hijacked { connection: row, .. } | Fact::ConnectionRow { row, .. } => {
            *row = canonical_row(row.clone());
        }
        // The addresses of a log line are compared in `lines.rs`.
        Fact::Services { .. } | Fact::ProbeFailed { .. } => {}
    }
    fact
}
