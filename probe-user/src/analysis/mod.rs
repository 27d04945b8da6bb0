//! After the fact: from captures, dumps, lists and logs to incidents, through the same diagnosis as live tracing.

pub mod model;
pub mod picture;
pub mod redact;
