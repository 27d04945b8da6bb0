//! `portclash serve`: the sidecar that stays and watches.
//!
//! One thread traces and diagnoses (the caller's runtime); another answers HTTP. They share [`recent::Recent`], the latest
//! incidents, and the second asks the first for a [`snapshot::Snapshot`] whenever somebody wants numbers.

pub mod deliver;
pub mod lines;
pub mod notify;
pub mod recent;
pub mod snapshot;
