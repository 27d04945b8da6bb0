//! Counts of incidents as samples: by what happened, and by pod.

use super::metrics::Samples;
use crate::diagnosis::incident::{Outcome, Verdict};
use crate::serve::snapshot::{IncidentKind, Snapshot};

pub(super) const VERDICTS: [Verdict; 6] = [
    Verdict::Collision,
    Verdict::CollisionSnat,
    Verdict::ListenConflict,
    Verdict::Exhaustion,
    Verdict::ReuseDelay,
    Verdict::OtherReset,
];
pub(super) const OUTCOMES: [Outcome; 5] =
    [Outcome::Hijacked, Outcome::NoBackend, Outcome::Survived, Outcome::Failed, Outcome::Pending];
const SERVICE_KINDS: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalIP"];

/// The verdict as JSON and metrics have it.
pub(super) const fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Collision => "collision",
        Verdict::CollisionSnat => "collision_snat",
        Verdict::ListenConflict => "listen_conflict",
        Verdict::Exhaustion => "exhaustion",
        Verdict::ReuseDelay => "reuse_delay",
        Verdict::OtherReset => "other_reset",
        Verdict::None => "none",
    }
}

pub(super) const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Hijacked => "hijacked",
        Outcome::NoBackend => "no_backend",
        Outcome::Survived => "survived",
        Outcome::Failed => "failed",
        Outcome::Pending => "pending",
    }
}

/// Every verdict and outcome from the start; for collisions every kind of service too.
pub(super) fn incidents(now: &Snapshot, out: &mut Samples) {
    let mut counts = now.incidents.clone();
    // A false alarm is none.
    counts.retain(|kind, _| kind.verdict != Verdict::None);
    for verdict in VERDICTS {
        for outcome in OUTCOMES {
            let kinds = SERVICE_KINDS.into_iter().filter(|_| verdict == Verdict::Collision);
            for service_kind in kinds.map(|kind| Some(kind.to_owned())).chain([None]) {
                counts.entry(IncidentKind { verdict, outcome, service_kind }).or_default();
            }
        }
    }
    for (kind, count) in counts {
        let service = kind.service_kind.as_deref().unwrap_or("unknown");
        out.add([verdict_name(kind.verdict), outcome_name(kind.outcome), service], count);
    }
}

/// No name of Kubernetes has an underscore, so the overflow is no pod.
pub(super) fn pod_incidents(now: &Snapshot, out: &mut Samples) {
    for (label, count) in now.by_pod.iter().filter(|_| now.label_pods) {
        out.add([&label.namespace, &label.pod], *count);
    }
    if now.label_pods {
        out.add(["_other", "_other"], now.by_other_pods);
    }
}
