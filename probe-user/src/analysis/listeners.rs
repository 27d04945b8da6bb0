//! Ports that a listener could not have, or has although they are services.

use super::material::Material;
use crate::diagnosis::incident::Incident;
use crate::handshakes::Coverage;

/// One incident per port.
pub(super) fn conflicts(_material: &Material, _coverage: &Coverage) -> Vec<Incident> {
    Vec::new()
}
