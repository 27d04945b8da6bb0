//! By what a pod is found: addresses, ports, ids, containers, probe targets.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{ContainerRef, Keys, Known, MAX_CONTAINERS, PodIndex, Slot, TargetRef, is_active};
use crate::kubernetes::pod::Pod;
use crate::observation::Nanos;
use crate::pods::targets::{port, targets};

impl PodIndex {
    /// Makes the pod findable as the best of its sources describes it now.
    pub(super) fn reindex(&mut self, slot: Slot, now: Nanos, after: Option<Nanos>) {
        let Some(mut known) = self.entries.remove(&slot) else { return };
        self.unlink(slot, &known.keys);
        let best = known.views.iter().min_by_key(|(source, _)| (!source.knows_probes(), *source));
        if let Some((source, pod)) = best.map(|(source, pod)| (*source, Arc::clone(pod))) {
            (known.source, known.pod) = (source, pod);
        }
        let pod = Arc::clone(&known.pod);
        let active = is_active(&pod);
        let own: Vec<IpAddr> = pod.ips.iter().map(IpAddr::to_canonical).collect();
        let own = if active && !pod.host_network { own } else { Vec::new() };
        self.addresses.set(slot, &known.keys.addresses, &own, now, after);
        known.keys.addresses = own;
        let views = known.views.iter().flat_map(|(_, view)| view.uid.iter().chain(&view.config_hash));
        known.keys.ids = views.cloned().collect::<BTreeSet<_>>().into_iter().collect();
        known.keys.ports = if active && pod.host_network { host_ports(&pod) } else { Vec::new() };
        known.keys.targets.clear();
        if active {
            self.link_targets(slot, &pod, &mut known.keys.targets);
        }
        for id in &known.keys.ids {
            self.by_id.entry(id.clone()).or_default().push(slot);
        }
        for port in &known.keys.ports {
            self.by_port.entry(*port).or_default().push(slot);
        }
        self.link_containers(slot, &mut known);
        self.entries.insert(slot, known);
    }

    fn link_targets(&mut self, slot: Slot, pod: &Pod, keys: &mut Vec<SocketAddr>) {
        for (container, probes) in (0..).zip(pod.containers.iter().map(|container| &container.probes)) {
            for (probe, spec) in (0..).zip(probes) {
                for target in targets(pod, &spec.handler) {
                    let by = target.by;
                    self.by_target.entry(target.address).or_default().push(TargetRef {
                        slot,
                        container,
                        probe,
                        by,
                    });
                    keys.push(target.address);
                }
            }
        }
    }

    /// Ids of containers before a restart stay until the pod is forgotten: their processes' connects are told later.
    fn link_containers(&mut self, slot: Slot, known: &mut Known) {
        for container in known.views.iter().flat_map(|(_, view)| &view.containers) {
            let Some(id) = container.id.clone() else { continue };
            let image = container.image.clone();
            let old = self
                .by_container
                .insert(id.clone(), ContainerRef { slot, name: container.name.clone(), image });
            if old.is_none_or(|old| old.slot != slot) {
                known.keys.containers.push(id);
            }
        }
        let surplus = known.keys.containers.len().saturating_sub(MAX_CONTAINERS);
        for id in known.keys.containers.drain(..surplus) {
            self.by_container.remove(&id);
        }
    }

    pub(super) fn unlink(&mut self, slot: Slot, keys: &Keys) {
        for id in &keys.ids {
            remove_from(&mut self.by_id, id, |other| *other == slot);
        }
        for port in &keys.ports {
            remove_from(&mut self.by_port, port, |other| *other == slot);
        }
        for target in &keys.targets {
            remove_from(&mut self.by_target, target, |other| other.slot == slot);
        }
    }
}

pub(super) fn remove_from<K: Eq + Hash, V>(
    map: &mut HashMap<K, Vec<V>>,
    key: &K,
    which: impl Fn(&V) -> bool,
) {
    if let Some(values) = map.get_mut(key) {
        values.retain(|value| !which(value));
        if values.is_empty() {
            map.remove(key);
        }
    }
}

/// Ports of the node that a host network pod says it uses: declared ones and those that its probes call.
fn host_ports(pod: &Pod) -> Vec<u16> {
    let declared = pod.containers.iter().flat_map(|container| &container.ports).map(|port| port.port);
    let probed = pod.containers.iter().flat_map(|container| &container.probes);
    let probed = probed.filter_map(|probe| port(&probe.handler));
    declared.chain(probed).collect::<BTreeSet<_>>().into_iter().collect()
}
