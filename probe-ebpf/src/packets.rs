//! The packets of flagged connections: their headers, on every device and in every namespace that they cross. Attached
//! only where packets are asked for.
//!
//! Address translation, IPVS included, changes addresses and ports but no sequence numbers, so a packet belongs to a
//! connection if the number that its kind carries is ISN + 1: the sequence number of a SYN, and one more of it; the
//! acknowledgement of a SYN-ACK or of a RST that acknowledges; the sequence number of any other segment; for an ICMP
//! error that of the segment it quotes. One look at one map tells.
//!
//! Relies on the tracepoints `net:net_dev_start_xmit (const struct sk_buff *skb, const struct net_device *dev)`, once
//! per packet and device that sends it, and `net:netif_receive_skb (struct sk_buff *skb)`, once per packet and device
//! that receives it, `data` at the network header and `network_header` not yet set (4.15 to 7.2).

use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::{map, raw_tracepoint},
    maps::{Array, LruHashMap, PerCpuHashMap, RingBuf},
    programs::RawTracePointContext,
};
use probe_ebpf::{
    Counter, DEVICE_ETHERNET, DEVICE_LOOPBACK, DEVICE_NAME_LEN, Device, MAX_DEVICES, MAX_FLAGGED,
    PACKET_BYTES, PACKET_RING_BYTES, Packet, Program,
};

use crate::{
    fields::{
        DEV_INDEX, DEV_NAME, DEV_NET, DEV_TYPE, SKB_DATA, SKB_DATA_LEN, SKB_DEV, SKB_HEAD, SKB_LEN, SKB_MAC,
        SKB_NETWORK, WANT_PACKETS, netns_of_net, read, read_into,
    },
    maps::count,
};

/// A connection whose packets are recorded.
#[derive(Clone, Copy)]
#[repr(C)]
struct Flow {
    /// When it was flagged, CLOCK_MONOTONIC nanoseconds.
    since_ns: u64,
    /// Its initial sequence number.
    isn: u32,
    padding: u32,
}

/// Connections by the number that their packets carry.
#[map]
static FLOWS: LruHashMap<u32, Flow> = LruHashMap::with_max_entries(MAX_FLAGGED, 0);

/// Longest time for which a connection's packets are recorded. A SYN is repeated for about 130 s; later the same number is
/// more likely some other connection's by chance.
const FLOW_NS: u64 = 300_000_000_000;

/// Until when packets are looked at, in jiffies: while no connection was flagged lately, none can be ours, and this is all
/// that a packet costs. User space sets it to 0 after its self-test.
#[map]
static WATCHED_UNTIL: Array<u64> = Array::with_max_entries(1, 0);

/// [`FLOW_NS`] where the kernel ticks 1000 times a second, and up to ten times that where it ticks less often: 5.10 has no
/// coarse clock for BPF.
const FLOW_JIFFIES: u64 = 300_000;

/// Packets for user space.
#[map]
static PACKETS: RingBuf = RingBuf::with_byte_size(PACKET_RING_BYTES, 0);

/// Packets that found the ring full, by device.
#[map]
static PACKETS_LOST: PerCpuHashMap<Device, u64> = PerCpuHashMap::with_max_entries(MAX_DEVICES, 0);

const RECEIVED: u32 = 1;
const SENT: u32 = 2;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UNREACHABLE: u8 = 3;
const UNREACHABLE_V6: u8 = 1;
/// Longest header of an Ethernet packet before its IP header, VLAN tags included.
const MAX_LINK_HEADER: u64 = 64;
/// Length of an ICMP header, after which an error quotes the packet that it is about.
const ICMP_HEADER: u32 = 8;

/// From now on packets of this connection are recorded, if packets are asked for. Before its SYN leaves.
#[inline(always)]
pub fn watch_packets(isn: u32) {
    if WANT_PACKETS.load() == 1 {
        // SAFETY: helper without preconditions.
        let since_ns = unsafe { bpf_ktime_get_ns() };
        watch(isn.wrapping_add(1), &Flow { since_ns, isn, padding: 0 });
    }
}

#[inline(always)]
fn watch(number: u32, flow: &Flow) {
    if FLOWS.insert(&number, flow, 0).is_err() {
        count(Program::Packets, Counter::MapFull);
    }
    if let Some(until) = WATCHED_UNTIL.get_ptr_mut(0) {
        // SAFETY: the pointer is valid for the program's run, and a word is written whole; helper without preconditions.
        unsafe { *until = bpf_jiffies64().wrapping_add(FLOW_JIFFIES) };
    }
}

