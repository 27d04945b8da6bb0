//! Which source ports the kernel can pick that are services, and how often it will. Pure: no I/O, no clock.

pub mod choice;
pub mod exhaustion;
pub mod rate;
pub mod search;
