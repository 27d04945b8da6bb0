//! The one type that every source yields and that diagnosis reads.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::ipvs::table::{IpvsConnection, Service, ServiceTable};
use crate::kubelet_log::ProbeFailure;

/// Nanoseconds since the Unix epoch, UTC.
pub type Nanos = i64;

/// One timestamped fact from one source.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When it happened, nanoseconds since the Unix epoch.
    pub at: Nanos,
    /// Where it was seen, for people: a hook (`tcp_connect (fentry)`), a file, a table.
    pub source: Arc<str>,
    /// What was seen.
    pub fact: Fact,
}

/// Names one TCP connect of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Local address and port.
    pub local: SocketAddr,
    /// Remote address and port.
    pub remote: SocketAddr,
}

/// The process that called connect(), as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Process id in the initial pid namespace.
    pub pid: Option<u32>,
    /// Task name at connect time.
    pub comm: Option<String>,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Command line, secrets masked.
    pub cmdline: Option<String>,
    /// Path in the cgroup hierarchy.
    pub cgroup: Option<String>,
    /// Innermost container id (64 hex digits).
    pub container_id: Option<String>,
}

/// Why a connect was reset, other than by a hijack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResetCause {
    /// Nobody listens on the server's port.
    ClosedPort,
    /// The client itself aborted the connection (SO_LINGER with a time of 0, or closed with data unread).
    Aborted,
    /// The server aborted the connection after it had answered.
    AbortedByServer,
    /// The reply came from an address that the client never connected to: address translation was not undone.
    NoReverseNat(SocketAddr),
    /// The reply came when the client had given up.
    LateReply,
    /// The client's side rejected the reply, and its source port is no service.
    Unexplained,
    /// The client's side rejected the reply and did not try again; whether its source port is a service is not known.
    Dropped,
}

/// What an observation says. A field that the source does not know is `None`.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The IPVS table as it was at that time, in namespace `netns` (`None`: the only one that matters).
    Services {
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// The whole table.
        table: Arc<ServiceTable>,
    },
    /// A connect whose local address and port are a service sends its first SYN.
    ConnectBegan {
        /// Its addresses.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// Initial sequence number.
        isn: Option<u32>,
        /// Kernel identity of the socket, reused after it is freed.
        socket: Option<u64>,
        /// Who called connect().
        owner: Option<Arc<Owner>>,
        /// The service it collides with, as known at that moment.
        service: Option<Arc<Service>>,
    },
    /// connect() returned with an error.
    ConnectFailed {
        /// Local address if the socket had one.
        local: Option<SocketAddr>,
        /// Where it wanted to go.
        remote: Option<SocketAddr>,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// Kernel identity of the socket.
        socket: Option<u64>,
        /// Positive errno.
        errno: i32,
        /// Who called connect().
        owner: Option<Arc<Owner>>,
    },
    /// A stack on this node answered a SYN-ACK with a RST.
    Reset {
        /// The SYN-ACK's source: the remote side of the connect, unless NAT changed it.
        remote: SocketAddr,
        /// The SYN-ACK's destination, which is who resets: a backend after a hijack.
        local: SocketAddr,
        /// Namespace of the resetting stack.
        netns: Option<u32>,
        /// Sequence number of the RST = ISN + 1 of the connect.
        seq: u32,
        /// Reason as the kernel names it (enum sk_rst_reason, 6.10 and later).
        reason: Option<String>,
    },
    /// IPVS made a connection for the SYN-ACK and chose a backend.
    Hijacked {
        /// `client` = remote side of the connect, `virtual_address` = its local side.
        connection: IpvsConnection,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// Acknowledgement number of the SYN-ACK (ISN + 1).
        ack: Option<u32>,
    },
    /// IPVS has no backend for the SYN-ACK and answers with ICMP port unreachable.
    NoBackend {
        /// Addresses of the connect.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// Acknowledgement number of the SYN-ACK (ISN + 1).
        ack: Option<u32>,
    },
    /// A row of the IPVS connection table whose client is a server that this node connected to.
    ConnectionRow {
        /// The row.
        row: IpvsConnection,
        /// Inode of the network namespace.
        netns: Option<u32>,
    },
    /// The SYN of a flagged connection was sent again.
    SynRetransmitted {
        /// Addresses of the connect.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// Kernel identity of the socket.
        socket: Option<u64>,
    },
    /// The handshake of a flagged connection completed.
    Established {
        /// Addresses of the connect.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// Kernel identity of the socket.
        socket: Option<u64>,
    },
    /// A flagged connection ended without completing its handshake.
    Died {
        /// Addresses of the connect.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// Kernel identity of the socket.
        socket: Option<u64>,
        /// Error on the socket (ETIMEDOUT, ECONNREFUSED, …); 0 = its process closed it.
        errno: i32,
    },
    /// The connect was reset, and not by IPVS.
    ResetOtherwise {
        /// Addresses of the connect.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// By what.
        cause: ResetCause,
    },
    /// Masquerading gave the connect another source on the wire, `tuple.local`, than its socket has.
    Masqueraded {
        /// Addresses as they are on the wire.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// Source address and port of the socket.
        original: SocketAddr,
    },
    /// The first SYN was not answered, the second one was.
    FirstSynLost {
        /// Addresses of the connect.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// Time between the two, nanoseconds.
        waited_ns: Nanos,
    },
    /// An earlier connection with the same addresses was still remembered when the connect began.
    Remembered {
        /// Addresses of the connect.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// Its state, such as `TIME_WAIT`.
        state: String,
    },
    /// The server's reply was seen on its way, and the SYN was sent again all the same.
    ReplyIgnored {
        /// Addresses of the connect.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
        /// The server answered the second SYN with another sequence number: it had forgotten, or been told to forget, its
        /// first reply.
        anew: bool,
    },
    /// Nothing that was given shows a service at the connect's source, so it is watched for another reason.
    NoService {
        /// Addresses of the connect.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
    },
    /// Nothing more was seen of the connect, although its client would have tried again had it still waited.
    FellSilent {
        /// Addresses of the connect.
        tuple: Tuple,
        /// Inode of the network namespace.
        netns: Option<u32>,
    },
    /// The kubelet logged that a probe failed.
    ProbeFailed {
        /// What it logged.
        failure: Arc<ProbeFailure>,
        /// Where that probe connects to, by whoever knows the pod. The line's own target need not be repeated.
        targets: Vec<SocketAddr>,
    },
}
