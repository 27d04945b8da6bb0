//! The kernel side: field layout, the hook ladder, loading, event decoding, loss counters.

pub mod btf;
pub mod counters;
pub mod counts;
pub mod event;
pub mod hook;
pub mod ladder;
pub mod layout;
pub mod loader;
pub mod packets;
pub(crate) mod refusal;
pub mod selftest;
pub mod services;
mod sizes;
