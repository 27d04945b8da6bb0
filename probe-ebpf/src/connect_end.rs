//! How connect() itself ended: EADDRNOTAVAIL is "no free source port", with the process named.
//!
//! Relies on `int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)` (net/ipv4/tcp_ipv4.c) and
//! `tcp_v6_connect` with the same arguments (4.15 to 7.2; 7.2 renames the sockaddr type, not its layout).
//! Where they cannot be hooked: the tracepoints syscalls:sys_enter_connect and sys_exit_connect.

use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_probe_read_user, bpf_task_pt_regs,
    },
    macros::{fexit, kprobe, kretprobe, map, tracepoint},
    maps::LruHashMap,
    programs::{FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};
use probe_ebpf::{Counter, Kind, Program, v4_mapped};

use crate::{
    connect::began_late,
    fields::{SECOND_ARGUMENT, SK_NUM, local_address_of_sock, netns_of_sock, read},
    maps::{FLAGGED, count, emit, set_owner, set_tuple},
};

pub const EADDRNOTAVAIL: i32 = 99;
const AF_INET: u16 = 2;

/// Remote address (16-byte form) and port (host byte order).
#[derive(Clone, Copy)]
pub struct Remote {
    pub address: [u8; 16],
    pub port: u16,
}

/// Preferred rung. The return value is read as the argument after the last one: works before 5.17 too.
#[fexit(function = "tcp_v4_connect")]
pub fn connect_end_v4_fexit(ctx: FExitContext) -> u32 {
    ended(ctx.arg(0), ctx.arg(1), ctx.arg(3));
    0
}

/// Preferred rung, IPv6.
#[fexit(function = "tcp_v6_connect")]
pub fn connect_end_v6_fexit(ctx: FExitContext) -> u32 {
    ended(ctx.arg(0), ctx.arg(1), ctx.arg(3));
    0
}

/// Arguments of a connect that has not returned yet.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Call {
    pub sk: u64,
    pub uaddr: u64,
}

/// Calls by thread. tcp_v6_connect may call tcp_v4_connect: the inner call overwrites the entry, which then holds
/// the same socket.
#[map]
static CALLS: LruHashMap<u64, Call> = LruHashMap::with_max_entries(10_240, 0);

#[inline(always)]
fn remember(sk: u64, uaddr: u64) {
    // SAFETY: helper without preconditions.
    let thread = unsafe { bpf_get_current_pid_tgid() };
    if CALLS.insert(&thread, &Call { sk, uaddr }, 0).is_err() {
        count(Program::ConnectEnd, Counter::MapFull);
    }
}

#[inline(always)]
pub fn recall() -> Option<Call> {
    // SAFETY: helper without preconditions.
    let thread = unsafe { bpf_get_current_pid_tgid() };
    // SAFETY: only this thread writes the entry of its own key.
    let call = unsafe { *CALLS.get_ptr(&thread)? };
    let _ = CALLS.remove(&thread);
    Some(call)
}

/// Second rung, entry of tcp_v4_connect and tcp_v6_connect.
#[kprobe]
pub fn connect_enter_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(uaddr)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) {
        remember(sk, uaddr);
    }
    0
}

/// Second rung, return.
#[kretprobe]
pub fn connect_end_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(call) = recall() {
        ended(call.sk, call.uaddr, ctx.ret());
    }
    0
}

/// The kernel's copy of the address that connect() was given.
#[inline(always)]
pub fn remote_of(uaddr: u64) -> Remote {
    let family: u16 = read(uaddr, 0);
    let address = if family == AF_INET { v4_mapped(read(uaddr, 4)) } else { read(uaddr, 8) };
    Remote { address, port: u16::from_be(read(uaddr, 2)) }
}

#[inline(always)]
fn ended(sk: u64, uaddr: u64, result: i32) {
    count(Program::ConnectEnd, Counter::Runs);
    if result == 0 {
        began_late(sk);
        return;
    }
    let flagged = FLAGGED.get_ptr(&sk);
    if result != -EADDRNOTAVAIL && flagged.is_none() {
        return;
    }
    let remote = remote_of(uaddr);
    emit(Program::ConnectEnd, Kind::ConnectReturned, |event| {
        event.sock = sk;
        event.code = result;
        event.netns = netns_of_sock(sk);
        event.local_port = read(sk, SK_NUM.load());
        local_address_of_sock(sk, &mut event.local);
        event.remote = remote.address;
        event.remote_port = remote.port;
        if let Some(flagged) = flagged {
            // SAFETY: map values stay readable for the program's run.
            set_tuple(event, unsafe { &*flagged });
        }
        set_owner(event);
    });
}

/// Stable rung, exit alone: long ret at 16. The kernel keeps the arguments of the system call until its end (helper
/// `bpf_task_pt_regs`, 5.15 and later), so that nothing has to be remembered for the one connect that fails.
#[tracepoint]
pub fn connect_end_registers(ctx: TracePointContext) -> u32 {
    count(Program::ConnectEnd, Counter::Runs);
    if !found_no_port(&ctx) {
        return 0;
    }
    // SAFETY: the running task is a task; its registers are those of the system call, in process context.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    if registers != 0 {
        returned_without_port(read(registers, SECOND_ARGUMENT.load()));
    }
    0
}

/// Stable rung, entry: int fd at 16, struct sockaddr *uservaddr at 24 (format file of the tracepoint).
#[tracepoint]
pub fn connect_enter_tracepoint(ctx: TracePointContext) -> u32 {
    // SAFETY: both offsets lie inside the tracepoint's record.
    if let Ok(uaddr) = unsafe { ctx.read_at::<u64>(24) } {
        remember(0, uaddr);
    }
    0
}

/// Stable rung, exit: long ret at 16.
#[tracepoint]
pub fn connect_end_tracepoint(ctx: TracePointContext) -> u32 {
    let Some(call) = recall() else { return 0 };
    count(Program::ConnectEnd, Counter::Runs);
    if found_no_port(&ctx) {
        returned_without_port(call.uaddr);
    }
    0
}

/// Whether the connect(2) that ends here found no free source port.
#[inline(always)]
fn found_no_port(ctx: &TracePointContext) -> bool {
    // SAFETY: the offset lies inside the tracepoint's record.
    let result = unsafe { ctx.read_at::<i64>(16) };
    result == Ok(-i64::from(EADDRNOTAVAIL))
}

/// Reports a connect without a port; `uaddr`: where the process keeps the address that it connects to.
#[inline(always)]
fn returned_without_port(uaddr: u64) {
    let mut sockaddr = [0u8; 24];
    // SAFETY: the helper checks the user address and writes 24 bytes (enough for both families' address and port).
    unsafe { bpf_probe_read_user(sockaddr.as_mut_ptr().cast(), 24, uaddr as *const _) };
    let [f0, f1, p0, p1, a, b, c, d, rest @ ..] = sockaddr;
    emit(Program::ConnectEnd, Kind::ConnectReturned, |event| {
        event.code = -EADDRNOTAVAIL;
        event.remote = if u16::from_ne_bytes([f0, f1]) == AF_INET { v4_mapped([a, b, c, d]) } else { rest };
        event.remote_port = u16::from_be_bytes([p0, p1]);
        set_owner(event);
    });
}
