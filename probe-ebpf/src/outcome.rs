//! What became of a flagged socket. Tracepoints only: a stable interface on every supported kernel.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use probe_ebpf::{Counter, Kind, Program};

use crate::{
    fields::{SK_ERR, TCP_SND_UNA, read},
    maps::{FLAGGED, count, emit, set_tuple},
};

const TCP_SYN_SENT: i32 = 2;

/// `sock:inet_sock_set_state` (const struct sock *sk, int oldstate, int newstate), 4.16 and later.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn outcome_state(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<i32>(1) != TCP_SYN_SENT {
        return 0;
    }
    count(Program::Outcome, Counter::Runs);
    let sk: u64 = ctx.arg(0);
    let Some(flagged) = FLAGGED.get_ptr(&sk) else { return 0 };
    emit(Program::Outcome, Kind::StateChanged, |event| {
        // SAFETY: map values stay readable for the program's run.
        set_tuple(event, unsafe { &*flagged });
        event.sock = sk;
        event.code = ctx.arg(2);
        event.aux = read(sk, SK_ERR.load());
        event.seq = read(sk, TCP_SND_UNA.load());
    });
    let _ = FLAGGED.remove(&sk);
    0
}

/// `tcp:tcp_retransmit_skb` (const struct sock *sk, const struct sk_buff *skb[, int err]), 4.15 and later.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn outcome_retransmit(ctx: RawTracePointContext) -> i32 {
    count(Program::Retransmit, Counter::Runs);
    let sk: u64 = ctx.arg(0);
    let Some(flagged) = FLAGGED.get_ptr(&sk) else { return 0 };
    emit(Program::Retransmit, Kind::SynRetransmitted, |event| {
        // SAFETY: map values stay readable for the program's run.
        set_tuple(event, unsafe { &*flagged });
        event.sock = sk;
    });
    0
}
