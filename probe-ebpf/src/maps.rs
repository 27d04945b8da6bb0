//! Maps, counters and the way an event is emitted.

use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
        bpf_ktime_get_ns, bpf_probe_read_user,
    },
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use probe_ebpf::{
    CMDLINE_LEN, COMM_LEN, COUNTERS_PER_PROGRAM, Counter, Event, Flagged, Kind, MAX_FLAGGED, MAX_SERVICES,
    PORT_WORDS, PROGRAMS, Program, RING_BYTES, ServiceKey,
};

use crate::fields::{
    ABSENT, MM_ARG_END, MM_ARG_START, TASK_LEADER, TASK_MM, TASK_START, read, read_optional,
};

/// Bitmap of service ports: port p is bit p % 64 of word p / 64.
#[map]
pub static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// The exact services. Preallocated: run-time allocation in tracing programs is unsafe before 6.1.
#[map]
pub static SERVICES: HashMap<ServiceKey, u32> = HashMap::with_max_entries(MAX_SERVICES, 0);

/// Flagged connections by socket address.
#[map]
pub static FLAGGED: LruHashMap<u64, Flagged> = LruHashMap::with_max_entries(MAX_FLAGGED, 0);

/// Per-CPU counters, see [`Counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(PROGRAMS.len() as u32 * COUNTERS_PER_PROGRAM, 0);

/// Events for user space.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(program: Program, counter: Counter) {
    add(program, counter, 1);
}

/// Adds to a counter of this CPU, with wrapping.
#[inline(always)]
pub fn add(program: Program, counter: Counter, amount: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(program as u32 * COUNTERS_PER_PROGRAM + counter as u32) {
        // SAFETY: the pointer is valid for this CPU's value; an interrupt may cost one count, never memory safety.
        unsafe { *value = (*value).wrapping_add(amount) };
    }
}

/// True if some service has this port.
#[inline(always)]
pub fn is_service_port(port: u16) -> bool {
    match PORTS.get(u32::from(port >> 6)) {
        Some(word) => word >> (port & 63) & 1 == 1,
        None => false,
    }
}

/// True if there is this service, by itself or through a service for all ports of the address, which the key asks for
/// afterwards.
#[inline(always)]
pub fn is_service(key: &mut ServiceKey) -> bool {
    if SERVICES.get_ptr(&*key).is_some() {
        return true;
    }
    key.port = 0;
    SERVICES.get_ptr(&*key).is_some()
}

/// Reserves an event, lets `fill` set its fields in place, and submits it. A full ring is counted.
#[inline(always)]
pub fn emit(program: Program, kind: Kind, fill: impl FnOnce(&mut Event)) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(program, Counter::RingFull);
        return;
    };
    let pointer = entry.as_mut_ptr();
    // SAFETY: the ring entry holds one Event; all-zero bytes are a valid Event.
    let event = unsafe {
        core::ptr::write_bytes(pointer, 0, 1);
        &mut *pointer
    };
    // SAFETY: helper without preconditions.
    event.at_ns = unsafe { bpf_ktime_get_ns() };
    event.kind = kind as u32;
    fill(event);
    entry.submit(0);
}

/// Copies the addresses of a flagged connection into an event.
#[inline(always)]
pub fn set_tuple(event: &mut Event, flagged: &Flagged) {
    event.local = flagged.local;
    event.remote = flagged.remote;
    event.local_port = flagged.local_port;
    event.remote_port = flagged.remote_port;
    event.netns = flagged.netns;
}

/// Records the current process as the owner. Only call in process context.
#[inline(always)]
pub fn set_owner(event: &mut Event) {
    // SAFETY: helpers without preconditions; the comm buffer has the size that is passed.
    let task = unsafe {
        event.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        event.cgroup_id = bpf_get_current_cgroup_id();
        bpf_get_current_comm(event.comm.as_mut_ptr().cast(), COMM_LEN as u32);
        bpf_get_current_task()
    };
    event.start_ns = start_of(task);
    set_cmdline(event, task);
}

/// Start of the task's thread group leader, CLOCK_BOOTTIME nanoseconds.
#[inline(always)]
pub fn start_of(task: u64) -> u64 {
    if TASK_LEADER.load() == ABSENT {
        return 0;
    }
    read_optional(read(task, TASK_LEADER.load()), &TASK_START)
}

#[inline(always)]
fn set_cmdline(event: &mut Event, task: u64) {
    let mm = read_optional(task, &TASK_MM);
    if mm == 0 || MM_ARG_START.load() == ABSENT || MM_ARG_END.load() == ABSENT {
        return;
    }
    let start: u64 = read(mm, MM_ARG_START.load());
    let end: u64 = read(mm, MM_ARG_END.load());
    let mut length = end - start;
    if length == 0 {
        return;
    }
    if length > CMDLINE_LEN as u64 {
        length = CMDLINE_LEN as u64;
    }
    // SAFETY: the helper checks the user address and writes at most CMDLINE_LEN bytes into the event.
    let result =
        unsafe { bpf_probe_read_user(event.cmdline.as_mut_ptr().cast(), length as u32, start as *const _) };
    if result == 0 {
        event.cmdline_len = length as u16;
    }
}
