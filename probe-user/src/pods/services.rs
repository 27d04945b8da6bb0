//! The Services that sources named, and which of them an address belongs to.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::update::{PodSourceKind, PodUpdate};
use crate::ipvs::table::Protocol;
use crate::kubernetes::names::{KindOfAddress, ServiceName, ServiceNames};
use crate::kubernetes::service::KubeService;

type Key = (Option<String>, String);

/// Services by source; the first source (in the order of [`PodSourceKind`]) that named any counts.
#[derive(Debug, Default)]
pub struct Services {
    listed: BTreeMap<PodSourceKind, BTreeMap<Key, KubeService>>,
    names: ServiceNames,
}

impl Services {
    /// Takes what a source says about Services.
    pub fn apply(&mut self, update: &PodUpdate) {
        match update {
            PodUpdate::ServicesAll { source, services, .. } => {
                let services = services.iter().map(|service| (key(service), service.clone()));
                self.listed.insert(*source, services.collect());
            }
            PodUpdate::ServiceChanged { source, service } => {
                self.listed.entry(*source).or_default().insert(key(service), (**service).clone());
            }
            PodUpdate::ServiceGone { source, namespace, name } => {
                let key = (Some(namespace.clone()), name.clone());
                self.listed.entry(*source).or_default().remove(&key);
            }
            PodUpdate::All { .. }
            | PodUpdate::Changed { .. }
            | PodUpdate::Gone { .. }
            | PodUpdate::Trouble { .. }
            | PodUpdate::Absent { .. } => return,
        }
        let first = self.first().map(|(_, services)| services.values().cloned().collect::<Vec<_>>());
        self.names = ServiceNames::new(&first.unwrap_or_default());
    }

    /// The Services that a TCP address belongs to; several = ambiguous.
    pub fn name_of(&self, address: SocketAddr, node: Option<&[IpAddr]>) -> Vec<ServiceName> {
        // kube-proxy listens on a healthCheckNodePort itself: an IPVS service is never that.
        let found = self.names.name_of(Protocol::Tcp, address, node);
        found.into_iter().filter(|name| name.kind != KindOfAddress::HealthCheckNodePort).collect()
    }

    /// Whether no source named any.
    pub fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// The source that counts.
    pub fn source(&self) -> Option<PodSourceKind> {
        self.first().map(|(source, _)| source)
    }

    fn first(&self) -> Option<(PodSourceKind, &BTreeMap<Key, KubeService>)> {
        let mut listed = self.listed.iter().filter(|(_, services)| !services.is_empty());
        listed.next().map(|(source, services)| (*source, services))
    }
}

fn key(service: &KubeService) -> Key {
    (service.namespace.clone(), service.name.clone())
}

/// The word of the contract.
pub const fn kind_word(kind: KindOfAddress) -> &'static str {
    match kind {
        KindOfAddress::ClusterIp => "ClusterIP",
        KindOfAddress::NodePort => "NodePort",
        KindOfAddress::LoadBalancer => "LoadBalancer",
        KindOfAddress::ExternalIp => "ExternalIP",
        KindOfAddress::HealthCheckNodePort => "healthCheckNodePort",
    }
}
