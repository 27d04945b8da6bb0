//! A stack of this node answers a SYN-ACK with a RST, in any namespace.
//!
//! The tuple comes from the offending packet, never from the socket: that is the backend's listener, or none.
//! Only a SYN-ACK counts, so resets that an application asks for (no packet) are none of ours.
//!
//! Relies on `static void tcp_v4_send_reset(const struct sock *sk, struct sk_buff *skb[, enum sk_rst_reason])`
//! (net/ipv4/tcp_ipv4.c; third argument from 6.10) and `tcp_v6_send_reset`; or on the tracepoint `tcp:tcp_send_reset`
//! (const struct sock *, const struct sk_buff *[, const enum sk_rst_reason]), which fires without a socket from 6.10.

use aya_ebpf::{
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use probe_ebpf::{Counter, Kind, Program};

use crate::{
    fields::{RESET_HAS_REASON, netns_of_sock},
    maps::{count, emit},
    packet::{set_packet, syn_ack},
};

const NO_REASON: i32 = -1;

/// Preferred where it fires without a socket.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn reset_tracepoint(ctx: RawTracePointContext) -> i32 {
    let reason = if RESET_HAS_REASON.load() == 1 { ctx.arg(2) } else { NO_REASON };
    reset(ctx.arg(0), ctx.arg(1), reason);
    0
}

/// fentry rung.
#[fentry(function = "tcp_v4_send_reset")]
pub fn reset_v4_fentry(ctx: FEntryContext) -> u32 {
    let reason = if RESET_HAS_REASON.load() == 1 { ctx.arg(2) } else { NO_REASON };
    reset(ctx.arg(0), ctx.arg(1), reason);
    0
}

/// fentry rung, IPv6.
#[fentry(function = "tcp_v6_send_reset")]
pub fn reset_v6_fentry(ctx: FEntryContext) -> u32 {
    let reason = if RESET_HAS_REASON.load() == 1 { ctx.arg(2) } else { NO_REASON };
    reset(ctx.arg(0), ctx.arg(1), reason);
    0
}

/// kprobe rung, both families.
#[kprobe]
pub fn reset_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) {
        let reason = if RESET_HAS_REASON.load() == 1 { ctx.arg::<i32>(2) } else { None };
        reset(sk, skb, reason.unwrap_or(NO_REASON));
    }
    0
}

#[inline(always)]
fn reset(sk: u64, skb: u64, reason: i32) {
    count(Program::Reset, Counter::Runs);
    if skb == 0 {
        return;
    }
    let Some(packet) = syn_ack(skb) else { return };
    emit(Program::Reset, Kind::Reset, |event| {
        set_packet(event, &packet);
        event.sock = sk;
        event.code = reason;
        // A listener gets the packet after its device was cleared (tcp_v4_rcv), so ask the socket.
        if event.netns == 0 && sk != 0 {
            event.netns = netns_of_sock(sk);
        }
    });
}
