//! The system calls that the sidecar makes once it runs, found by watching it and by reading what its libraries do.
//! Everything else is refused, whatever it is and whichever kernel invents it.

use libc::c_long;

/// Allowed with any arguments.
pub(super) const ANY: &[c_long] = &[
    // Files. Which ones, Landlock says.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_flock,
    // The recorder.
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Sockets that are there. Which can be made, and that none listens, is below.
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    // Signals to itself, threads, clocks, and what it is.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getcpu,
    // Giving up more. Both can only take away: no_new_privs is set, nothing is permitted that could be raised.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_seccomp,
];

/// The old forms of some of them, which newer architectures never had.
#[cfg(target_arch = "x86_64")]
pub(super) const OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_link,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_chmod,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
/// None.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OLD: &[c_long] = &[];

/// What starting `journalctl` takes, and journalctl itself, which inherits the filter.
pub(super) const FOR_JOURNALCTL: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_kill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_setpgid,
    libc::SYS_prlimit64,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_signalfd4,
    libc::SYS_umask,
    libc::SYS_getgroups,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_memfd_create,
    libc::SYS_chdir,
    libc::SYS_fchdir,
];

/// What it takes on this architecture alone.
#[cfg(target_arch = "x86_64")]
pub(super) const FOR_JOURNALCTL_OLD: &[c_long] =
    &[libc::SYS_arch_prctl, libc::SYS_fork, libc::SYS_vfork, libc::SYS_getpgrp];
/// None.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const FOR_JOURNALCTL_OLD: &[c_long] = &[];

/// Commands of bpf(2), include/uapi/linux/bpf.h: what is done with maps that are open.
pub(super) const BPF_ON_MAPS: &[u64] = &[
    1,  // MAP_LOOKUP_ELEM
    2,  // MAP_UPDATE_ELEM
    3,  // MAP_DELETE_ELEM
    4,  // MAP_GET_NEXT_KEY
    15, // OBJ_GET_INFO_BY_FD
    21, // MAP_LOOKUP_AND_DELETE_ELEM
    24, // MAP_LOOKUP_BATCH
    25, // MAP_LOOKUP_AND_DELETE_BATCH
    26, // MAP_UPDATE_BATCH
    27, // MAP_DELETE_BATCH
];

/// Commands that load and attach one more program.
pub(super) const BPF_FOR_HOOKS: &[u64] = &[
    5,  // PROG_LOAD
    17, // RAW_TRACEPOINT_OPEN
    28, // LINK_CREATE
];

/// Options of prctl(2).
pub(super) const PRCTL: &[i32] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_CAPBSET_READ,
    libc::PR_CAPBSET_DROP,
    libc::PR_CAP_AMBIENT,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
    // The C library names its memory.
    libc::PR_SET_VMA,
];

/// Kinds of sockets (the low bits of the type).
pub(super) const SOCKET_TYPES: &[i32] = &[libc::SOCK_STREAM, libc::SOCK_DGRAM];

/// Protocols of netlink that are asked: addresses, sockets, IPVS.
pub(super) const NETLINK: &[i32] = &[libc::NETLINK_ROUTE, libc::NETLINK_SOCK_DIAG, libc::NETLINK_GENERIC];

/// ioctl(2): how much is there to read, and (not) blocking. Nothing of a device, and no TIOCSTI.
pub(super) const IOCTLS: &[u64] =
    &[libc::FIONREAD, libc::FIONBIO, libc::FIOCLEX, libc::TCGETS, libc::TIOCGWINSZ];

/// Of perf events: attach a program, switch on and off (`PERF_EVENT_IOC_*`).
pub(super) const PERF_IOCTLS: &[u64] = &[0x2400, 0x2401, 0x4004_2408];

/// Bits of clone(2) that make a new namespace.
pub(super) const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;
