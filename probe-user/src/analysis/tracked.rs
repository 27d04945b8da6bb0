//! Rows of connection tracking, as far as they say something about source ports.

use std::net::SocketAddr;

use crate::observation::Nanos;

/// A TCP connection as conntrack knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Source of the first packet: the socket's own address.
    pub source: SocketAddr,
    /// Where the first packet went.
    pub destination: SocketAddr,
    /// Where replies come from: the server after address translation.
    pub reply_source: SocketAddr,
    /// Where replies go: the source on the wire.
    pub reply_destination: SocketAddr,
    /// Nothing was seen in the other direction.
    pub unreplied: bool,
    /// TCP state, such as `SYN_SENT`.
    pub state: Option<String>,
    /// When, if the output tells.
    pub at: Option<Nanos>,
}

impl Tracked {
    /// Whether masquerading changed its source.
    pub fn is_masqueraded(&self) -> bool {
        self.source != self.reply_destination
    }
}
