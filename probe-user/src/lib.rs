//! User side of portclash.

pub mod diagnosis;
pub mod doctor;
pub mod ipvs;
pub mod kernel;
mod memory;
pub mod node;
pub mod observation;
pub mod report;
pub mod sources;
