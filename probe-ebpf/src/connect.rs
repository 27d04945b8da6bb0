//! A connect with its final tuple, owner, initial sequence number and namespace, before its SYN leaves.
//!
//! Relies on `int tcp_connect(struct sock *sk)` (net/ipv4/tcp_output.c; unchanged 4.15 to 7.2), which
//! `tcp_v4_connect` and `tcp_v6_connect` call in process context with source port and `write_seq` final.
//! Where it cannot be hooked: `BPF_SOCK_OPS_TCP_CONNECT_CB`, which `tcp_connect` calls first, for the tuple, and
//! the tracepoint `sock:inet_sock_set_state` CLOSE -> SYN_SENT (process context, same socket) for the owner.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_skc_to_tcp_sock,
    },
    macros::{fentry, kprobe, map, raw_tracepoint, sock_ops},
    maps::LruHashMap,
    programs::{FEntryContext, ProbeContext, RawTracePointContext, SockOpsContext},
};
use aya_log_ebpf::debug;
use probe_ebpf::{COMM_LEN, Counter, Event, Flagged, Kind, MAX_FLAGGED, Program, ServiceKey};

use crate::{
    fields::{
        SK_DPORT, SK_NUM, SK_STATE, TCP_SND_UNA, TCP_WRITE_SEQ, addresses_of_sock, netns_of_sock, read,
    },
    maps::{FLAGGED, count, emit, is_service, is_service_port, set_owner, set_tuple, start_of},
    packets::watch_packets,
};

/// Who the owner is: the task that runs, or the caller remembered for this socket. Constants, not closures: a closure
/// that captures a function is a struct whose type information the kernel refuses.
const CURRENT: bool = false;
const REMEMBERED: bool = true;

/// Preferred rung.
#[fentry(function = "tcp_connect")]
pub fn connect_fentry(ctx: FEntryContext) -> u32 {
    began::<_, CURRENT>(&ctx, ctx.arg(0));
    0
}

/// Second rung.
#[kprobe]
pub fn connect_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg::<u64>(0) {
        began::<_, CURRENT>(&ctx, sk);
    }
    0
}

#[inline(always)]
fn began<C: EbpfContext, const OWNER: bool>(ctx: &C, sk: u64) {
    count(Program::Connect, Counter::Runs);
    let port: u16 = read(sk, SK_NUM.load());
    if is_service_port(port) && flag::<OWNER>(sk, port, read(sk, TCP_WRITE_SEQ.load())) {
        debug!(ctx, "flagged a connect from service port {}", port);
    }
}

/// At the end of connect(): flags a connect whose beginning was missed. A trampoline program that is preempted is
/// skipped for whoever runs into it on the same CPU (`recursion_misses`); the reply may have been hijacked by now, but
/// the socket still waits, and the facts are joined in any order.
#[inline(always)]
pub fn began_late(sk: u64) {
    let port: u16 = read(sk, SK_NUM.load());
    if !is_service_port(port) || FLAGGED.get_ptr(&sk).is_some() {
        return;
    }
    let state: u8 = read(sk, SK_STATE.load());
    let unacknowledged: u32 = read(sk, TCP_SND_UNA.load());
    let next: u32 = read(sk, TCP_WRITE_SEQ.load());
    // Exactly the SYN is on its way; Fast Open may have put it off to the first write.
    if i32::from(state) == TCP_SYN_SENT && next == unacknowledged.wrapping_add(1) {
        flag::<CURRENT>(sk, port, unacknowledged);
    }
}

