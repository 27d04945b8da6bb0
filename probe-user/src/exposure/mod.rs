//! Which source ports the kernel can pick that are services, and how often it will. Pure: no I/O, no clock.
//!
//! [`node`] is what is known, [`check::judge`] what follows from it.

pub mod check;
pub mod choice;
pub mod estimate;
pub mod exhaustion;
pub mod exposed;
mod findings;
pub mod node;
pub mod rate;
mod refused;
pub mod search;
pub mod traffic;

#[cfg(test)]
#[path = "check_tests.rs"]
mod check_tests;
#[cfg(test)]
pub(crate) mod samples;
