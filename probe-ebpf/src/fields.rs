//! Where the kernel fields are, as user space resolved them from BTF, and how they are read.
//!
//! Each offset is a read-only global that the verifier knows as a constant. [`ABSENT`] marks a field that this
//! kernel does not have; the verifier then drops the code that reads it.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};
use probe_ebpf::v4_mapped;

/// Offset of a field that does not exist here.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])* #[unsafe(no_mangle)] pub static $name: Global<u32> = Global::new(ABSENT);)*
    };
}

offsets! {
    /// sock_common.skc_family
    SK_FAMILY;
    /// sock_common.skc_num (host byte order)
    SK_NUM;
    /// sock_common.skc_dport (network byte order)
    SK_DPORT;
    /// sock_common.skc_rcv_saddr
    SK_RCV_SADDR;
    /// sock_common.skc_daddr
    SK_DADDR;
    /// sock_common.skc_v6_rcv_saddr
    SK_V6_RCV_SADDR;
    /// sock_common.skc_v6_daddr
    SK_V6_DADDR;
    /// sock_common.skc_net
    SK_NET;
    /// sock_common.skc_state
    SK_STATE;
    /// sock.sk_err
    SK_ERR;
    /// tcp_sock.write_seq
    TCP_WRITE_SEQ;
    /// tcp_sock.snd_una
    TCP_SND_UNA;
    /// net.ns.inum
    NET_INUM;
    /// pt_regs: the second argument of a system call
    SECOND_ARGUMENT;
    /// sk_buff.head
    SKB_HEAD;
    /// sk_buff.transport_header
    SKB_TRANSPORT;
    /// sk_buff.network_header
    SKB_NETWORK;
    /// sk_buff.mac_header
    SKB_MAC;
    /// sk_buff.data
    SKB_DATA;
    /// sk_buff.len
    SKB_LEN;
    /// sk_buff.data_len
    SKB_DATA_LEN;
    /// sk_buff.dev
    SKB_DEV;
    /// sk_buff.sk
    SKB_SK;
    /// net_device.nd_net
    DEV_NET;
    /// net_device.name
    DEV_NAME;
    /// net_device.ifindex
    DEV_INDEX;
    /// net_device.type
    DEV_TYPE;
    /// task_struct.group_leader
    TASK_LEADER;
    /// task_struct.start_boottime (5.5 and later)
    TASK_START;
    /// task_struct.mm
    TASK_MM;
    /// mm_struct.arg_start
    MM_ARG_START;
    /// mm_struct.arg_end
    MM_ARG_END;
    /// ip_vs_conn_param.cport
    CONN_PARAM_CPORT;
    /// ip_vs_conn_param.vport
    CONN_PARAM_VPORT;
}

/// 1 where `tcp_send_reset` and `tcp_v4_send_reset` carry a reason as their third argument (6.10 and later).
#[unsafe(no_mangle)]
pub static RESET_HAS_REASON: Global<u32> = Global::new(0);

/// 1 where the packets of flagged connections are to be recorded.
#[unsafe(no_mangle)]
pub static WANT_PACKETS: Global<u32> = Global::new(0);

const AF_INET: u16 = 2;

/// Reads `T` at `base + offset`. Memory that cannot be read comes back as zero bytes: the helper clears its target.
/// No `Result`: 5.10 to 6.7 can prune the wrong arm of a match on one.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the helper checks the address itself and writes exactly size_of::<T>() bytes; every T used is plain data.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            (base + u64::from(offset)) as *const _,
        );
        value.assume_init()
    }
}

/// Like [`read`], but 0 where the field does not exist.
#[inline(always)]
pub fn read_optional(base: u64, offset: &Global<u32>) -> u64 {
    match offset.load() {
        ABSENT => 0,
        offset => read(base, offset),
    }
}

/// Inode number of the network namespace of a `struct net`.
#[inline(always)]
pub fn netns_of_net(net: u64) -> u32 {
    if net == 0 { 0 } else { read(net, NET_INUM.load()) }
}

/// Inode number of the network namespace of a socket.
#[inline(always)]
pub fn netns_of_sock(sk: u64) -> u32 {
    netns_of_net(read(sk, SK_NET.load()))
}

/// Like [`read`], straight into its place: an address that is returned by value costs stack twice.
#[inline(always)]
pub fn read_into<T: Copy>(target: &mut T, base: u64, offset: u32) {
    // SAFETY: as in read(); memory that cannot be read leaves the target zeroed.
    unsafe {
        bpf_probe_read_kernel(
            ptr::from_mut(target).cast(),
            size_of::<T>() as u32,
            (base + u64::from(offset)) as *const _,
        );
    }
}

/// Local and remote address of a socket; a v4-mapped address of an IPv6 socket has the same form as an IPv4 one.
#[inline(always)]
pub fn addresses_of_sock(sk: u64, local: &mut [u8; 16], remote: &mut [u8; 16]) {
    local_address_of_sock(sk, local);
    let family: u16 = read(sk, SK_FAMILY.load());
    if family == AF_INET {
        *remote = v4_mapped(read(sk, SK_DADDR.load()));
    } else if SK_V6_DADDR.load() != ABSENT {
        read_into(remote, sk, SK_V6_DADDR.load());
    }
}

/// Local address of a socket.
#[inline(always)]
pub fn local_address_of_sock(sk: u64, local: &mut [u8; 16]) {
    let family: u16 = read(sk, SK_FAMILY.load());
    if family == AF_INET {
        *local = v4_mapped(read(sk, SK_RCV_SADDR.load()));
    } else if SK_V6_DADDR.load() != ABSENT {
        read_into(local, sk, SK_V6_RCV_SADDR.load());
    }
}
