//! Types that cross the border between the BPF programs and user space.
//!
//! `repr(C)`, fixed-width integers, no `bool`, no implicit padding: the BPF verifier and the decoder in
//! `probe-user` read the same bytes. Unless a field says otherwise, numbers are in host byte order and
//! addresses are 16 bytes with IPv4 written as v4-mapped IPv6 (`::ffff:a.b.c.d`), so one key covers both families.
#![no_std]
#![allow(clippy::inline_always, reason = "a BPF program has 512 bytes of stack and no cheap calls")]

/// Length of a kernel task name, `TASK_COMM_LEN` in include/linux/sched.h, with its terminating NUL.
pub const COMM_LEN: usize = 16;
/// Bytes of the command line that are copied at connect time (the arguments are separated by NUL).
pub const CMDLINE_LEN: usize = 256;
/// 64-bit words in the bitmap of service ports: 65,536 ports.
pub const PORT_WORDS: u32 = 1024;
/// Most services the kernel map holds.
pub const MAX_SERVICES: u32 = 262_144;
/// Most flagged connections remembered at one time; the least recently used is forgotten first.
pub const MAX_FLAGGED: u32 = 16_384;
/// Most entries in the map of connect counts; the least recently used goes first.
pub const MAX_COUNTED: u32 = 16_384;
/// Size of the ring buffer in bytes.
pub const RING_BYTES: u32 = 4 * 1024 * 1024;
/// Size of the ring buffer of packets in bytes, where packets are asked for.
pub const PACKET_RING_BYTES: u32 = 4 * 1024 * 1024;
/// Devices whose lost packets are counted one by one.
pub const MAX_DEVICES: u32 = 1024;
/// Length of a device name, `IFNAMSIZ` in include/uapi/linux/if.h, with its terminating NUL.
pub const DEVICE_NAME_LEN: usize = 16;
/// Most bytes of a packet that are recorded: every header of an ICMPv4 error about a TCP segment, all with the most
/// options (14 + 60 + 8 + 60 + 60), and room for a longer link header.
pub const PACKET_SNAP: u32 = 256;
/// The same, as the length of an array.
pub const PACKET_BYTES: usize = PACKET_SNAP as usize;

/// What an [`Event`] says. The numbers are the wire format.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connect from a service port is about to send its SYN. `seq` = initial sequence number.
    ConnectBegan = 1,
    /// connect() returned. `code` = its return value (a negative errno, or 0).
    ConnectReturned = 2,
    /// This node's stack answers a SYN-ACK with a RST. `local` = the SYN-ACK's destination (who resets),
    /// `remote` = its source, `seq` = its acknowledgement number (ISN + 1), `code` = enum sk_rst_reason or -1.
    Reset = 3,
    /// IPVS made a connection for the SYN-ACK: `remote` = its source (IPVS "client"), `local` = its destination
    /// (IPVS "virtual"), `backend` = the chosen real server, `seq` = acknowledgement number or 0.
    Hijacked = 5,
    /// IPVS found no backend for the SYN-ACK. Fields as for [`Kind::Hijacked`], without a backend.
    NoBackend = 6,
    /// A flagged socket left SYN_SENT. `code` = new TCP state, `aux` = sk_err, `seq` = snd_una.
    StateChanged = 7,
    /// A flagged socket retransmitted its SYN.
    SynRetransmitted = 8,
    /// The IPVS table was changed in network namespace `netns` (0 if not known).
    TableChanged = 9,
    /// A kernel module was loaded or unloaded.
    ModuleChanged = 10,
}

impl Kind {
    /// The kind with this wire number, or `None` for a number from another version.
    pub const fn from_wire(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::ConnectBegan,
            2 => Self::ConnectReturned,
            3 => Self::Reset,
            5 => Self::Hijacked,
            6 => Self::NoBackend,
            7 => Self::StateChanged,
            8 => Self::SynRetransmitted,
            9 => Self::TableChanged,
            10 => Self::ModuleChanged,
            _ => return None,
        })
    }
}

/// One record of the ring buffer. Which fields are set depends on [`Kind`]; the others are zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Event {
    /// CLOCK_MONOTONIC, nanoseconds (`bpf_ktime_get_ns`).
    pub at_ns: u64,
    /// Kernel address of the `struct sock`, an identity and nothing more; 0 if there is none.
    pub sock: u64,
    /// cgroup v2 id of the current task.
    pub cgroup_id: u64,
    /// Start of the process (thread group leader), CLOCK_BOOTTIME nanoseconds; 0 if not known.
    pub start_ns: u64,
    /// A [`Kind`] as its wire number.
    pub kind: u32,
    /// Inode number of the network namespace; 0 if not known.
    pub netns: u32,
    /// Process id (thread group) in the initial pid namespace; 0 outside process context.
    pub pid: u32,
    /// TCP sequence number, see [`Kind`].
    pub seq: u32,
    /// See [`Kind`].
    pub code: i32,
    /// See [`Kind`].
    pub aux: i32,
    /// Local address.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
    /// Address of the backend, for [`Kind::Hijacked`].
    pub backend: [u8; 16],
    /// Local TCP port, host byte order.
    pub local_port: u16,
    /// Remote TCP port, host byte order.
    pub remote_port: u16,
    /// Port of the backend, host byte order.
    pub backend_port: u16,
    /// Bytes of `cmdline` that are set.
    pub cmdline_len: u16,
    /// Name of the task, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Start of the command line, arguments separated by NUL.
    pub cmdline: [u8; CMDLINE_LEN],
}