#[inline(always)]
fn any_watched() -> bool {
    match WATCHED_UNTIL.get(0) {
        // SAFETY: helper without preconditions.
        Some(until) => *until > unsafe { bpf_jiffies64() },
        None => false,
    }
}

/// A device sends a packet.
#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
pub fn packet_sent(ctx: RawTracePointContext) -> i32 {
    if !any_watched() {
        return 0;
    }
    let skb: u64 = ctx.arg(0);
    let head: u64 = read(skb, SKB_HEAD.load());
    let offset: u16 = read(skb, SKB_NETWORK.load());
    packet::<SENT>(skb, head + u64::from(offset), ctx.arg(1));
    0
}

/// A device received a packet.
#[raw_tracepoint(tracepoint = "netif_receive_skb")]
pub fn packet_received(ctx: RawTracePointContext) -> i32 {
    if !any_watched() {
        return 0;
    }
    let skb: u64 = ctx.arg(0);
    packet::<RECEIVED>(skb, read(skb, SKB_DATA.load()), 0);
    0
}

/// Where the headers of a packet end, in bytes from its network header, and the number that tells its connection.
#[derive(Clone, Copy)]
struct Headers {
    number: u32,
    /// 0 if this is nothing that could belong to a connection.
    end: u32,
    /// Set for a SYN with payload (TCP Fast Open), whose answer acknowledges that as well: what it acknowledges.
    acknowledged: u32,
}

const NOTHING: Headers = Headers { number: 0, end: 0, acknowledged: 0 };

/// An IP header without what is not needed of it.
#[derive(Clone, Copy)]
struct Ip {
    protocol: u8,
    /// Bytes of the header.
    header: u32,
    /// Bytes of header and payload as the header says.
    total: u32,
}

/// `protocol` 0 = not IP, a later fragment, or IPv6 with extension headers, which TCP connections do not have.
#[inline(always)]
fn ip(network: u64) -> Ip {
    let [first, _, l0, l1, v0, v1, fragment, offset, _, protocol]: [u8; 10] = read(network, 0);
    let four =
        Ip { protocol, header: u32::from(first & 15) * 4, total: u32::from(u16::from_be_bytes([l0, l1])) };
    let payload = u32::from(u16::from_be_bytes([v0, v1]));
    match first >> 4 {
        4 if fragment & 0x1f == 0 && offset == 0 => four,
        6 => Ip { protocol: fragment, header: 40, total: payload + 40 },
        _ => Ip { protocol: 0, header: 0, total: 0 },
    }
}

#[inline(always)]
fn tcp(network: u64, at: u32, total: u32) -> Headers {
    let header: [u8; 14] = read(network, at);
    let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, length, flags] = header;
    let sequence = u32::from_be_bytes([s0, s1, s2, s3]);
    let acknowledgement = u32::from_be_bytes([a0, a1, a2, a3]);
    let end = at + u32::from(length >> 4) * 4;
    let mut headers = Headers { number: sequence, end, acknowledged: 0 };
    if flags & (SYN | ACK | RST) == SYN {
        headers.number = sequence.wrapping_add(1);
        if total > end {
            headers.acknowledged = headers.number.wrapping_add(total - end);
        }
    } else if flags & ACK != 0 && flags & (SYN | RST) != 0 {
        headers.number = acknowledgement;
    }
    headers
}

/// The headers of a packet, up to the end of TCP's, also of the one that an ICMP error quotes.
#[inline(always)]
fn headers(network: u64) -> Headers {
    let outer = ip(network);
    if outer.protocol == TCP {
        return tcp(network, outer.header, outer.total);
    }
    if outer.protocol != ICMP && outer.protocol != ICMPV6 {
        return NOTHING;
    }
    let kind: u8 = read(network, outer.header);
    let is_error = if outer.protocol == ICMP { kind == UNREACHABLE } else { kind == UNREACHABLE_V6 };
    if !is_error {
        return NOTHING;
    }
    let at = outer.header + ICMP_HEADER;
    let quoted = ip(network + u64::from(at));
    if quoted.protocol != TCP {
        return NOTHING;
    }
    // What a quoted SYN carried decides nothing.
    tcp(network, at + quoted.header, 0)
}

