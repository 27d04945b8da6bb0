//! The IPVS service table: reading it, comparing it.

mod cut;
pub mod diff;
pub(crate) mod form;
pub mod netlink;
mod netlink_wire;
pub mod proc;
pub mod reader;
pub(crate) mod rows;
pub mod table;
pub mod text;

pub use cut::{cut_short, last_address};
pub use form::Form;
pub use rows::MAX_UNREADABLE;

use proc::ConnectionTable;
use table::ServiceTable;

/// Most bytes of one table that are read: 100,000 services with five backends each take 35 MB.
pub const MAX_BYTES: usize = 256 * 1024 * 1024;

/// What [`parse_services`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Which form it was.
    pub form: Form,
    /// The table.
    pub content: Content,
    /// What the reader should know about it: assumptions, columns that this form lacks.
    pub notes: Vec<String>,
}

/// The table that a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Services and backends.
    Services(ServiceTable),
    /// Connections that IPVS made.
    Connections(ConnectionTable),
}

/// Why content is not taken as an IPVS table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There is nothing in it.
    #[error(
        "the IPVS table is empty, without even a header: the output of `ipvsadm -Ln` or a copy of /proc/net/ip_vs \
         has one (`ipvsadm -Sn` prints nothing where there are no services)"
    )]
    Empty,
    /// It is something else.
    #[error(
        "this is no IPVS table, it looks like {looks_like}: expected /proc/net/ip_vs, /proc/net/ip_vs_conn, or the \
         output of `ipvsadm -Ln`, `ipvsadm -Sn`, `ipvsadm -Ln --stats` or `ipvsadm -Lnc`"
    )]
    OtherKind {
        /// What it looks like.
        looks_like: &'static str,
    },
    /// It is larger than [`MAX_BYTES`].
    #[error("the IPVS table has {bytes} bytes, more than the {MAX_BYTES} that are read: split it by service")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Reads any form of the IPVS tables, told apart by content. `/proc/net/ip_vs` gives persistence timeouts in
/// jiffies; see [`proc::parse_table`] for `hz`, of the kernel that wrote it.
pub fn parse_services_with(bytes: &[u8], hz: Option<u32>) -> Result<Parsed, ParseError> {
    if bytes.len() > MAX_BYTES {
        return Err(ParseError::TooLarge { bytes: bytes.len() });
    }
    if bytes.trim_ascii().is_empty() {
        return Err(ParseError::Empty);
    }
    let form =
        Form::of(bytes).ok_or_else(|| ParseError::OtherKind { looks_like: form::looks_like(bytes) })?;
    let mut notes = Vec::new();
    let content = match form {
        Form::Proc => {
            let table = proc::parse_table(bytes, hz);
            if hz.is_none() && table.services.values().any(|service| service.persistent_s.is_some()) {
                let assumed = proc::ASSUMED_HZ;
                notes.push(format!(
                    "persistence timeouts are jiffies, read as {assumed} per second (CONFIG_HZ)"
                ));
            }
            Content::Services(table)
        }
        Form::Listing => Content::Services(text::parse_listing(bytes, text::Columns::Scheduler)),
        Form::Counters => {
            notes.push("this listing has no schedulers, flags, forwarding methods and weights".to_owned());
            Content::Services(text::parse_listing(bytes, text::Columns::Counters))
        }
        Form::Save => Content::Services(text::parse_save(bytes)),
        Form::ProcConnections => Content::Connections(proc::parse_connections(bytes)),
        Form::Connections => Content::Connections(text::parse_connections(bytes)),
    };
    Ok(Parsed { form, content, notes })
}

/// [`parse_services_with`] for a table from a kernel whose `CONFIG_HZ` is not known.
pub fn parse_services(bytes: &[u8]) -> Result<Parsed, ParseError> {
    parse_services_with(bytes, None)
}

#[cfg(test)]
mod roundtrip_tests;
