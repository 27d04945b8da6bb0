//! Incidents counted since the start, by what is few: verdict, outcome, kind of service, and by pod only up to a cap.

use std::collections::BTreeMap;

use super::snapshot::{IncidentKind, PodLabel};
use crate::diagnosis::incident::{Incident, Verdict};

/// Kinds of services that get a label of their own: names from outside must not make labels.
const SERVICE_KINDS: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalIP"];

/// The counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// By kind.
    pub incidents: BTreeMap<IncidentKind, u64>,
    /// By pod.
    pub by_pod: BTreeMap<PodLabel, u64>,
    /// Incidents of pods beyond the cap.
    pub by_other_pods: u64,
}

impl Counts {
    /// Counts a concluded incident; a false alarm is none. `pods`: how many pods are told apart, `None` = they are not.
    pub fn take(&mut self, incident: &Incident, pods: Option<usize>) {
        if incident.verdict == Verdict::None {
            return;
        }
        let kind = incident.service.as_ref().and_then(|service| service.kind.as_deref());
        let service_kind = kind.filter(|kind| SERVICE_KINDS.contains(kind)).map(str::to_owned);
        let kind = IncidentKind { verdict: incident.verdict, outcome: incident.outcome, service_kind };
        *self.incidents.entry(kind).or_default() += 1;
        if let Some(cap) = pods {
            self.count_pod(incident, cap);
        }
    }

    /// The pod that was hit is the probed one, else the owner's; one that nobody knows is no pod.
    fn count_pod(&mut self, incident: &Incident, cap: usize) {
        let probed = incident.probe.as_ref().map(|probe| &probe.pod);
        let Some(pod) = probed.or(incident.owner.pod.as_ref()) else { return };
        let label = PodLabel { namespace: pod.namespace.clone(), pod: pod.name.clone() };
        if let Some(count) = self.by_pod.get_mut(&label) {
            *count += 1;
        } else if self.by_pod.len() < cap {
            self.by_pod.insert(label, 1);
        } else {
            self.by_other_pods += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::incident::{Pod, ServiceInfo};
    use crate::report::samples;

    #[test]
    fn names_from_outside_make_no_labels() {
        let mut counts = Counts::default();
        let mut incident = samples::hijacked();
        for kind in ["NodePort", "NodePort", "made-up"] {
            let service = incident.service.clone().unwrap();
            incident.service = Some(ServiceInfo { kind: Some(kind.to_owned()), ..service });
            counts.take(&incident, None);
        }
        counts.take(&samples::none(), None);
        let kinds: Vec<_> =
            counts.incidents.iter().map(|(kind, count)| (kind.service_kind.as_deref(), *count)).collect();
        assert_eq!(kinds, [(None, 1), (Some("NodePort"), 2)]);
        assert!(counts.by_pod.is_empty());
    }

    #[test]
    fn pods_beyond_the_cap_are_counted_together() {
        let mut counts = Counts::default();
        for name in ["a", "b", "c", "a"] {
            let mut incident = samples::hijacked();
            incident.probe = None;
            incident.owner.pod = Some(Pod { namespace: "n".into(), name: name.into(), uid: None });
            counts.take(&incident, Some(2));
        }
        let pods: Vec<_> = counts.by_pod.iter().map(|(label, count)| (label.pod.as_str(), *count)).collect();
        assert_eq!((pods, counts.by_other_pods), (vec![("a", 2), ("b", 1)], 1));
    }
}
