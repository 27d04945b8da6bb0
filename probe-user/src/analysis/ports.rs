//! Which of the node's service ports can become source ports, as far as the inputs tell.

use super::material::Material;
use super::model::PortMap;

/// The map, if the ephemeral range is known and some service is.
pub(super) fn map(material: &Material) -> Option<PortMap> {
    let ephemeral = material.ephemeral.as_ref()?.value;
    Some(PortMap {
        ephemeral,
        reserved: material.reserved.as_ref().map(|reserved| reserved.value.clone()),
        node_ports: material.node_ports.as_ref().map(|range| range.value),
        services: material.service_ports(),
    })
}
