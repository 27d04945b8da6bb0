//! What the kubelet's log says about failed probes, in whatever wrapping and from whatever version it comes.
//!
//! Lines go through layers, each in a file of its own: a wrapping (journald JSON, syslog prefix, docker json-file, CRI)
//! is taken off, then the line is klog text or klog's JSON, then one of the forms that `prober.go` of the kubelet has
//! written since 1.0. Pure: no clock, no files.

mod classic;
mod cri;
mod docker;
mod fields;
mod journal_json;
mod json_logging;
mod klog;
mod output;
mod parser;
mod recognise;
mod scan;
mod secrets;
mod structured;
mod syslog;
mod time;
mod wrapping;

#[cfg(test)]
#[path = "cases_tests.rs"]
mod cases_tests;
#[cfg(test)]
#[path = "wrapping_tests.rs"]
mod wrapping_tests;

use std::net::SocketAddr;
use std::sync::Arc;

pub use parser::{LineParser, ParserCounts};
pub use recognise::{Recognised, recognise};
pub use scan::{ScanError, Scanner, scan_reader};
pub use time::{Times, YearRule};
pub use wrapping::Wrapping;

use crate::kubernetes::pod::ProbeType;
use crate::observation::Nanos;

/// Whether a line is one of a machine's log, whatever program wrote it.
pub(crate) fn is_system_log(line: &[u8]) -> bool {
    let is_json =
        || line.starts_with(b"{") && memchr::memmem::find(line, b"\"__REALTIME_TIMESTAMP\"").is_some();
    syslog::program(line).is_some() || is_json()
}

/// One probe of a container that failed, as the kubelet logged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFailure {
    /// When the kubelet logged it; `None` if the line has no time that can be read.
    pub at: Option<Nanos>,
    /// Which probe.
    pub kind: Option<ProbeType>,
    /// Kubernetes namespace of the pod.
    pub namespace: Option<String>,
    /// Name of the pod.
    pub name: Option<String>,
    /// Uid of the pod; for a static pod the hash of its manifest.
    pub uid: Option<String>,
    /// Name of the container.
    pub container: Option<String>,
    /// Where the probe connected to; never set for an exec probe.
    pub target: Option<SocketAddr>,
    /// Local side of the connection, if the message has it (`read tcp a:p->b:q`).
    pub source: Option<SocketAddr>,
    /// How it failed.
    pub class: FailureClass,
    /// The probe's timeout in nanoseconds, if the message has it (gRPC: `within 1s`).
    pub timeout_ns: Option<Nanos>,
    /// The log line without its wrapping, in one line, cut, without queries of URLs and without output of commands.
    pub text: String,
    /// File or unit that the line is from.
    pub file: Arc<str>,
    /// Number of the line in the file, from 1.
    pub line: Option<u64>,
}

/// How a probe failed, by its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// It took longer than its timeout. What a collision looks like, and also a slow server.
    Timeout,
    /// ECONNREFUSED.
    Refused,
    /// ECONNRESET.
    Reset,
    /// No route to the target.
    Unreachable,
    /// EADDRNOTAVAIL: no free source port.
    OutOfPorts,
    /// The server answered with this status.
    HttpStatus(u16),
    /// A command in the container: no network that the kubelet has a part in.
    Exec,
    /// No output at all.
    Empty,
    /// The line goes on, but the rest of it is not there.
    Cut,
    /// Anything else.
    Other,
}

impl FailureClass {
    /// Whether a connection that never completed its handshake can have failed the probe this way. The kubelet's
    /// own connection was answered, or there was none, in all other ways.
    pub const fn may_be_unanswered(self) -> bool {
        matches!(self, Self::Timeout | Self::Refused | Self::Reset | Self::Cut | Self::Other)
    }
}
