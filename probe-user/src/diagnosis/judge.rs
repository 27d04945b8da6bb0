//! From the facts of one connection to verdict, outcome and confidence.

use std::net::SocketAddr;

use super::connection::Tracked;
use super::incident::{Confidence, Outcome, Verdict};
use super::tables::{Tables, service_at};
use crate::ipvs::table::{IpvsConnection, Service};
use crate::observation::{Fact, Nanos, Observation, ResetCause};

/// A row of the IPVS connection table outlives its connection by this (SYN_RECV: 60 s).
const ROW_LIFETIME_NS: Nanos = 60_000_000_000;

pub(super) const ECONNREFUSED: i32 = 111;
pub(super) const ETIMEDOUT: i32 = 110;
const ENETUNREACH: i32 = 101;
const EHOSTUNREACH: i32 = 113;

/// A connection with the facts that count for it.
pub(super) struct Case<'a> {
    pub(super) connection: &'a Tracked,
    pub(super) facts: Vec<&'a Observation>,
    pub(super) service: Option<&'a Service>,
    /// The remote side is a service too: IPVS knows the reply and lets it pass.
    pub(super) to_service: bool,
    pub(super) ended_at: Option<Nanos>,
}

/// What can be said about it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) outcome: Outcome,
    pub(super) confidence: Confidence,
    /// Since when nothing that can still come is expected to change it.
    pub(super) clear_at: Option<Nanos>,
}

impl Judgement {
    /// The kubelet logged that its probe failed: whatever became of the socket, the connect did not complete.
    pub(super) fn given_up(mut self) -> Self {
        if self.outcome == Outcome::Pending {
            self.outcome = Outcome::Failed;
        }
        self
    }
}

