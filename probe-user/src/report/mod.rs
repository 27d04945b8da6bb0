//! One file per output format.

mod analysis_gaps;
pub mod analysis_text;
pub(crate) mod capture_file;
pub mod check;
pub mod check_script;
pub mod doctor;
pub mod html;
mod html_build;
mod html_incident;
mod html_parts;
mod html_ports;
pub mod incident_packets;
pub mod json;
pub mod ladder;
mod ladder_svg;
mod ladder_text;
pub mod metrics;
mod metrics_families;
mod metrics_incidents;
#[cfg(feature = "otlp")]
pub(crate) mod metrics_otlp;
mod metrics_text;
pub mod packet_comments;
pub mod packet_log;
pub(crate) mod packet_waiting;
pub mod pcapng;
pub mod pods;
mod port_facts;
pub mod ports;
pub(crate) mod ports_screen;
mod ports_table;
pub mod schema;
pub mod status_page;
pub mod text;
mod text_escape;
mod text_page;
mod text_parties;
mod text_words;
mod timeline;

pub(crate) use text_escape::escape as escaped;

#[cfg(test)]
pub(crate) mod analysis_samples;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
pub(crate) mod status_samples;
