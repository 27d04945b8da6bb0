//! Who uses up the ephemeral ports: connects counted in the kernel per process and destination, sockets in TIME-WAIT
//! attributed to who connected.

pub mod attribute;
pub mod count;
pub mod ledger;
pub mod model;
pub mod naming;
pub mod outlook;
pub mod owners;
pub mod report;
#[cfg(test)]
pub(crate) mod samples;
pub mod usage;
pub mod watch;
