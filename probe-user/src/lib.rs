//! User side of portclash.

pub mod node;
