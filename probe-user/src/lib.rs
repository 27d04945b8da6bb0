//! User side of portclash: sources yield [`observation::Observation`]s, [`diagnosis`] turns them into incidents,
//! [`report`] renders those.

pub mod capture;
pub mod cli;
pub mod diagnosis;
pub mod doctor;
#[doc(hidden)]
pub mod fuzzing;
pub mod ipvs;
pub mod kernel;
pub mod kubernetes;
mod memory;
pub mod node;
pub mod observation;
pub mod report;
pub mod sources;
