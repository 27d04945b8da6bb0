//! What an analysis found: a value that every report renders.

use schemars::JsonSchema;
use serde::Serialize;

use crate::diagnosis::incident::{Incident, Summary};
use crate::node::port_ranges::PortRanges;
use crate::node::sysctl::EphemeralRange;
use crate::observation::Nanos;

/// Everything that was found in what was given.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    /// The incidents, the earliest first.
    pub incidents: Vec<Analysed>,
    /// Incidents beyond those kept, because there were too many.
    pub left_out: u64,
    /// The last line of the JSON output.
    pub summary: Summary,
    /// Every file that was looked at, in the order of reading.
    pub inputs: Vec<InputAccount>,
    /// How the clocks of the inputs relate, one sentence each.
    pub clocks: Vec<String>,
    /// Which service ports the node may choose as source ports, if the inputs tell.
    pub ports: Option<PortMap>,
    /// What else the reader should know: what covers what is missing, what was assumed.
    pub notes: Vec<String>,
}

/// An incident with its pictures.
#[derive(Clone, Debug)]
pub struct Analysed {
    /// As the contract writes it.
    pub incident: Incident,
    /// What all inputs say about it, oldest first.
    pub timeline: Vec<Moment>,
    /// Its packets between the parties.
    pub ladder: Ladder,
    /// Which packets of captures are its own.
    pub packets: Vec<PacketRef>,
}

/// A packet of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacketRef {
    /// Number of the input among those with packets.
    pub input: u32,
    /// Number of the packet in it, from 1.
    pub number: u64,
    /// When, nanoseconds since the Unix epoch, on the clock of the analysis.
    pub at: Nanos,
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since the Unix epoch; `None` for what has no time (a row of a table).
    pub at: Option<Nanos>,
    /// Input and place in it, such as `pod.pcap, packet 651`.
    pub source: String,
    /// What it says.
    pub text: String,
}

/// Who takes part in an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The process that connects.
    Client,
    /// The node's IPVS.
    Ipvs,
    /// Whom it connects to: the probed pod.
    Server,
    /// Who was handed the reply.
    Backend,
}

/// A column of the ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// What it is.
    pub role: Role,
    /// What people call it, such as `kubelet` or `pod default/nginx-0`.
    pub title: String,
    /// `address:port`, if known.
    pub address: Option<String>,
}

/// What an arrow of the ladder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrowKind {
    /// SYN, first or again.
    Syn,
    /// SYN-ACK on its way to the client.
    SynAck,
    /// The same SYN-ACK, rewritten by IPVS towards a backend.
    Hijacked,
    /// RST.
    Reset,
    /// ICMP port unreachable.
    Unreachable,
    /// ACK that completes the handshake.
    Ack,
}

/// An arrow of the ladder. What was not seen but follows is drawn, and marked as not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrow {
    /// Nanoseconds since the Unix epoch; `None` if it was not seen.
    pub at: Option<Nanos>,
    /// Who sends.
    pub from: Role,
    /// Who receives, as far as is known.
    pub to: Role,
    /// What it is.
    pub kind: ArrowKind,
    /// Such as `SYN seq 4142039474`.
    pub label: String,
    /// Where it was seen, such as `pod.pcap eth0`; empty if it was not.
    pub place: String,
}

/// Packets between parties, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ladder {
    /// Columns from left to right; all roles that any arrow names.
    pub parties: Vec<Party>,
    /// Arrows from top to bottom.
    pub arrows: Vec<Arrow>,
}

/// `portclash.input/v1`: one file that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InputAccount {
    /// `portclash.input/v1`
    pub schema: &'static str,
    /// Its name as given, with the path within a directory or archive.
    pub name: String,
    /// What it was taken for, such as `pcapng capture` or `ipvsadm -Ln`; `null` if it was not recognised.
    pub kind: Option<String>,
    /// Its size in bytes, as stored; `null` if it was not read to its end.
    pub bytes: Option<u64>,
    /// SHA-256 in hexadecimal digits; `null` where it was not asked for.
    pub sha256: Option<String>,
    /// What was taken from it, such as `653 packets on 2 interfaces`.
    pub read: String,
    /// What could not be read, or was left out and why, one sentence each.
    pub skipped: Vec<String>,
}

/// Name and version of [`InputAccount`]'s format.
pub const INPUT_SCHEMA: &str = "portclash.input/v1";

/// Ports of the node, as far as the inputs tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMap {
    /// `net.ipv4.ip_local_port_range`
    pub ephemeral: EphemeralRange,
    /// `net.ipv4.ip_local_reserved_ports`; `None` if the inputs do not tell.
    pub reserved: Option<PortRanges>,
    /// `--service-node-port-range` of the API server, if the inputs tell.
    pub node_ports: Option<(u16, u16)>,
    /// Ports of TCP services.
    pub services: PortRanges,
}
