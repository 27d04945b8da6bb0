//! Counts connects per process and destination, and those that found no source port, in the kernel: nothing is sent
//! per connect, user space reads the map once a second. Attached by `portclash ports` only.
//!
//! Connects: `tcp_connect`, as in `connect.rs`. Where it cannot be hooked: the tracepoint `sock:inet_sock_set_state`
//! CLOSE -> SYN_SENT, which `tcp_v4_connect` and `tcp_v6_connect` pass in process context with both addresses and the
//! remote port set, and the source port not chosen yet. If none is found they pass SYN_SENT -> CLOSE without a port
//! (`inet_num` is 0), in the same context, and the connect is taken back.
//!
//! Failures: the return of `tcp_v4_connect` and `tcp_v6_connect`, as in `connect_end.rs`; else the same tracepoint.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_ktime_get_ns,
    },
    macros::{fentry, fexit, kprobe, kretprobe, map, raw_tracepoint},
    maps::{Array, LruPerCpuHashMap},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use probe_ebpf::{COMM_LEN, Count, CountKey, Counter, MAX_COUNTED, Program};

use crate::{
    connect::{TCP_CLOSE, TCP_SYN_SENT},
    connect_end::{EADDRNOTAVAIL, recall, remote_of},
    fields::{SK_DPORT, SK_NUM, TCP_WRITE_SEQ, addresses_of_sock, netns_of_sock, read},
    maps::{add, start_of},
};

/// Counts since the entry was made. User space sets the size: a slot per CPU makes it large on large machines.
#[map]
static COUNTED: LruPerCpuHashMap<CountKey, Count> = LruPerCpuHashMap::with_max_entries(MAX_COUNTED, 0);

/// The network namespace whose connects are counted, by inode number; 0 = all.
#[map]
static COUNTED_NETNS: Array<u32> = Array::with_max_entries(1, 0);

/// 1 less, in counts that wrap.
const ONE_LESS: u64 = u64::MAX;

/// Preferred rung.
#[fentry(function = "tcp_connect")]
pub fn ports_fentry(ctx: FEntryContext) -> u32 {
    connected(ctx.arg(0), 1);
    0
}

/// Second rung.
#[kprobe]
pub fn ports_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg::<u64>(0) {
        connected(sk, 1);
    }
    0
}

/// Stable rung. Tracepoint arguments (4.16 and later): (const struct sock *sk, int oldstate, int newstate).
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn ports_state(ctx: RawTracePointContext) -> i32 {
    let (old, new) = (ctx.arg::<i32>(1), ctx.arg::<i32>(2));
    let sk: u64 = ctx.arg(0);
    if old == TCP_CLOSE && new == TCP_SYN_SENT {
        connected(sk, 1);
    } else if old == TCP_SYN_SENT && new == TCP_CLOSE && found_no_port(sk) {
        connected(sk, ONE_LESS);
    }
    0
}

/// Failures, preferred rung.
#[fexit(function = "tcp_v4_connect")]
pub fn ports_end_v4_fexit(ctx: FExitContext) -> u32 {
    ended(ctx.arg(0), ctx.arg(1), ctx.arg(3));
    0
}

/// Failures, preferred rung, IPv6.
#[fexit(function = "tcp_v6_connect")]
pub fn ports_end_v6_fexit(ctx: FExitContext) -> u32 {
    // A v4-mapped connect is done by tcp_v4_connect, which has counted it.
    if ctx.arg::<i32>(3) == -EADDRNOTAVAIL && !is_v4_mapped(&remote_of(ctx.arg(1)).address) {
        ended(ctx.arg(0), ctx.arg(1), ctx.arg(3));
    }
    0
}

#[inline(always)]
fn is_v4_mapped(address: &[u8; 16]) -> bool {
    matches!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
}

/// Failures, second rung; the entry is `connect_enter_kprobe`.
#[kretprobe]
pub fn ports_end_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(call) = recall() {
        ended(call.sk, call.uaddr, ctx.ret());
    }
    0
}