/// The port is some service's port: is this very address and port one, in this namespace? True if it was flagged.
#[inline(always)]
fn flag<const OWNER: bool>(sk: u64, local_port: u16, isn: u32) -> bool {
    let mut flagged = Flagged {
        local: [0; 16],
        remote: [0; 16],
        isn,
        netns: netns_of_sock(sk),
        local_port,
        remote_port: u16::from_be(read(sk, SK_DPORT.load())),
        padding: 0,
    };
    addresses_of_sock(sk, &mut flagged.local, &mut flagged.remote);
    let mut key = ServiceKey { address: flagged.local, netns: flagged.netns, port: local_port, padding: 0 };
    if !is_service(&mut key) {
        return false;
    }
    // IPVS matches the reply of a service in its out hook, before it could schedule it: not at risk.
    key.address = flagged.remote;
    key.port = flagged.remote_port;
    if is_service(&mut key) {
        return false;
    }
    if FLAGGED.insert(&sk, &flagged, 0).is_err() {
        count(Program::Connect, Counter::MapFull);
    }
    watch_packets(isn);
    emit(Program::Connect, Kind::ConnectBegan, |event| {
        event.sock = sk;
        event.seq = isn;
        set_tuple(event, &flagged);
        if OWNER == REMEMBERED {
            set_caller(event, sk);
        } else {
            set_owner(event);
        }
    });
    true
}

/// Who moved a socket to SYN_SENT, kept until TCP_CONNECT_CB of the same connect.
#[derive(Clone, Copy)]
#[repr(C)]
struct Caller {
    cgroup_id: u64,
    start_ns: u64,
    pid: u32,
    padding: u32,
    comm: [u8; COMM_LEN],
}

/// Callers by socket address, for the stable rung.
#[map]
static CALLERS: LruHashMap<u64, Caller> = LruHashMap::with_max_entries(MAX_FLAGGED, 0);

pub const TCP_SYN_SENT: i32 = 2;
pub const TCP_CLOSE: i32 = 7;

/// Stable rung, owner. Tracepoint arguments (4.16 and later): (const struct sock *sk, int oldstate, int newstate).
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn connect_caller(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<i32>(1) != TCP_CLOSE || ctx.arg::<i32>(2) != TCP_SYN_SENT {
        return 0;
    }
    let sk: u64 = ctx.arg(0);
    let mut caller = Caller { cgroup_id: 0, start_ns: 0, pid: 0, padding: 0, comm: [0; COMM_LEN] };
    // SAFETY: helpers without preconditions; the comm buffer has the size that is passed.
    unsafe {
        caller.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        caller.cgroup_id = bpf_get_current_cgroup_id();
        caller.start_ns = start_of(bpf_get_current_task());
        bpf_get_current_comm(caller.comm.as_mut_ptr().cast(), COMM_LEN as u32);
    }
    if CALLERS.insert(&sk, &caller, 0).is_err() {
        count(Program::Connect, Counter::MapFull);
    }
    0
}

const BPF_SOCK_OPS_TCP_CONNECT_CB: u32 = 3;

/// Stable rung, final tuple; the owner was remembered by [`connect_caller`].
#[sock_ops]
pub fn connect_sockops(ctx: SockOpsContext) -> u32 {
    began_sockops::<REMEMBERED>(&ctx)
}

/// Stable rung, tuple and owner: where sockops may ask who runs (`bpf_get_current_pid_tgid` in every type of program:
/// 6.10), the callback is in the context of the process that connects.
#[sock_ops]
pub fn connect_sockops_owner(ctx: SockOpsContext) -> u32 {
    began_sockops::<CURRENT>(&ctx)
}

#[inline(always)]
fn began_sockops<const OWNER: bool>(ctx: &SockOpsContext) -> u32 {
    if ctx.op() != BPF_SOCK_OPS_TCP_CONNECT_CB {
        return 1;
    }
    // SAFETY: the context is valid; the verifier checks the pointer for null, as the helper's result below.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return 1;
    }
    // SAFETY: sk is a socket of this context.
    let sk = unsafe { bpf_skc_to_tcp_sock(sk.cast()) } as u64;
    if sk != 0 {
        began::<_, OWNER>(ctx, sk);
    }
    1
}

#[inline(always)]
fn set_caller(event: &mut Event, sk: u64) {
    let Some(caller) = CALLERS.get_ptr(&sk) else { return };
    // SAFETY: the map value stays readable for the program's run; a concurrent reuse of the slot could only mix
    // callers of the same socket address, and this socket is still in its connect.
    let caller = unsafe { &*caller };
    event.pid = caller.pid;
    event.cgroup_id = caller.cgroup_id;
    event.start_ns = caller.start_ns;
    event.comm = caller.comm;
}
