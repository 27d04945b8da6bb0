//! Who has this address and port, and which probe calls it: pods from kubelet, API server, container runtime or file.
//!
//! Sources send [`update::PodUpdate`]s, [`index::PodIndex`] joins them, [`probe`], [`owner`] and [`kubelet`] decide
//! (pure, no clock), and [`naming`] writes what they found into an incident.

pub mod address;
pub mod choice;
pub mod clients;
pub mod file;
pub mod index;
pub mod kubelet;
pub mod logged;
#[cfg(test)]
mod measure;
pub mod naming;
pub mod owner;
pub mod probe;
#[cfg(test)]
pub(crate) mod samples;
pub mod services;
pub mod session;
pub mod sources;
mod started;
pub mod targets;
pub mod update;
pub mod words;
