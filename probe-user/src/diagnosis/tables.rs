//! The IPVS tables over time: which services there were when a connection began.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::ipvs::table::{Protocol, Service, ServiceId, ServiceTable};
use crate::observation::Nanos;

/// Versions kept per namespace at most. Time that passes drops those that no connection can need any more.
const MAX_VERSIONS: usize = 16;
/// Namespaces kept. Only nodes' namespaces have services, so there are hardly ever two.
const MAX_NAMESPACES: usize = 64;

/// Every version of every table that was seen.
#[derive(Debug, Default)]
pub(super) struct Tables {
    versions: BTreeMap<Option<u32>, BTreeMap<Nanos, Arc<ServiceTable>>>,
}

impl Tables {
    pub(super) fn insert(&mut self, at: Nanos, netns: Option<u32>, table: Arc<ServiceTable>) {
        if !self.versions.contains_key(&netns) && self.versions.len() >= MAX_NAMESPACES {
            return;
        }
        let versions = self.versions.entry(netns).or_default();
        // Two tables with one timestamp: the larger one, whichever came first.
        match versions.get(&at) {
            Some(known) if known.services.len() >= table.services.len() => {}
            _ => {
                versions.insert(at, table);
            }
        }
        if versions.len() > MAX_VERSIONS {
            versions.pop_first();
        }
    }

    /// Drops the versions that were replaced before that time.
    pub(super) fn forget_before(&mut self, at: Nanos) {
        for versions in self.versions.values_mut() {
            if let Some(oldest) = versions.range(..=at).next_back().map(|(time, _)| *time) {
                *versions = versions.split_off(&oldest);
            }
        }
    }

    /// The earliest time for which [`Self::forget_before`] drops something.
    pub(super) fn next_to_forget(&self) -> Option<Nanos> {
        self.versions.values().filter_map(|versions| versions.keys().nth(1).copied()).min()
    }

    /// The table that was valid at that time; if the first was read later, that one.
    pub(super) fn valid_at(&self, netns: Option<u32>, at: Nanos) -> Option<&ServiceTable> {
        let only = || match self.versions.len() {
            1 => self.versions.values().next(),
            _ => None,
        };
        let versions = match netns {
            Some(_) => self.versions.get(&netns).or_else(|| self.versions.get(&None))?,
            None => self.versions.get(&None).or_else(only)?,
        };
        let before = versions.range(..=at).next_back();
        before.or_else(|| versions.iter().next()).map(|(_, table)| table.as_ref())
    }
}

/// The service that covers this address, exactly or by all its ports.
pub(super) fn service_at(table: Option<&ServiceTable>, address: SocketAddr) -> Option<&Service> {
    table?.tcp_service_at(address)
}

/// Ports of all TCP services.
pub(super) fn tcp_ports(table: &ServiceTable) -> BTreeSet<u16> {
    let ports = table.services.keys().filter_map(|id| match id {
        ServiceId::Address(Protocol::Tcp, address) if address.port() != 0 => Some(address.port()),
        _ => None,
    });
    ports.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_valid_at_a_time_survives_forgetting_what_came_before() {
        let mut tables = Tables::default();
        for at in [10, 20, 30] {
            tables.insert(at, Some(1), Arc::default());
        }
        let times = |tables: &Tables| tables.versions[&Some(1)].keys().copied().collect::<Vec<_>>();
        tables.forget_before(19);
        assert_eq!(times(&tables), [10, 20, 30]);
        assert_eq!(tables.next_to_forget(), Some(20));
        tables.forget_before(20);
        assert_eq!(times(&tables), [20, 30]);
        tables.forget_before(35);
        assert_eq!((times(&tables), tables.next_to_forget()), (vec![30], None));
        for at in 100..200 {
            tables.insert(at, Some(1), Arc::default());
        }
        assert_eq!(times(&tables).len(), MAX_VERSIONS);
    }

    #[test]
    fn a_table_without_a_namespace_serves_all_and_one_with_serves_its_own() {
        let mut tables = Tables::default();
        tables.insert(0, Some(1), Arc::default());
        assert!(tables.valid_at(Some(2), 5).is_none());
        assert!(tables.valid_at(None, 5).is_some(), "the only one there is");
        tables.insert(0, Some(2), Arc::default());
        assert!(tables.valid_at(None, 5).is_none(), "which one is unknown");
        tables.insert(0, None, Arc::default());
        assert!(tables.valid_at(Some(3), 5).is_some());
    }
}
