//! Which addresses are services, as far as the inputs tell: the IPVS table, and what the list of Services makes up for.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::ipvs::table::{Protocol, Service, ServiceId, ServiceTable, canonical};
use crate::kubernetes::names::ServiceNames;

/// The services of the node or nodes that the inputs are from.
#[derive(Debug, Default)]
pub struct Coverage {
    /// The IPVS table; `None` if none was given.
    pub table: Option<Arc<ServiceTable>>,
    /// Why the table lacks rows that the node had, if it is known to: it was cut, or rows could not be read.
    pub cut: Option<String>,
    /// Names of the cluster's Services.
    pub names: ServiceNames,
}

/// Whether an address is a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Covered {
    /// The IPVS table says so.
    Table(Arc<Service>),
    /// The table lacks it, but the port is the NodePort of a Service, and kube-proxy makes those on every address of a
    /// node.
    NodePort {
        /// The service that there must be.
        service: Arc<Service>,
        /// Names of the Services with this NodePort.
        names: Vec<String>,
    },
    /// The table was given, and it is none.
    No,
    /// Nothing that was given tells.
    Unknown,
}

impl Covered {
    /// Whether it is a service.
    pub const fn is_service(&self) -> bool {
        matches!(self, Self::Table(_) | Self::NodePort { .. })
    }

    /// The service.
    pub fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::Table(service) | Self::NodePort { service, .. } => Some(service),
            Self::No | Self::Unknown => None,
        }
    }
}

impl Coverage {
    /// Whether a connect from `local` collides.
    pub fn of(&self, local: SocketAddr) -> Covered {
        let local = canonical(local);
        if let Some(service) = self.table.as_deref().and_then(|table| table.tcp_service_at(local)) {
            return Covered::Table(Arc::new(service.clone()));
        }
        if self.table.is_some() && self.cut.is_none() {
            return Covered::No;
        }
        let found = self.names.name_of(Protocol::Tcp, local, None);
        // A list of Services alone also names the addresses of Services themselves.
        if found.is_empty() {
            let known = self.table.is_some() || !self.names.is_empty();
            return if known { Covered::No } else { Covered::Unknown };
        }
        let id = ServiceId::Address(Protocol::Tcp, local);
        let service =
            Service { id, scheduler: None, persistent_s: None, one_packet: false, backends: Vec::new() };
        let names: BTreeSet<String> = found.iter().map(ToString::to_string).collect();
        Covered::NodePort { service: Arc::new(service), names: names.into_iter().collect() }
    }

    /// Whether the address is one that IPVS takes connections for.
    pub fn is_service(&self, address: SocketAddr) -> bool {
        self.of(address).is_service()
    }

    /// Whether some service has a backend here.
    pub fn is_backend(&self, address: SocketAddr) -> bool {
        let address = canonical(address);
        let has =
            |service: &Service| service.backends.iter().any(|backend| canonical(backend.address) == address);
        self.table.as_deref().is_some_and(|table| table.services.values().any(has))
    }
}
