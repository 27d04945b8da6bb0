//! Questions to the index.

use std::net::{IpAddr, SocketAddr};

use super::{Candidate, ContainerRef, Known, Owned, PodIndex, TargetRef, ThisNode};
use crate::kubernetes::pod::Pod;
use crate::observation::Nanos;
use crate::pods::targets::TargetBy;

impl PodIndex {
    /// The pods that may have had this address (and, on the host network, this port) at that time. More than one:
    /// the lists do not tell them apart.
    pub fn pods_at(&self, address: SocketAddr, at: Nanos) -> Vec<&Known> {
        let ip = address.ip().to_canonical();
        if self.addresses.knows(ip) {
            return self.addresses.at(ip, at).filter_map(|slot| self.entries.get(&slot)).collect();
        }
        let slots = self.by_port.get(&address.port()).map(Vec::as_slice).unwrap_or_default();
        let known = slots.iter().filter_map(|slot| self.entries.get(slot));
        known.filter(|known| known.span.covers(at) && self.uses_address(&known.pod, ip)).collect()
    }

    /// The probes that connect to this address and port, as known at that time.
    pub fn candidates(&self, remote: SocketAddr, at: Nanos) -> impl Iterator<Item = Candidate<'_>> {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let refs = self.by_target.get(&remote).map(Vec::as_slice).unwrap_or_default();
        refs.iter().filter_map(move |target| self.candidate(*target, remote.ip(), at))
    }

    fn candidate(&self, target: TargetRef, ip: IpAddr, at: Nanos) -> Option<Candidate<'_>> {
        let known = self.entries.get(&target.slot)?;
        let own_address = target.by != TargetBy::Host && !known.pod.host_network;
        let in_time = if own_address {
            self.addresses.at(ip, at).any(|slot| slot == target.slot)
        } else {
            known.span.covers(at)
        };
        if !in_time || !self.is_here(&known.pod) {
            return None;
        }
        let container = known.pod.containers.get(usize::try_from(target.container).ok()?)?;
        let probe = container.probes.get(usize::try_from(target.probe).ok()?)?;
        if !known.starts.may_run(container, probe.kind, at) {
            return None;
        }
        Some(Candidate { known, container, probe, by: target.by })
    }

    /// The container with this id (64 hex digits), also one from before a restart.
    pub fn container(&self, id: &str) -> Option<Owned<'_>> {
        let ContainerRef { slot, name, image } = self.by_container.get(id)?;
        let known = self.entries.get(slot)?;
        Some(Owned { known, container: name, image: image.as_deref() })
    }

    /// Pods with this uid, or static pods with this config hash: what a cgroup is named after.
    pub fn by_uid(&self, uid: &str) -> Vec<&Known> {
        let slots = self.by_id.get(uid).map(Vec::as_slice).unwrap_or_default();
        slots.iter().filter_map(|slot| self.entries.get(slot)).collect()
    }

    /// Pods that had this name, the one that is there now first.
    pub fn by_name(&self, namespace: &str, name: &str) -> Vec<&Known> {
        let slots = self.by_name.get(&(namespace.to_owned(), name.to_owned()));
        let slots = slots.map(Vec::as_slice).unwrap_or_default();
        let mut found: Vec<_> = slots.iter().filter_map(|slot| self.entries.get(slot)).collect();
        found.sort_by_key(|known| known.is_gone());
        found
    }

    /// Whether the pod runs on this node, or may.
    pub fn is_here(&self, pod: &Pod) -> bool {
        match (&self.node.name, &pod.node_name) {
            (Some(here), Some(there)) => here == there,
            _ => true,
        }
    }

    /// The name of this node as the pods tell it: host network pods have the node's addresses, and some node name.
    /// `None` if they do not tell, or not with one voice.
    pub fn node_name_by_address(&self, addresses: &[IpAddr]) -> Option<String> {
        let of_node = |pod: &Pod| pod.host_network && pod.ips.iter().any(|ip| addresses.contains(ip));
        let mut names: Vec<&String> = self
            .entries
            .values()
            .filter(|known| of_node(&known.pod))
            .filter_map(|known| known.pod.node_name.as_ref())
            .collect();
        names.sort();
        names.dedup();
        if let [name] = names.as_slice() { Some((*name).clone()) } else { None }
    }

    /// Whether a host network pod is reached at this address: its own, or any of this node if it has none listed.
    fn uses_address(&self, pod: &Pod, ip: IpAddr) -> bool {
        let ThisNode { addresses, .. } = &self.node;
        let local = ip.is_loopback() || addresses.contains(&ip);
        pod.ips.iter().any(|own| own.to_canonical() == ip) || (local && self.is_here(pod))
    }
}
