//! Who has this address and port, and which probe calls it: pods from kubelet, API server, container runtime or file.
//!
//! Sources send [`update::PodUpdate`]s, [`index::PodIndex`] joins them, [`probe`], [`owner`] and [`kubelet`] decide
//! (pure, no clock), and [`naming`] writes what they found into an incident.

pub mod address;
pub mod clients;
pub mod index;
pub mod kubelet;
pub mod owner;
pub mod probe;
#[cfg(test)]
pub(crate) mod samples;
pub mod sources;
pub mod targets;
pub mod update;
