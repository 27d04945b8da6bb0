//! Why the server cannot start.

use std::io;
use std::net::SocketAddr;

use crate::pods::clients::CredentialError;

/// Why the server cannot start. Nothing of a token or key is in it.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("listen on {address}: {source}{hint}", hint = hint(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The token, certificate or key.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// rustls does not take what the files contain.
    #[error("certificate {certificate} with key {key}: {reason}")]
    Tls {
        /// File with the certificate.
        certificate: String,
        /// File with the key.
        key: String,
        /// rustls' reason.
        reason: String,
    },
    /// The thread or its runtime.
    #[error("start the HTTP server's {what}: {source}")]
    Start {
        /// What could not be made.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program listens there (ss -ltnp shows which): choose another address or end that program"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this node does not have that address (ip address shows those it has)"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE: choose a higher one"
        }
        _ => "",
    }
}
