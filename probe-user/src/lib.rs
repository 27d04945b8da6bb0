//! User side of portclash.

pub mod diagnosis;
pub mod ipvs;
pub mod node;
pub mod observation;
