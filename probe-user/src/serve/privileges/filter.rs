//! The filter of system calls: a list of what is allowed, everything else fails with EPERM.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Compare, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::{PrivilegesError, calls};

/// What happens to a system call that is not on the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Violations {
    /// It fails with EPERM; the kernel says nothing.
    #[default]
    Refuse,
    /// It is let through, and the kernel logs it (type 1326 in `dmesg` or the audit log): to find out what the list lacks
    /// on a new system.
    Log,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Filters the calling thread. A second filter can only take more away.
pub(super) fn install(violations: Violations, executes: bool, hooks: bool) -> Result<(), PrivilegesError> {
    // clone3(2) hides its flags behind a pointer, which no filter can follow. "Not implemented" makes the C library
    // use clone(2). Of two refusals the later filter's is given, so this one comes last and lets all else through.
    let refusal = match violations {
        Violations::Refuse => SeccompAction::Errno(errno(libc::EPERM)),
        Violations::Log => SeccompAction::Log,
    };
    let mut rules = rules(executes, hooks).map_err(failed)?;
    rules.insert(libc::SYS_clone3, Vec::new());
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let not_implemented = SeccompAction::Errno(errno(libc::ENOSYS));
    apply(rules, refusal, SeccompAction::Allow)?;
    apply(clone3, SeccompAction::Allow, not_implemented)
}

fn errno(number: i32) -> u32 {
    number.unsigned_abs()
}

fn failed(error: impl std::fmt::Display) -> PrivilegesError {
    PrivilegesError::Filter(error.to_string())
}

fn apply(rules: Rules, other: SeccompAction, listed: SeccompAction) -> Result<(), PrivilegesError> {
    let program = compile(rules, other, listed).map_err(failed)?;
    seccompiler::apply_filter(&program).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        failed(format!("{error}{}", cause.unwrap_or_default()))
    })
}

fn compile(
    rules: Rules,
    other: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(rules, other, listed, TargetArch::try_from(std::env::consts::ARCH)?)?.try_into()
}

/// The list. An entry without rules is allowed with any arguments; one of several rules must fit.
fn rules(executes: bool, hooks: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = calls::ANY.iter().chain(calls::OLD).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, clone(executes)?);
    rules.insert(libc::SYS_socket, sockets()?);
    rules.insert(
        libc::SYS_prctl,
        one_of(0, calls::PRCTL.iter().map(|option| u64::from(option.unsigned_abs())))?,
    );
    rules.insert(libc::SYS_ioctl, one_of(1, calls::IOCTLS.iter().copied())?);
    rules.insert(libc::SYS_bpf, one_of(0, calls::BPF_ON_MAPS.iter().copied())?);
    // Limits may be read, not set.
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![equals64(2, 0)?])?]);
    if executes {
        let more = calls::FOR_JOURNALCTL.iter().chain(calls::FOR_JOURNALCTL_OLD);
        rules.extend(more.map(|call| (*call, Vec::new())));
        let death = u64::from(libc::PR_SET_PDEATHSIG.unsigned_abs());
        rules.entry(libc::SYS_prctl).or_default().extend(one_of(0, [death])?);
    }
    if hooks {
        rules.insert(libc::SYS_perf_event_open, Vec::new());
        rules.entry(libc::SYS_bpf).or_default().extend(one_of(0, calls::BPF_FOR_HOOKS.iter().copied())?);
        rules.entry(libc::SYS_ioctl).or_default().extend(one_of(1, calls::PERF_IOCTLS.iter().copied())?);
    }
    Ok(rules)
}

/// Threads of this process; no namespaces, and no processes unless one is to be executed.
fn clone(executes: bool) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let no_namespace = SeccompCondition::new(0, Width::Qword, Compare::MaskedEq(calls::NEW_NAMESPACES), 0)?;
    let thread = u64::from((libc::CLONE_THREAD | libc::CLONE_VM).unsigned_abs());
    let is_thread = SeccompCondition::new(0, Width::Qword, Compare::MaskedEq(thread), thread)?;
    let conditions = if executes { vec![no_namespace] } else { vec![no_namespace, is_thread] };
    Ok(vec![SeccompRule::new(conditions)?])
}

/// Streams and datagrams of IPv4, IPv6 and Unix; three protocols of netlink. No raw and no packet sockets.
fn sockets() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mut rules = Vec::new();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        for kind in calls::SOCKET_TYPES {
            let kind = SeccompCondition::new(1, Width::Dword, Compare::MaskedEq(0xf), number(*kind))?;
            rules.push(SeccompRule::new(vec![equals(0, number(family))?, kind])?);
        }
    }
    for protocol in calls::NETLINK {
        let conditions = vec![equals(0, number(libc::AF_NETLINK))?, equals(2, number(*protocol))?];
        rules.push(SeccompRule::new(conditions)?);
    }
    Ok(rules)
}

fn number(value: i32) -> u64 {
    u64::from(value.unsigned_abs())
}

fn equals(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Width::Dword, Compare::Eq, value)
}

fn equals64(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Width::Qword, Compare::Eq, value)
}

/// The argument has one of these values.
fn one_of(
    argument: u8,
    values: impl IntoIterator<Item = u64>,
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values.into_iter().map(|value| SeccompRule::new(vec![equals(argument, value)?])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dangerous ones, none of which is allowed with any argument.
    const NEVER: &[i64] = &[
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_open_tree,
        libc::SYS_mount_setattr,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_chroot,
        libc::SYS_listen,
        libc::SYS_execveat,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setgroups,
        libc::SYS_open_by_handle_at,
        libc::SYS_mknodat,
        libc::SYS_fchownat,
        libc::SYS_clock_settime,
        libc::SYS_sethostname,
        libc::SYS_syslog,
        libc::SYS_acct,
        libc::SYS_swapon,
        libc::SYS_personality,
        libc::SYS_pidfd_getfd,
    ];

    #[test]
    fn what_is_dangerous_is_on_no_list() {
        for (executes, hooks) in [(false, false), (true, false), (false, true), (true, true)] {
            let rules = rules(executes, hooks).unwrap();
            for call in NEVER {
                assert!(!rules.contains_key(call), "{call} with executes={executes} hooks={hooks}");
            }
            assert_eq!(rules.contains_key(&libc::SYS_execve), executes);
            assert_eq!(rules.contains_key(&libc::SYS_kill), executes);
            assert_eq!(rules.contains_key(&libc::SYS_perf_event_open), hooks);
        }
    }

    #[test]
    fn what_takes_arguments_is_bound_to_them() {
        // An empty list of rules would allow everything.
        let rules = rules(false, false).unwrap();
        let bound = [
            libc::SYS_clone,
            libc::SYS_socket,
            libc::SYS_prctl,
            libc::SYS_ioctl,
            libc::SYS_bpf,
            libc::SYS_prlimit64,
        ];
        for call in bound {
            assert!(!rules[&call].is_empty(), "{call}");
        }
        assert!(!calls::BPF_ON_MAPS.iter().any(|command| calls::BPF_FOR_HOOKS.contains(command)));
    }

    #[test]
    fn it_compiles_for_every_plan_and_fits() {
        for (executes, hooks) in [(false, false), (true, true)] {
            let refusal = SeccompAction::Errno(errno(libc::EPERM));
            let program = compile(rules(executes, hooks).unwrap(), refusal, SeccompAction::Allow).unwrap();
            assert!(program.len() > 100 && program.len() < 4096, "{}", program.len());
        }
    }
}
