//! One file per source of observations.

pub mod account;
mod beside;
pub mod clock;
mod configuration;
pub mod kubelet_log;
pub mod live;
mod live_tables;
pub mod node_files;
pub mod node_live;
pub mod offline;
pub mod offline_frames;
mod offline_packets;
mod offline_texts;
pub mod owner;
pub mod packets;
mod pipe;
pub mod table;
mod table_watch;
mod translate;
