//! User side of portclash: sources yield [`observation::Observation`]s, [`diagnosis`] turns them into incidents,
//! [`report`] renders those.

pub mod access_log;
pub mod analysis;
pub mod capture;
pub mod cli;
pub mod diagnosis;
pub mod doctor;
pub mod exposure;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshakes;
pub mod inputs;
pub mod ipvs;
pub mod kernel;
pub mod kubelet_log;
pub mod kubernetes;
mod memory;
pub mod node;
pub mod observation;
pub mod pods;
pub mod ports;
pub mod report;
pub mod serve;
pub mod sources;
pub mod trace;
