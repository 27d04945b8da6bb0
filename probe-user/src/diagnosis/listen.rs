//! A port that a listener could not have, or has although it is a service.

use std::net::SocketAddr;
use std::sync::Arc;

use super::advice::{Cause, NodeFacts, advise};
use super::build::{INCIDENT_SCHEMA, incident_id, owner_info};
use super::incident::{Confidence, Connection, Evidence, Incident, Outcome, Verdict};
use super::time::rfc3339;
use crate::ipvs::table::Service;
use crate::observation::{Nanos, Owner};

/// What was found about the port.
#[derive(Clone, Debug)]
pub struct ListenConflict {
    /// When, nanoseconds since the Unix epoch.
    pub at: Nanos,
    /// Input or source.
    pub source: Arc<str>,
    /// Address and port of the listener; the unspecified address where it listens or wanted to listen on all.
    pub local: SocketAddr,
    /// Who listens there, or holds the port, if exactly one process does.
    pub holder: Option<Arc<Owner>>,
    /// The service at that address, if it is one.
    pub service: Option<Arc<Service>>,
    /// What was seen, one sentence each.
    pub texts: Vec<String>,
}

/// The conflict as an incident.
pub fn listen_conflict(conflict: &ListenConflict, node: &NodeFacts) -> Incident {
    let ListenConflict { at, source, local, holder, service, texts } = conflict;
    let evidence =
        |text: &String| Evidence { at: rfc3339(*at), source: source.to_string(), text: text.clone() };
    Incident {
        schema: INCIDENT_SCHEMA,
        id: format!("{}-listen", incident_id(*at, Some(*local), None)),
        verdict: Verdict::ListenConflict,
        outcome: Outcome::Failed,
        confidence: Confidence::Likely,
        started_at: rfc3339(*at),
        duration_ms: None,
        connection: Connection {
            local: Some(local.to_string()),
            remote: None,
            netns: None,
            isn: None,
            syn_retransmits: 0,
        },
        service: service.as_deref().and_then(super::build::service_info),
        owner: owner_info(holder.as_ref()),
        probe: None,
        hijack: None,
        resets: Vec::new(),
        log_lines: Vec::new(),
        evidence: texts.iter().map(evidence).collect(),
        advice: advise(node, &Cause { verdict: Verdict::ListenConflict, local: Some(*local), remote: None })
            .into(),
    }
}
