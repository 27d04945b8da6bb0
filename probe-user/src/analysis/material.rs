//! What the inputs hold besides packets: tables, lists, logs, settings. All of it is small beside captures.

use std::sync::Arc;

use crate::access_log::Request;
use crate::diagnosis::NodeFacts;
use crate::diagnosis::incident::Incident;
use crate::handshakes::Coverage;
use crate::ipvs::table::{IpvsConnection, ServiceTable};
use crate::kubelet_log::ProbeFailure;
use crate::kubernetes::kube_proxy_log::RefusedPort;
use crate::kubernetes::names::ServiceNames;
use crate::kubernetes::pod::Pod;
use crate::kubernetes::service::KubeService;
use crate::node::conntrack_text::ConntrackRow;
use crate::node::port_ranges::PortRanges;
use crate::node::sockets::Socket;
use crate::node::sysctl::EphemeralRange;
use crate::observation::Nanos;

/// Something, and the input that it is from.
#[derive(Clone, Debug, PartialEq)]
pub struct FromInput<T> {
    /// Name of the input.
    pub input: Arc<str>,
    /// When the input was written, nanoseconds since the Unix epoch, as its file or archive tells: for what has no time
    /// of its own.
    pub at: Nanos,
    /// What it says.
    pub value: T,
}

/// All that was read.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// IPVS tables, and why each lacks rows that the node had, if it is known to.
    pub tables: Vec<FromInput<(ServiceTable, Option<String>)>>,
    /// IPVS connection tables.
    pub connections: Vec<FromInput<Vec<IpvsConnection>>>,
    /// Services of the cluster.
    pub services: Vec<KubeService>,
    /// Where they are from.
    pub services_from: Vec<Arc<str>>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Pods of which only names and addresses are known.
    pub named_pods: Vec<Pod>,
    /// Probes that failed, as the kubelet logged them.
    pub failures: Vec<ProbeFailure>,
    /// Whether any log of a kubelet was among the inputs.
    pub has_kubelet_log: bool,
    /// Ports that kube-proxy could not listen on.
    pub refused: Vec<FromInput<RefusedPort>>,
    /// Sockets of the node.
    pub sockets: Vec<FromInput<Socket>>,
    /// Connections that conntrack knows.
    pub tracked: Vec<FromInput<ConntrackRow>>,
    /// Requests that a probed server logged.
    pub requests: Vec<FromInput<Request>>,
    /// Incidents that a live trace or an earlier analysis told.
    pub earlier: Vec<FromInput<Incident>>,
    /// `net.ipv4.ip_local_port_range`
    pub ephemeral: Option<FromInput<EphemeralRange>>,
    /// `net.ipv4.ip_local_reserved_ports`
    pub reserved: Option<FromInput<PortRanges>>,
    /// `--service-node-port-range`
    pub node_ports: Option<FromInput<(u16, u16)>>,
    /// What else was noticed while reading.
    pub notes: Vec<String>,
    /// What could not be read, one sentence each: it makes the evidence incomplete.
    pub incomplete: Vec<String>,
}

impl Material {
    /// Which addresses are services. Tables of several nodes are one: the addresses tell them apart.
    pub fn coverage(&self) -> Coverage {
        let mut table: Option<ServiceTable> = None;
        for FromInput { value: (one, _), .. } in &self.tables {
            let all = table.get_or_insert_with(ServiceTable::default);
            for (id, service) in &one.services {
                all.services.entry(*id).or_insert_with(|| service.clone());
            }
        }
        let cut = self.tables.iter().find_map(|from| {
            let (table, cut) = &from.value;
            let unreadable = (!table.unreadable.is_empty())
                .then(|| format!("{} of its rows could not be read", table.unreadable.len()));
            cut.clone().or(unreadable).map(|why| format!("{}: {why}", from.input))
        });
        Coverage { table: table.map(Arc::new), cut, names: ServiceNames::new(&self.services) }
    }

    /// Ports of the node, for advice.
    pub fn node_facts(&self) -> NodeFacts {
        NodeFacts {
            reserved: self.reserved.as_ref().map(|reserved| reserved.value.to_string()),
            local_port_range: self.ephemeral.as_ref().map(|range| (range.value.first, range.value.last)),
            node_port_range: self.node_ports.as_ref().map(|range| range.value),
            service_ports: self.service_ports().ports().collect(),
        }
    }

    /// Ports of TCP services: of the tables, and NodePorts of the list of Services.
    pub fn service_ports(&self) -> PortRanges {
        let of_tables =
            self.tables.iter().flat_map(|from| crate::exposure::exposed::tcp_services(&from.value.0));
        let node_ports = self.services.iter().flat_map(|service| &service.ports).filter_map(|port| {
            (port.protocol == crate::ipvs::table::Protocol::Tcp).then_some(port.node_port).flatten()
        });
        of_tables.map(|(_, port)| port).filter(|port| *port != 0).chain(node_ports).collect()
    }
}
