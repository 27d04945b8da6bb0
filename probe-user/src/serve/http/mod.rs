//! HTTP of the sidecar: metrics, incidents, a status page. It only reads, and it runs on a thread of its own, so that
//! no client can hold up the thread that traces.

mod access;
mod asking;
mod body;
mod capture;
mod connection;
mod error;
mod listen;
mod reply;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod watched;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::recent::Recent;
use super::snapshot::Requests;

pub use error::HttpError;
pub use server::{Bound, Server, bind};

/// Where and to whom to answer.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 lets the kernel choose one ([`Bound::address`]).
    pub listen: SocketAddr,
    /// File with the bearer token that clients must show; `None` = everybody who can connect is answered. It is read
    /// again when it changes.
    pub token_file: Option<PathBuf>,
    /// Certificate with its chain, and its key, as PEM files; `None` = no TLS. They are read again when they change.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What one client may use.
    pub limits: Limits,
}

impl Options {
    /// Listens there, without token and TLS.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, token_file: None, tls: None, limits: Limits::default() }
    }
}

/// What clients may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. As many again are told to come later, and may ask `/livez` and `/readyz` only; beyond
    /// that, the oldest of these is closed.
    pub connections: usize,
    /// Size of a request's head, bytes; hyper needs at least 8192.
    pub head_bytes: usize,
    /// From the connection to the end of the first request's head, TLS handshake included.
    pub head_timeout: Duration,
    /// From a request's head to the last byte of the answer.
    pub request_timeout: Duration,
    /// From an answer to the end of the next request's head.
    pub idle_timeout: Duration,
    /// How long the loop that traces may take to answer.
    pub answer_timeout: Duration,
    /// For how long one answer of that loop serves all who ask.
    pub reuse: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            head_bytes: 16 << 10,
            head_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_mins(1),
            idle_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(2),
            reuse: Duration::from_millis(100),
        }
    }
}

/// What there is to tell.
#[derive(Clone, Debug)]
pub struct Context {
    /// Asks the loop that traces.
    pub requests: Requests,
    /// The latest incidents.
    pub recent: Recent,
}
