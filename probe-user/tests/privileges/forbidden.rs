//! What must fail afterwards.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{TcpListener, TcpStream};

use libc::{EACCES, EPERM, c_long};

use crate::{Outcome, directory, is_root, landlock_abi, usual, with};

/// Each with arguments that do nothing even where it is allowed.
const CALLS: &[(&str, c_long, [c_long; 5])] = &[
    ("ptrace", libc::SYS_ptrace, [-1, -1, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [-1, 0, 0, 0, 0]),
    ("process_vm_writev", libc::SYS_process_vm_writev, [-1, 0, 0, 0, 0]),
    ("mount", libc::SYS_mount, [0, 0, 0, 0, 0]),
    ("umount2", libc::SYS_umount2, [0, 0, 0, 0, 0]),
    ("pivot_root", libc::SYS_pivot_root, [0, 0, 0, 0, 0]),
    ("chroot", libc::SYS_chroot, [0, 0, 0, 0, 0]),
    ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0]),
    ("unshare", libc::SYS_unshare, [1, 0, 0, 0, 0]),
    ("init_module", libc::SYS_init_module, [0, 0, 0, 0, 0]),
    ("finit_module", libc::SYS_finit_module, [-1, 0, 0, 0, 0]),
    ("delete_module", libc::SYS_delete_module, [0, 0, 0, 0, 0]),
    ("kexec_load", libc::SYS_kexec_load, [0, 1 << 20, 0, 0, 0]),
    ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0]),
    ("execve", libc::SYS_execve, [0, 0, 0, 0, 0]),
    ("execveat", libc::SYS_execveat, [-1, 0, 0, 0, 0]),
    ("bpf(PROG_LOAD)", libc::SYS_bpf, [5, 0, 0, 0, 0]),
    ("bpf(MAP_CREATE)", libc::SYS_bpf, [0, 0, 0, 0, 0]),
    ("bpf(BTF_LOAD)", libc::SYS_bpf, [18, 0, 0, 0, 0]),
    ("bpf(LINK_CREATE)", libc::SYS_bpf, [28, 0, 0, 0, 0]),
    ("bpf(PROG_GET_FD_BY_ID)", libc::SYS_bpf, [13, 0, 0, 0, 0]),
    ("bpf(OBJ_PIN)", libc::SYS_bpf, [6, 0, 0, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, 0, 0]),
    // CLONE_SIGHAND without CLONE_VM is wrong: no process is made.
    ("clone(a process)", libc::SYS_clone, [libc::CLONE_SIGHAND as c_long, 0, 0, 0, 0]),
    ("socket(AF_PACKET)", libc::SYS_socket, [libc::AF_PACKET as c_long, 99, 0, 0, 0]),
    ("socket(SOCK_RAW)", libc::SYS_socket, [libc::AF_INET as c_long, libc::SOCK_RAW as c_long, 9999, 0, 0]),
    ("socket(NETLINK_AUDIT)", libc::SYS_socket, [libc::AF_NETLINK as c_long, 99, 9, 0, 0]),
    ("kill", libc::SYS_kill, [0x7fff_fffe, 0, 0, 0, 0]),
    ("prctl(PR_SET_DUMPABLE)", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as c_long, 99, 0, 0, 0]),
    ("prlimit64(set)", libc::SYS_prlimit64, [0, 99, 8, 0, 0]),
    ("ioctl(TIOCSTI)", libc::SYS_ioctl, [-1, libc::TIOCSTI.cast_signed(), 0, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [0, 0, 0, 0, 0]),
    ("keyctl", libc::SYS_keyctl, [-1, 0, 0, 0, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0]),
    ("clock_settime", libc::SYS_clock_settime, [-1, 0, 0, 0, 0]),
    ("listen", libc::SYS_listen, [-1, 0, 0, 0, 0]),
    ("mknodat", libc::SYS_mknodat, [-1, 0, 0, 0, 0]),
    ("fchownat", libc::SYS_fchownat, [-1, 0, 0, 0, 0]),
    ("setuid", libc::SYS_setuid, [-1, 0, 0, 0, 0]),
    ("setgroups", libc::SYS_setgroups, [1 << 20, 0, 0, 0, 0]),
];

