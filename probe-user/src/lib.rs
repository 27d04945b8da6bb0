//! User side of portclash.

pub mod ipvs;
pub mod node;
pub mod observation;
