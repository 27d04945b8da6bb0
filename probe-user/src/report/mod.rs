//! One file per output format.

pub mod check;
pub mod check_script;
pub mod doctor;
pub mod json;
pub mod packet_comments;
pub mod packet_log;
pub mod pcapng;
pub mod pods;
pub mod ports;
pub(crate) mod ports_screen;
mod ports_table;
pub mod schema;
pub mod text;
mod text_escape;
mod text_page;
mod text_words;

#[cfg(test)]
pub(crate) mod samples;