/// Error number of a call; 0 = none.
fn errno(call: c_long, arguments: [c_long; 5]) -> i32 {
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: the arguments are chosen so that the kernel refuses every one of them, and none is a valid pointer.
    let result = unsafe { libc::syscall(call, first, second, third, fourth, fifth) };
    if result == -1 { io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 }
}

pub(crate) fn calls() -> Outcome {
    let before: Vec<i32> = CALLS.iter().map(|(_, call, arguments)| errno(*call, *arguments)).collect();
    let root = is_root();
    usual();
    for ((name, call, arguments), before) in CALLS.iter().zip(before) {
        assert_eq!(errno(*call, *arguments), EPERM, "{name}; before it was {before}");
        // Root is refused none of them for itself, so it was the filter.
        assert!(!root || before != EPERM, "{name} was not permitted before");
    }
    // What was dropped cannot be raised again.
    assert!(caps::raise(None, caps::CapSet::Permitted, caps::Capability::CAP_SYS_ADMIN).is_err());
    assert!(caps::raise(None, caps::CapSet::Effective, caps::Capability::CAP_BPF).is_err());
    assert!(caps::raise(None, caps::CapSet::Inheritable, caps::Capability::CAP_BPF).is_err());
    assert!(caps::raise(None, caps::CapSet::Ambient, caps::Capability::CAP_BPF).is_err());
    Outcome::Passed
}

fn refused<T>(what: &str, result: io::Result<T>) {
    match result {
        Ok(_) => panic!("{what} is allowed"),
        Err(error) => assert_eq!(error.raw_os_error(), Some(EACCES), "{what}: {error}"),
    }
}

pub(crate) fn files() -> Outcome {
    if landlock_abi() < 1 {
        let confined = usual();
        assert!(confined.notes().iter().any(|note| note.contains("Landlock")), "{:?}", confined.notes());
        return Outcome::Skipped("no Landlock here, which is said".to_owned());
    }
    let (outside, reads, writes) = (directory(), directory(), directory());
    for path in [&outside, &reads, &writes] {
        fs::write(path.join("file"), "old").unwrap();
    }
    let plan_reads = reads.clone();
    let plan_writes = writes.clone();
    with(|plan| {
        plan.reads.push(plan_reads);
        plan.writes.push(plan_writes);
    });
    refused("reading /etc/shadow", File::open("/etc/passwd"));
    refused("reading outside", File::open(outside.join("file")));
    refused("listing outside", fs::read_dir(&outside));
    refused("writing outside", OpenOptions::new().write(true).open(outside.join("file")));
    refused("making outside", File::create(outside.join("new")));
    refused("removing outside", fs::remove_file(outside.join("file")));
    refused("writing what may be read", OpenOptions::new().append(true).open(reads.join("file")));
    refused("making where may be read", File::create(reads.join("new")));
    refused("a sysctl", OpenOptions::new().write(true).open("/proc/sys/net/ipv4/ip_local_port_range"));
    refused("a device", OpenOptions::new().read(true).write(true).open("/dev/null"));
    let moved = fs::rename(writes.join("file"), outside.join("moved"));
    assert!(moved.is_err(), "moving out is allowed");
    assert_eq!(fs::read_to_string(reads.join("file")).unwrap(), "old");
    assert_eq!(fs::read_to_string(writes.join("file")).unwrap(), "old");
    Outcome::Passed
}

/// What listens was there before; nothing new does, however it is tried.
pub(crate) fn listener() -> Outcome {
    let before = TcpListener::bind("127.0.0.1:0").unwrap();
    usual();
    assert!(TcpListener::bind("127.0.0.1:0").is_err());
    let address = before.local_addr().unwrap();
    let _client = TcpStream::connect(address).unwrap();
    assert!(before.accept().is_ok());
    Outcome::Passed
}

pub(crate) fn ports() -> Outcome {
    if landlock_abi() < 4 {
        return Outcome::Skipped("Landlock here knows no ports".to_owned());
    }
    let (planned, other) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (planned, other_address) = (planned.local_addr().unwrap(), other.local_addr().unwrap());
    let other = other.try_clone().unwrap();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listening.local_addr().unwrap();
    with(|plan| plan.tcp_ports = Some(vec![planned.port(), open.port()]));
    assert!(TcpStream::connect(open).is_ok());
    refused("a port that is not planned", TcpStream::connect(other_address));
    drop(other);
    Outcome::Passed
}