/// Failures, stable rung: those that found no port.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn ports_end_state(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    if ctx.arg::<i32>(1) == TCP_SYN_SENT && ctx.arg::<i32>(2) == TCP_CLOSE && found_no_port(sk) {
        let Some(mut key) = key_of(sk) else { return 0 };
        addresses_of_sock(sk, &mut key.local, &mut key.remote);
        key.remote_port = u16::from_be(read(sk, SK_DPORT.load()));
        record(Program::PortsEnd, &key, 0, 1);
    }
    0
}

/// Whether a connect that ends has ended for want of a port. Any socket whose port the kernel chose has given it back
/// here (tcp_set_state, net/ipv4/tcp.c), also one that was refused; that one has got a sequence number, which
/// tcp_v4_connect chooses after the port.
#[inline(always)]
fn found_no_port(sk: u64) -> bool {
    read::<u16>(sk, SK_NUM.load()) == 0 && read::<u32>(sk, TCP_WRITE_SEQ.load()) == 0
}

#[inline(always)]
fn connected(sk: u64, amount: u64) {
    let Some(mut key) = key_of(sk) else { return };
    addresses_of_sock(sk, &mut key.local, &mut key.remote);
    key.remote_port = u16::from_be(read(sk, SK_DPORT.load()));
    record(Program::Ports, &key, amount, 0);
}

/// The kernel has cleared the socket's addresses by now, so the local one stays unknown.
#[inline(always)]
fn ended(sk: u64, uaddr: u64, result: i32) {
    if result != -EADDRNOTAVAIL {
        return;
    }
    let Some(mut key) = key_of(sk) else { return };
    let remote = remote_of(uaddr);
    key.remote = remote.address;
    key.remote_port = remote.port;
    record(Program::PortsEnd, &key, 0, 1);
}

/// The current process, in a namespace that counts; addresses are still to be set.
#[inline(always)]
fn key_of(sk: u64) -> Option<CountKey> {
    let netns = netns_of_sock(sk);
    let wanted = *COUNTED_NETNS.get(0)?;
    if wanted != 0 && wanted != netns {
        return None;
    }
    let mut key = CountKey {
        start_ns: 0,
        cgroup_id: 0,
        local: [0; 16],
        remote: [0; 16],
        comm: [0; COMM_LEN],
        pid: 0,
        netns,
        remote_port: 0,
        padding: [0; 3],
    };
    // SAFETY: helpers without preconditions; the comm buffer has the size that is passed.
    unsafe {
        key.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        key.cgroup_id = bpf_get_current_cgroup_id();
        key.start_ns = start_of(bpf_get_current_task());
        bpf_get_current_comm(key.comm.as_mut_ptr().cast(), COMM_LEN as u32);
    }
    Some(key)
}

/// Adds to the entry. Every count also adds to the program's total: what the entries lack of it was evicted unread.
#[inline(always)]
fn record(program: Program, key: &CountKey, connects: u64, unavailable: u64) {
    add(program, Counter::Runs, connects.wrapping_add(unavailable));
    if COUNTED.get_ptr(key).is_none() {
        let none = Count { connects: 0, unavailable: 0, since_ns: 0 };
        // Another CPU may have been faster; and what cannot be made is missed below.
        let _ = COUNTED.insert(key, &none, u64::from(BPF_NOEXIST));
    }
    let Some(count) = COUNTED.get_ptr_mut(key) else {
        crate::maps::count(program, Counter::MapFull);
        return;
    };
    // SAFETY: the pointer is valid for this CPU's slot of the entry; an interrupt may cost one count, never memory
    // safety.
    unsafe {
        if (*count).since_ns == 0 {
            (*count).since_ns = bpf_ktime_get_ns();
        }
        (*count).connects = (*count).connects.wrapping_add(connects);
        (*count).unavailable = (*count).unavailable.wrapping_add(unavailable);
    }
}
