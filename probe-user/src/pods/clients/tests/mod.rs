//! Against stand-ins that speak the documented protocols on loopback, with certificates made here.

#[cfg(feature = "kube")]
mod api;
#[cfg(feature = "kube")]
mod auto;
pub(crate) mod certificates;
mod cri;
mod cri_server;
mod ear;
mod kubelet;
mod objects;
mod secrecy;
pub(crate) mod server;

use std::time::Duration;

use super::{Backoff, Timeouts};

/// Longest wait for anything; only a test that fails waits that long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits that keep the tests quick.
pub(crate) const fn quick() -> Backoff {
    Backoff::new(Duration::from_millis(2), Duration::from_millis(20))
}

/// For servers that answer: so long that a busy machine makes no difference.
pub(crate) const PATIENT: Timeouts =
    Timeouts { connect: DEADLINE, response: DEADLINE, idle: DEADLINE, total: DEADLINE };
