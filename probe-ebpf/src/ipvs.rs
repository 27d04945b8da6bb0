//! IPVS schedules a SYN-ACK, or has no backend for it, or its table changes. kprobes: these are module functions,
//! and on 5.10 the module has no BTF.

use aya_ebpf::{
    macros::{kprobe, kretprobe, map, raw_tracepoint},
    maps::{Array, PerCpuArray},
    programs::{ProbeContext, RawTracePointContext, RetProbeContext},
};
use probe_ebpf::{Counter, Kind, Program, v4_mapped};

use crate::{
    fields::{CONN_PARAM_CPORT, CONN_PARAM_VPORT, read},
    maps::{count, emit},
    packet::{SynAck, set_packet, syn_ack},
};

/// The SYN-ACK that IPVS schedules on this CPU, between ip_vs_schedule and ip_vs_conn_new.
#[map]
static SCHEDULED: PerCpuArray<SynAck> = PerCpuArray::with_max_entries(1, 0);

/// `struct ip_vs_conn *ip_vs_schedule(struct ip_vs_service *svc, struct sk_buff *skb, struct ip_vs_proto_data *pd,
/// int *ignored, struct ip_vs_iphdr *iph)` (net/netfilter/ipvs/ip_vs_core.c; 4.15 to 7.2).
#[kprobe]
pub fn hijack_schedule(ctx: ProbeContext) -> u32 {
    count(Program::Hijack, Counter::Runs);
    let Some(slot) = SCHEDULED.get_ptr_mut(0) else { return 0 };
    // SAFETY: the slot is this CPU's own; a nested run would write a whole packet, which ip_vs_conn_new then compares.
    let slot = unsafe { &mut *slot };
    slot.set = 0;
    let Some(skb) = ctx.arg::<u64>(1) else { return 0 };
    if let Some(packet) = syn_ack(skb) {
        *slot = packet;
    }
    0
}

/// `struct ip_vs_conn *ip_vs_conn_new(const struct ip_vs_conn_param *p, int dest_af, const union nf_inet_addr *daddr,
/// __be16 dport, unsigned int flags, struct ip_vs_dest *dest, __u32 fwmark)` (ip_vs_conn.c; 4.15 to 7.2).
#[kprobe]
pub fn hijack_conn_new(ctx: ProbeContext) -> u32 {
    let Some(slot) = SCHEDULED.get_ptr_mut(0) else { return 0 };
    // SAFETY: as in hijack_schedule.
    let slot = unsafe { &mut *slot };
    if slot.set == 0 {
        return 0;
    }
    let (Some(param), Some(family), Some(address), Some(port)) =
        (ctx.arg::<u64>(0), ctx.arg::<i32>(1), ctx.arg::<u64>(2), ctx.arg::<u16>(3))
    else {
        return 0;
    };
    // A persistent service makes a template with client port 0 first; another packet's connection has other ports.
    let client_port = u16::from_be(read(param, CONN_PARAM_CPORT.load()));
    let virtual_port = u16::from_be(read(param, CONN_PARAM_VPORT.load()));
    if client_port != slot.source_port || virtual_port != slot.destination_port {
        return 0;
    }
    slot.set = 0;
    emit(Program::Hijack, Kind::Hijacked, |event| {
        set_packet(event, slot);
        event.backend = if family == AF_INET { v4_mapped(read(address, 0)) } else { read(address, 0) };
        event.backend_port = u16::from_be(port);
    });
    0
}

const AF_INET: i32 = 2;

/// `int ip_vs_leave(struct ip_vs_service *svc, struct sk_buff *skb, struct ip_vs_proto_data *pd,
/// struct ip_vs_iphdr *iph)` (ip_vs_core.c; 4.15 to 7.2).
#[kprobe]
pub fn no_backend_leave(ctx: ProbeContext) -> u32 {
    count(Program::NoBackend, Counter::Runs);
    let Some(skb) = ctx.arg::<u64>(1) else { return 0 };
    let Some(packet) = syn_ack(skb) else { return 0 };
    emit(Program::NoBackend, Kind::NoBackend, |event| set_packet(event, &packet));
    0
}

/// Return of `ip_vs_genl_set_cmd` (every change by netlink) and `do_ip_vs_set_ctl` (by setsockopt), ip_vs_ctl.c.
#[kretprobe]
pub fn table_changed(_ctx: RetProbeContext) -> u32 {
    count(Program::Trigger, Counter::Runs);
    let Some(announced) = ANNOUNCED.get_ptr_mut(0) else { return 0 };
    // SAFETY: valid for the program's run. Two CPUs may both announce: one event too many, none too few.
    unsafe {
        if *announced == 1 {
            return 0;
        }
        *announced = 1;
    }
    emit(Program::Trigger, Kind::TableChanged, |_| ());
    0
}

/// 1 from the first change until user space, about to read the table, sets it back: thousands of changes in a row
/// make one event.
#[map]
static ANNOUNCED: Array<u32> = Array::with_max_entries(1, 0);

/// Tracepoint module:module_load (struct module *mod): ip_vs may have come.
#[raw_tracepoint(tracepoint = "module_load")]
pub fn module_loaded(_ctx: RawTracePointContext) -> i32 {
    module_changed()
}

/// Tracepoint module:module_free (struct module *mod): ip_vs may have gone.
#[raw_tracepoint(tracepoint = "module_free")]
pub fn module_freed(_ctx: RawTracePointContext) -> i32 {
    module_changed()
}

#[inline(always)]
fn module_changed() -> i32 {
    count(Program::Trigger, Counter::Runs);
    emit(Program::Trigger, Kind::ModuleChanged, |_| ());
    0
}
