//! `portclash serve`: the sidecar that stays and watches.
//!
//! One thread traces and diagnoses (the caller's runtime); another answers HTTP. They share [`recent::Recent`], the latest
//! incidents, and the second asks the first for a [`snapshot::Snapshot`] whenever somebody wants numbers. A third writes
//! to standard output.

pub mod counts;
pub mod deliver;
pub mod exposure;
mod gather;
pub mod http;
pub mod lines;
pub mod notify;
mod output;
pub mod privileges;
pub mod process;
pub mod recent;
pub mod recheck;
pub mod recorder;
pub mod run;
pub mod setters;
mod sidecar;
pub mod snapshot;
