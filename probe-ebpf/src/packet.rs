//! What is read from a packet (`struct sk_buff`).

use probe_ebpf::{Event, v4_mapped};

use crate::fields::{
    DEV_NET, SKB_DEV, SKB_HEAD, SKB_NETWORK, SKB_SK, SKB_TRANSPORT, netns_of_net, netns_of_sock, read,
};

/// A SYN-ACK. Ports and numbers in host byte order.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SynAck {
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub acknowledgement: u32,
    pub netns: u32,
    pub source_port: u16,
    pub destination_port: u16,
    /// 1 in a slot that holds a packet.
    pub set: u32,
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The packet, if it is a TCP SYN-ACK. Its IP and TCP headers lie in the linear part: both stacks pull them before
/// any hook used here.
#[inline(always)]
pub fn syn_ack(skb: u64) -> Option<SynAck> {
    let head: u64 = read(skb, SKB_HEAD.load());
    let transport: u16 = read(skb, SKB_TRANSPORT.load());
    let tcp: [u8; 14] = read(head, u32::from(transport));
    let [s0, s1, d0, d1, _, _, _, _, a0, a1, a2, a3, _, flags] = tcp;
    if flags & (SYN | ACK | RST) != SYN | ACK {
        return None;
    }
    let network: u16 = read(skb, SKB_NETWORK.load());
    let version: u8 = read(head, u32::from(network));
    let (source, destination) = match version >> 4 {
        4 => (v4_mapped(read(head, u32::from(network) + 12)), v4_mapped(read(head, u32::from(network) + 16))),
        6 => (read(head, u32::from(network) + 8), read(head, u32::from(network) + 24)),
        _ => return None,
    };
    Some(SynAck {
        source,
        destination,
        acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
        netns: netns_of_packet(skb),
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        set: 1,
    })
}

/// Namespace of the packet's device, else of its socket (locally sent packets have no device yet), else 0.
#[inline(always)]
fn netns_of_packet(skb: u64) -> u32 {
    let device: u64 = read(skb, SKB_DEV.load());
    if device != 0 {
        return netns_of_net(read(device, DEV_NET.load()));
    }
    let sk: u64 = read(skb, SKB_SK.load());
    if sk == 0 { 0 } else { netns_of_sock(sk) }
}

/// Writes the packet's addresses into an event: `remote` sent it, `local` receives it.
#[inline(always)]
pub fn set_packet(event: &mut Event, packet: &SynAck) {
    event.remote = packet.source;
    event.remote_port = packet.source_port;
    event.local = packet.destination;
    event.local_port = packet.destination_port;
    event.seq = packet.acknowledgement;
    event.netns = packet.netns;
}
