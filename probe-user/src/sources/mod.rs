//! One file per source of observations.

mod account;
pub mod clock;
pub mod kubelet_log;
pub mod live;
pub mod owner;
pub mod table;
mod translate;
