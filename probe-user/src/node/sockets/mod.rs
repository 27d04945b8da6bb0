//! TCP sockets of a network namespace: from inet_diag, or from the output of `ss` and `netstat`.

use std::net::SocketAddr;

/// One TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// State.
    pub state: TcpState,
    /// Local address and port; v4-mapped addresses as IPv4.
    pub local: SocketAddr,
    /// Remote address and port; port 0 for a listener.
    pub remote: SocketAddr,
    /// Inode of the socket, by which `/proc/<pid>/fd` names it; `None` or 0 in TIME-WAIT.
    pub inode: Option<u64>,
    /// Processes that hold it, if the input named them (`ss -p`, `netstat -p`).
    pub users: Vec<SocketUser>,
}

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketUser {
    /// Task name.
    pub comm: String,
    /// Process id.
    pub pid: u32,
}

/// TCP state with the kernel's numbers (include/net/tcp_states.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TcpState {
    /// 1
    Established,
    /// 2
    SynSent,
    /// 3, and 12 (TCP_NEW_SYN_RECV)
    SynRecv,
    /// 4
    FinWait1,
    /// 5
    FinWait2,
    /// 6
    TimeWait,
    /// 7
    Close,
    /// 8
    CloseWait,
    /// 9
    LastAck,
    /// 10
    Listen,
    /// 11
    Closing,
}