#[inline(always)]
fn packet<const DIRECTION: u32>(skb: u64, network: u64, sending: u64) {
    let headers = headers(network);
    if headers.end == 0 {
        return;
    }
    let Some(flow) = FLOWS.get_ptr(&headers.number) else { return };
    // SAFETY: the map value stays readable for the program's run.
    let flow = unsafe { *flow };
    // SAFETY: helper without preconditions.
    if unsafe { bpf_ktime_get_ns() }.wrapping_sub(flow.since_ns) > FLOW_NS {
        return;
    }
    if headers.acknowledged != 0 {
        watch(headers.acknowledged, &flow);
    }
    let device: u64 = if DIRECTION == SENT { sending } else { read(skb, SKB_DEV.load()) };
    record::<DIRECTION>(skb, network, device, headers.end, flow.isn);
}

/// Writes the packet into the ring.
#[inline(always)]
fn record<const DIRECTION: u32>(skb: u64, network: u64, device: u64, end: u32, isn: u32) {
    count(Program::Packets, Counter::Runs);
    let Some(mut entry) = PACKETS.reserve::<Packet>(0) else {
        lost(device);
        return;
    };
    let pointer = entry.as_mut_ptr();
    // SAFETY: the ring entry holds one Packet; all-zero bytes are a valid Packet.
    let packet = unsafe {
        core::ptr::write_bytes(pointer, 0, 1);
        &mut *pointer
    };
    // SAFETY: helper without preconditions.
    packet.at_ns = unsafe { bpf_ktime_get_ns() };
    packet.isn = isn;
    packet.direction = DIRECTION;
    set_device(&mut packet.device, device);
    let head: u64 = read(skb, SKB_HEAD.load());
    let data: u64 = read(skb, SKB_DATA.load());
    let length: u32 = read(skb, SKB_LEN.load());
    let paged: u32 = read(skb, SKB_DATA_LEN.load());
    // Only an Ethernet header is where it should be on every kind of device.
    let mut start = network;
    if packet.device.kind == DEVICE_ETHERNET || packet.device.kind == DEVICE_LOOPBACK {
        let mac: u16 = read(skb, SKB_MAC.load());
        start = if DIRECTION == SENT { data } else { head + u64::from(mac) };
    }
    // `length` counts from `data` on: more than `start` on the way in, less on the way out of other devices.
    packet.original = length.wrapping_add(data.wrapping_sub(start) as u32);
    // Headers are in the linear part; what follows it is none of the packet's.
    let linear = data.wrapping_add(u64::from(length.wrapping_sub(paged))).wrapping_sub(start);
    let link = network.wrapping_sub(start);
    let mut captured = link.wrapping_add(u64::from(end));
    // Without a place for its link header, there is nothing that could be recorded rightly.
    if link > MAX_LINK_HEADER {
        captured = 0;
    }
    if captured > linear {
        captured = linear;
    }
    if captured > PACKET_BYTES as u64 {
        captured = PACKET_BYTES as u64;
    }
    packet.captured = captured as u32;
    // SAFETY: the helper checks the kernel address and writes at most PACKET_BYTES bytes into the entry.
    unsafe {
        bpf_probe_read_kernel(packet.data.as_mut_ptr().cast(), captured as u32, start as *const _);
    }
    entry.submit(0);
}

#[inline(always)]
fn set_device(target: &mut Device, device: u64) {
    target.netns = netns_of_net(read(device, DEV_NET.load()));
    target.index = read(device, DEV_INDEX.load());
    target.kind = u32::from(read::<u16>(device, DEV_TYPE.load()));
    read_into::<[u8; DEVICE_NAME_LEN]>(&mut target.name, device, DEV_NAME.load());
}

/// The ring was full: counts for the program and for the device.
#[inline(always)]
fn lost(device: u64) {
    count(Program::Packets, Counter::RingFull);
    let mut key = Device { netns: 0, index: 0, kind: 0, name: [0; DEVICE_NAME_LEN] };
    set_device(&mut key, device);
    if let Some(number) = PACKETS_LOST.get_ptr_mut(&key) {
        // SAFETY: the pointer is valid for this CPU's value; an interrupt may cost one count, never memory safety.
        unsafe { *number = (*number).wrapping_add(1) };
        return;
    }
    if PACKETS_LOST.insert(&key, &1, 0).is_err() {
        count(Program::Packets, Counter::MapFull);
    }
}