/// Size of [`Event`]; the decoder refuses records of any other length.
pub const EVENT_SIZE: usize = 384;
const _: () = assert!(size_of::<Event>() == EVENT_SIZE);

/// Key of the exact service map: one TCP service in one network namespace.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// Address of the service.
    pub address: [u8; 16],
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Port, host byte order; 0 = the service covers every port of its address.
    pub port: u16,
    /// Always 0.
    pub padding: u16,
}
const _: () = assert!(size_of::<ServiceKey>() == 24);

/// A flagged connection, remembered under its socket's address until it leaves SYN_SENT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Flagged {
    /// Local address.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
    /// Initial sequence number.
    pub isn: u32,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Always 0.
    pub padding: u32,
}
const _: () = assert!(size_of::<Flagged>() == 48);

/// Key of the map of connect counts: who connects, from where, to where. The process as it was at that moment, so that
/// one that lived for a millisecond is known as well.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CountKey {
    /// Start of the process (thread group leader), CLOCK_BOOTTIME nanoseconds; 0 if not known.
    pub start_ns: u64,
    /// cgroup v2 id of the task.
    pub cgroup_id: u64,
    /// Local address; all zero where it is not known (a connect that failed).
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
    /// Name of the task, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Process id (thread group) in the initial pid namespace.
    pub pid: u32,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Always 0.
    pub padding: [u16; 3],
}
const _: () = assert!(size_of::<CountKey>() == 80);

/// What one CPU counted for a [`CountKey`]. The sum over all CPUs, with wrapping, is the count.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Connects that got a source port.
    pub connects: u64,
    /// Connects that failed with EADDRNOTAVAIL.
    pub unavailable: u64,
    /// First count in this slot, CLOCK_MONOTONIC nanoseconds; 0 = none yet. An entry that was evicted and made anew
    /// has other times.
    pub since_ns: u64,
}
const _: () = assert!(size_of::<Count>() == 24);

/// A device in one network namespace, and the key of the map of lost packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Its index there.
    pub index: u32,
    /// `net_device.type`, an `ARPHRD_` number of include/uapi/linux/if_arp.h.
    pub kind: u32,
    /// Its name, NUL-padded.
    pub name: [u8; DEVICE_NAME_LEN],
}
const _: () = assert!(size_of::<Device>() == 28);

/// One record of the ring buffer of packets: the headers of a packet of a flagged connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at_ns: u64,
    /// Initial sequence number of the connection.
    pub isn: u32,
    /// Where it was seen.
    pub device: Device,
    /// 1 = the device received it, 2 = the device sends it (as in pcapng's packet flags).
    pub direction: u32,
    /// Length on the wire, from the first byte of `data` on.
    pub original: u32,
    /// Bytes of `data` that are set.
    pub captured: u32,
    /// Always 0.
    pub padding: u32,
    /// Link header (Ethernet only), IP and TCP or ICMP headers; no payload.
    pub data: [u8; PACKET_BYTES],
}

/// Size of [`Packet`]; the decoder refuses records of any other length.
pub const PACKET_SIZE: usize = 312;
const _: () = assert!(size_of::<Packet>() == PACKET_SIZE);

/// `ARPHRD_ETHER`: a device whose packets begin with an Ethernet header.
pub const DEVICE_ETHERNET: u32 = 1;
/// `ARPHRD_LOOPBACK`: the same.
pub const DEVICE_LOOPBACK: u32 = 772;

/// Per-CPU counters, indexes of the `COUNTERS` map. One block of [`COUNTERS_PER_PROGRAM`] per [`Program`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Times the program ran.
    Runs = 0,
    /// Events lost because the ring buffer was full.
    RingFull = 1,
    /// Entries lost because a map was full or refused the update.
    MapFull = 2,
}
/// Counters in one block.
pub const COUNTERS_PER_PROGRAM: u32 = 3;

/// The programs that count; the numbers are the wire format.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// connect, any rung
    Connect = 0,
    /// how connect() ended, any rung
    ConnectEnd = 1,
    /// resets, any rung
    Reset = 2,
    /// socket state
    Outcome = 3,
    /// SYN retransmits
    Retransmit = 4,
    /// IPVS schedules
    Hijack = 5,
    /// IPVS without a backend
    NoBackend = 6,
    /// table and module triggers
    Trigger = 7,
    /// counts of connects per process and destination, any rung; runs = connects counted
    Ports = 8,
    /// counts of EADDRNOTAVAIL per process and destination, any rung; runs = failures counted
    PortsEnd = 9,
    /// packets of flagged connections; runs = packets that were recorded or should have been
    Packets = 10,
}
/// Every [`Program`], in the order of its number, with its name in output.
pub const PROGRAMS: [(Program, &str); 11] = [
    (Program::Connect, "connect"),
    (Program::ConnectEnd, "connect_end"),
    (Program::Reset, "reset"),
    (Program::Outcome, "outcome"),
    (Program::Retransmit, "retransmit"),
    (Program::Hijack, "hijack"),
    (Program::NoBackend, "no_backend"),
    (Program::Trigger, "trigger"),
    (Program::Ports, "ports"),
    (Program::PortsEnd, "ports_end"),
    (Program::Packets, "packets"),
];

/// IPv4 address in the 16-byte form used throughout.
#[inline(always)]
pub const fn v4_mapped(octets: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = octets;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
