//! TCP sockets of a network namespace: from inet_diag, or from the output of `ss` and `netstat`.

pub mod diag;
mod diag_wire;
mod proc;
pub mod text;
mod text_fields;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

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

impl TcpState {
    /// By the kernel's number; `None` for one that no TCP socket can have.
    pub fn from_kernel(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => return None,
        })
    }

    /// Its bit in a mask of states (`TCPF_…`, include/net/tcp_states.h).
    fn mask(self) -> u32 {
        match self {
            Self::Established => 1 << 1,
            Self::SynSent => 1 << 2,
            // Embryonic connections have a number of their own since 4.4 and are reported with the old one.
            Self::SynRecv => 1 << 3 | 1 << 12,
            Self::FinWait1 => 1 << 4,
            Self::FinWait2 => 1 << 5,
            Self::TimeWait => 1 << 6,
            Self::Close => 1 << 7,
            Self::CloseWait => 1 << 8,
            Self::LastAck => 1 << 9,
            Self::Listen => 1 << 10,
            Self::Closing => 1 << 11,
        }
    }
}

impl fmt::Display for TcpState {
    /// As `ss` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Established => "ESTAB",
            Self::SynSent => "SYN-SENT",
            Self::SynRecv => "SYN-RECV",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::TimeWait => "TIME-WAIT",
            Self::Close => "UNCONN",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
        })
    }
}

/// A word that names no TCP state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a TCP state as ss, netstat or lsof name them")]
pub struct NoTcpState;

impl FromStr for TcpState {
    type Err = NoTcpState;

    /// As `ss`, `netstat` or `lsof` writes it.
    fn from_str(word: &str) -> Result<Self, NoTcpState> {
        Ok(match word {
            "ESTAB" | "ESTABLISHED" => Self::Established,
            "SYN-SENT" | "SYN_SENT" => Self::SynSent,
            "SYN-RECV" | "SYN_RECV" | "SYN_RCDV" => Self::SynRecv,
            "FIN-WAIT-1" | "FIN_WAIT1" | "FIN_WAIT_1" => Self::FinWait1,
            "FIN-WAIT-2" | "FIN_WAIT2" | "FIN_WAIT_2" => Self::FinWait2,
            "TIME-WAIT" | "TIME_WAIT" => Self::TimeWait,
            "UNCONN" | "CLOSE" | "CLOSED" => Self::Close,
            "CLOSE-WAIT" | "CLOSE_WAIT" => Self::CloseWait,
            "LAST-ACK" | "LAST_ACK" => Self::LastAck,
            "LISTEN" => Self::Listen,
            "CLOSING" => Self::Closing,
            _ => return Err(NoTcpState),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_back_and_have_bits_of_their_own() {
        let all: Vec<TcpState> = (1..=11).filter_map(TcpState::from_kernel).collect();
        assert_eq!(all.len(), 11);
        for state in &all {
            assert_eq!(state.to_string().parse(), Ok(*state));
        }
        assert_eq!(all.iter().map(|state| state.mask()).sum::<u32>(), 0b1_1111_1111_1110);
        assert_eq!(TcpState::from_kernel(12), Some(TcpState::SynRecv));
        assert_eq!(TcpState::from_kernel(13), None);
        assert_eq!("established".parse::<TcpState>(), Err(NoTcpState));
    }
}
