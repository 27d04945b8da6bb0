//! From a judged case to the incident of the contract.

use std::net::SocketAddr;
use std::sync::Arc;

use super::advice::NodeFacts;
use super::advisor::Advisor;
use super::evidence;
use super::incident::{Confidence, Connection, Hijack, Incident, OwnerInfo, ServiceInfo, Verdict};
use super::judge::{Case, Judgement};
use super::lines::Line;
use super::tables::{Tables, tcp_ports};
use super::time::{millis_between, rfc3339};
use crate::ipvs::table::{Service, ServiceId};
use crate::observation::{Fact, Nanos, Owner};

/// A SYN is not sent again sooner than 200 ms after the one before (TCP_RTO_MIN).
const ONE_RETRANSMIT_NS: Nanos = 150_000_000;
/// Name and version of the format.
pub(super) const INCIDENT_SCHEMA: &str = "portclash.incident/v1";

/// Names a connection the same way everywhere: `20220915T190902.533940000Z-10.23.77.129:36704-10.23.77.138:80`.
pub(super) fn incident_id(start: Nanos, local: Option<SocketAddr>, remote: Option<SocketAddr>) -> String {
    let time: String = rfc3339(start).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let name = |address: Option<SocketAddr>| address.map_or_else(|| "unknown".to_owned(), |a| a.to_string());
    format!("{time}-{}-{}", name(local), name(remote))
}

/// The whole incident.
pub(super) fn incident(
    case: &Case<'_>,
    judged: Judgement,
    advisor: &Advisor,
    tables: &Tables,
    line: Option<&Line>,
) -> Incident {
    let connection = case.connection;
    let tuple = connection.tuple();
    let (local, remote) = (tuple.map(|tuple| tuple.local), tuple.map(|tuple| tuple.remote));
    let advice = match judged.verdict {
        Verdict::Collision | Verdict::CollisionSnat | Verdict::ReuseDelay => {
            advisor.on(judged.verdict, connection, tables)
        }
        _ => Arc::default(),
    };
    Incident {
        schema: INCIDENT_SCHEMA,
        id: incident_id(connection.start(), local, remote),
        verdict: judged.verdict,
        outcome: judged.outcome,
        confidence: judged.confidence,
        started_at: rfc3339(connection.start()),
        duration_ms: case.ended_at.map(|ended| millis_between(connection.start(), ended)),
        connection: Connection {
            local: local.map(|local| local.to_string()),
            remote: remote.map(|remote| remote.to_string()),
            netns: connection.netns(),
            isn: connection.isn(),
            syn_retransmits: syn_retransmits(case),
        },
        service: case.service.and_then(service_info),
        owner: owner_info(connection.owner().as_ref()),
        probe: None,
        hijack: hijack(case),
        resets: evidence::resets(case),
        log_lines: evidence::log_lines(line),
        evidence: evidence::sentences(case, line),
        advice,
    }
}

/// Several sources see the same retransmit, and each may lack some: those that are closer together than a SYN can be sent
/// again are one.
fn syn_retransmits(case: &Case<'_>) -> u32 {
    let again = case.facts.iter().filter(|fact| matches!(fact.fact, Fact::SynRetransmitted { .. }));
    let mut times: Vec<Nanos> = again.map(|fact| fact.at).collect();
    times.sort_unstable();
    let (mut count, mut latest) = (0_u32, None);
    for at in times {
        if latest.is_none_or(|latest: Nanos| at.saturating_sub(latest) > ONE_RETRANSMIT_NS) {
            count = count.saturating_add(1);
            latest = Some(at);
        }
    }
    count
}

fn hijack(case: &Case<'_>) -> Option<Hijack> {
    let all = case.hijacks();
    let (_, row) = all.first()?;
    // A hook has no state to tell; a table row of the same connection has.
    let state = all.iter().rev().map(|(_, row)| &row.state).find(|state| !state.is_empty());
    Some(Hijack {
        client: row.client.to_string(),
        r#virtual: row.virtual_address.to_string(),
        backend: row.backend.to_string(),
        state: state.cloned(),
    })
}

pub(super) fn service_info(service: &Service) -> Option<ServiceInfo> {
    let ServiceId::Address(protocol, address) = service.id else { return None };
    Some(ServiceInfo {
        protocol: protocol.to_string(),
        address: address.to_string(),
        scheduler: service.scheduler.as_deref().map(str::to_owned),
        name: None,
        kind: None,
        backends: service.backends.iter().map(|backend| backend.address.to_string()).collect(),
    })
}

/// Only what the source says. The pod is added by whoever can resolve the container.
pub(super) fn owner_info(owner: Option<&Arc<Owner>>) -> OwnerInfo {
    let owner = owner.map(|owner| owner.as_ref().clone()).unwrap_or_default();
    let known = owner != Owner::default();
    let Owner { pid, comm, exe, cmdline, cgroup, container_id } = owner;
    let confidence = known.then_some(Confidence::Proven);
    OwnerInfo { pid, comm, exe, cmdline, cgroup, container_id, pod: None, confidence }
}

/// The caller's list of service ports, else the one of the table that was valid then.
pub(super) fn with_service_ports(
    node: &NodeFacts,
    netns: Option<u32>,
    at: Nanos,
    tables: &Tables,
) -> NodeFacts {
    let mut node = node.clone();
    if node.service_ports.is_empty() {
        let ports = tables.valid_at(netns, at).map(tcp_ports).unwrap_or_default();
        node.service_ports = ports.into_iter().collect();
    }
    node
}