/// Who sent a RST, as far as the fact tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resetter {
    /// The stack of the connection's own namespace, from the connection's own address.
    OwnStack,
    /// The connection's own address, but seen where that stack is not: translated, or the namespace is unknown.
    OwnAddress,
    /// Some other address, in the connection's namespace or in an unknown one.
    Elsewhere,
    /// A backend of the service, or a stack of another namespace.
    Backend,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        connection: &'a Tracked,
        facts: impl Iterator<Item = &'a Observation>,
        tables: &'a Tables,
        grace_ns: Nanos,
    ) -> Self {
        let facts: Vec<_> = facts.collect();
        let end = |fact: &&&Observation| matches!(fact.fact, Fact::Established { .. } | Fact::Died { .. });
        let ended_at = facts.iter().filter(end).map(|fact| fact.at).min();
        let counts = |fact: &&Observation| {
            let patience = match fact.fact {
                Fact::ConnectionRow { .. } => grace_ns.max(ROW_LIFETIME_NS),
                _ => grace_ns,
            };
            ended_at.is_none_or(|ended| fact.at <= ended.saturating_add(patience))
        };
        let facts = facts.into_iter().filter(counts).collect();
        let table = tables.valid_at(connection.netns(), connection.start());
        let tuple = connection.tuple();
        let reported = connection.reports().iter().find_map(|report| report.service.as_deref());
        let known = || tuple.and_then(|tuple| service_at(table, tuple.local));
        Self {
            connection,
            facts,
            service: reported.or_else(known),
            to_service: tuple.is_some_and(|tuple| service_at(table, tuple.remote).is_some()),
            ended_at,
        }
    }

    /// The handshake completed.
    pub(super) fn established(&self) -> bool {
        self.has(|fact| matches!(fact, Fact::Established { .. }))
    }

    /// When the last reset was sent.
    pub(super) fn last_reset(&self) -> Option<Nanos> {
        self.facts.iter().filter(|fact| matches!(fact.fact, Fact::Reset { .. })).map(|fact| fact.at).max()
    }

    /// The connections that IPVS made of the replies, the earliest first.
    pub(super) fn hijacks(&self) -> Vec<(&'a Observation, &'a IpvsConnection)> {
        let mut found: Vec<_> = self
            .facts
            .iter()
            .filter_map(|fact| match &fact.fact {
                Fact::Hijacked { connection: row, .. } | Fact::ConnectionRow { row, .. } => {
                    Some((*fact, row))
                }
                _ => None,
            })
            .collect();
        found.sort_by_key(|(fact, row)| {
            let is_row = matches!(fact.fact, Fact::ConnectionRow { .. });
            (fact.at, is_row, row.backend, row.client, row.virtual_address, &row.state)
        });
        found
    }

    pub(super) fn is_backend(&self, address: SocketAddr) -> bool {
        let of_service = self
            .service
            .is_some_and(|service| service.backends.iter().any(|backend| same(backend.address, address)));
        of_service || self.hijacks().iter().any(|(_, row)| row.backend == address)
    }

    /// Who answered the SYN-ACK with a RST; `None` if the fact is no reset.
    pub(super) fn resetter(&self, fact: &Fact) -> Option<Resetter> {
        let Fact::Reset { local, netns, .. } = fact else { return None };
        let own_netns = match (*netns, self.connection.netns()) {
            (Some(one), Some(other)) => Some(one == other),
            _ => None,
        };
        let own_address = self.connection.tuple().is_some_and(|tuple| tuple.local == *local);
        Some(match (own_address, own_netns) {
            (true, Some(true)) => Resetter::OwnStack,
            (true, _) => Resetter::OwnAddress,
            (false, _) if self.is_backend(*local) => Resetter::Backend,
            // Without an ISN the reset was joined by the server's address alone, which proves little.
            (false, Some(false)) if self.connection.isn().is_some() => Resetter::Backend,
            (false, _) => Resetter::Elsewhere,
        })
    }

    fn earliest(&self, wanted: impl Fn(&Fact) -> bool) -> Option<Nanos> {
        self.facts.iter().filter(|fact| wanted(&fact.fact)).map(|fact| fact.at).min()
    }

    fn has(&self, wanted: impl Fn(&Fact) -> bool) -> bool {
        self.facts.iter().any(|fact| wanted(&fact.fact))
    }

    /// Error on the socket when it died; the earliest, should several have been seen.
    pub(super) fn died(&self) -> Option<(Nanos, i32)> {
        let deaths = self.facts.iter().filter_map(|fact| match fact.fact {
            Fact::Died { errno, .. } => Some((fact.at, errno)),
            _ => None,
        });
        deaths.min()
    }

    pub(super) fn judge(&self) -> Judgement {
        let ipvs_seen = !self.hijacks().is_empty() || self.has(|fact| matches!(fact, Fact::NoBackend { .. }));
        let mut judged = self.of_addresses(ipvs_seen);
        if judged.verdict != Verdict::Collision {
            return judged;
        }
        // That the port is a service's is what makes it a collision; the hijack itself proves that too.
        if self.no_service() && !ipvs_seen {
            judged.confidence = Confidence::Possible;
        } else if self.no_service() && self.hijacks().is_empty() {
            // A firewall may answer so too.
            judged.confidence = Confidence::Likely;
        }
        if judged.outcome == Outcome::Pending && self.has(|fact| matches!(fact, Fact::FellSilent { .. })) {
            judged.outcome = Outcome::Failed;
        }
        if self.has(|fact| matches!(fact, Fact::Masqueraded { .. })) {
            judged.verdict = Verdict::CollisionSnat;
        }
        judged
    }

    fn no_service(&self) -> bool {
        self.service.is_none() && self.has(|fact| matches!(fact, Fact::NoService { .. }))
    }

    fn of_addresses(&self, ipvs_seen: bool) -> Judgement {
        let told =
            |verdict, outcome, confidence, clear_at| Judgement { verdict, outcome, confidence, clear_at };
        let hijacked_at = self.hijacks().first().map(|(fact, _)| fact.at);
        if self.has(|fact| matches!(fact, Fact::Established { .. })) {
            return self.survived(ipvs_seen);
        }
        let by = |who: Resetter| self.earliest(|fact| self.resetter(fact) == Some(who));
        let proof = [hijacked_at, by(Resetter::Backend)].into_iter().flatten().min();
        if proof.is_some() {
            return told(Verdict::Collision, Outcome::Hijacked, Confidence::Proven, proof);
        }
        if let Some(at) = self.earliest(|fact| matches!(fact, Fact::NoBackend { .. })) {
            return told(Verdict::Collision, Outcome::NoBackend, Confidence::Proven, Some(at));
        }
        if let Some(judgement) = self.reset_otherwise() {
            return judgement;
        }
        if let Some(at) = by(Resetter::Elsewhere) {
            return told(Verdict::Collision, Outcome::Hijacked, Confidence::Likely, Some(at));
        }
        if let Some(judgement) = self.own_reset(by(Resetter::OwnStack), by(Resetter::OwnAddress)) {
            return judgement;
        }
        if self.to_service {
            let outcome = if self.ended_at.is_some() { Outcome::Failed } else { Outcome::Pending };
            return told(Verdict::None, outcome, Confidence::Likely, None);
        }
        match self.died() {
            // The RST+ACK or the ICMP error reached the client, which no hijack would have let it.
            Some((_, ECONNREFUSED | ENETUNREACH | EHOSTUNREACH)) => {
                told(Verdict::None, Outcome::Failed, Confidence::Likely, None)
            }
            Some((_, errno)) => {
                let waited =
                    errno == ETIMEDOUT || self.has(|fact| matches!(fact, Fact::SynRetransmitted { .. }));
                let confidence =
                    if waited && self.service.is_some() { Confidence::Likely } else { Confidence::Possible };
                told(Verdict::Collision, Outcome::Failed, confidence, None)
            }
            None => {
                let ignored = self.has(|fact| matches!(fact, Fact::ReplyIgnored { .. }));
                let confidence = if ignored { Confidence::Likely } else { Confidence::Possible };
                told(Verdict::Collision, Outcome::Pending, confidence, None)
            }
        }
    }

    /// The packets themselves show another reason.
    fn reset_otherwise(&self) -> Option<Judgement> {
        let causes = self.facts.iter().filter_map(|fact| match fact.fact {
            Fact::ResetOtherwise { cause, .. } => Some((fact.at, cause)),
            _ => None,
        });
        let (at, cause) = causes.min()?;
        let confidence = match cause {
            ResetCause::LateReply | ResetCause::Unexplained | ResetCause::Dropped => Confidence::Possible,
            ResetCause::ClosedPort
            | ResetCause::Aborted
            | ResetCause::AbortedByServer
            | ResetCause::NoReverseNat(_) => Confidence::Likely,
        };
        Some(Judgement {
            verdict: Verdict::OtherReset,
            outcome: Outcome::Failed,
            confidence,
            clear_at: Some(at),
        })
    }

    fn survived(&self, ipvs_seen: bool) -> Judgement {
        let told = |verdict, confidence| Judgement {
            verdict,
            outcome: Outcome::Survived,
            confidence,
            clear_at: None,
        };
        if ipvs_seen {
            return told(Verdict::Collision, Confidence::Proven);
        }
        if self.to_service && self.has(|fact| matches!(fact, Fact::FirstSynLost { .. })) {
            let remembered = self.has(|fact| matches!(fact, Fact::Remembered { .. }));
            let confidence = if remembered { Confidence::Likely } else { Confidence::Possible };
            return told(Verdict::ReuseDelay, confidence);
        }
        let collides = !self.no_service() && !self.to_service;
        told(if collides { Verdict::Collision } else { Verdict::None }, Confidence::Likely)
    }

    /// A RST from the connection's own address while IPVS was not seen to touch it.
    fn own_reset(&self, own_stack: Option<Nanos>, own_address: Option<Nanos>) -> Option<Judgement> {
        let closed_before = |at: Nanos| self.ended_at.is_some_and(|ended| ended <= at);
        let (verdict, confidence) = match (own_stack, own_address) {
            (Some(at), _) if closed_before(at) => (Verdict::OtherReset, Confidence::Likely),
            (Some(_), _) => (Verdict::OtherReset, Confidence::Possible),
            // On the wire the look-alike is byte-identical; only the order tells.
            (None, Some(at)) if closed_before(at) => (Verdict::OtherReset, Confidence::Possible),
            (None, Some(_)) => (Verdict::Collision, Confidence::Likely),
            (None, None) => return None,
        };
        let outcome = match (self.ended_at, verdict) {
            (None, Verdict::Collision) => Outcome::Pending,
            _ => Outcome::Failed,
        };
        Some(Judgement { verdict, outcome, confidence, clear_at: None })
    }
}

/// Equal, or equal but for the port where the backend's port is 0 (it keeps the port of the packet).
fn same(backend: SocketAddr, address: SocketAddr) -> bool {
    let backend = crate::ipvs::table::canonical(backend);
    backend == address || (backend.port() == 0 && backend.ip() == address.ip())
}
