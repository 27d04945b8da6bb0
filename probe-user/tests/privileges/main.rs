//! A process confines itself and tries what it must not and what it must be able to do. Privileges belong to threads, and
//! the usual harness runs tests in threads of its own: so every case is a process with one thread, this program again.

// Helpers of tests may fail as tests do.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod allowed;
mod forbidden;
mod hooks;
mod left;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use probe_user::serve::privileges::{Confined, Plan, confine};

/// Whether a case could be played here.
pub(crate) enum Outcome {
    Passed,
    /// This machine lacks something, which is said.
    Skipped(String),
}

type Case = (&'static str, fn() -> Outcome);

const CASES: &[Case] = &[
    ("nothing_is_left_on_any_thread", left::on_any_thread),
    ("nothing_is_left_without_the_right_to_empty_the_bounding_set", left::without_setpcap),
    ("a_program_that_is_executed_gains_nothing", left::for_a_program),
    ("other_threads_are_an_error", left::other_threads),
    ("forbidden_calls_fail", forbidden::calls),
    ("forbidden_files_stay_closed", forbidden::files),
    ("no_new_listener", forbidden::listener),
    ("ports_that_are_not_planned_cannot_be_connected_to", forbidden::ports),
    ("the_node_can_be_read", allowed::node),
    ("files_that_set_sysctls_are_read", allowed::sysctl_files),
    ("loopback_and_names", allowed::loopback),
    ("files_of_the_recorder", allowed::recorder),
    ("a_token_is_read_again_after_it_was_replaced", allowed::token),
    ("violations_can_be_logged_instead", allowed::logged),
    ("kept_for_hooks_until_released", hooks::kept_until_released),
    ("the_kernel_side_goes_on", hooks::kernel_side_goes_on),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, name] = arguments.as_slice()
        && mode == "case"
    {
        return play(name);
    }
    let list = arguments.iter().any(|argument| argument == "--list");
    let ignored = arguments.iter().any(|argument| argument == "--ignored");
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let cases = CASES.iter().filter(|(name, _)| {
        !ignored && (wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())))
    });
    let mut failed = 0;
    for (name, _) in cases {
        if list {
            println!("{name}: test");
        } else if !passes(name) {
            failed += 1;
        }
    }
    if failed > 0 {
        println!("test result: FAILED. {failed} failed");
        return ExitCode::from(101);
    }
    ExitCode::SUCCESS
}

/// Plays one case in a process of its own.
fn passes(name: &str) -> bool {
    let itself = std::env::current_exe().unwrap();
    let output = Command::new(itself).args(["case", name]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let ok = output.status.success();
    let skipped = said.lines().find_map(|line| line.strip_prefix("skipped: "));
    match skipped {
        Some(why) if ok => println!("test {name} ... skipped: {why}"),
        _ => println!("test {name} ... {}", if ok { "ok" } else { "FAILED" }),
    }
    if !ok {
        println!("{}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    ok
}

fn play(name: &str) -> ExitCode {
    let Some((_, case)) = CASES.iter().find(|(known, _)| *known == name) else { return ExitCode::from(2) };
    if let Outcome::Skipped(why) = case() {
        println!("skipped: {why}");
    }
    ExitCode::SUCCESS
}

/// Confines this process, which may do what every sidecar may.
pub(crate) fn usual() -> Confined {
    with(|_| {})
}

/// The same with a changed plan.
pub(crate) fn with(change: impl FnOnce(&mut Plan)) -> Confined {
    let mut plan = Plan::new();
    change(&mut plan);
    confine(&plan, None).unwrap()
}

/// Whether this process has all capabilities of root.
pub(crate) fn is_root() -> bool {
    let status = probe_user::serve::privileges::threads().unwrap();
    status.iter().all(|thread| thread.effective >> 21 & 1 == 1)
}

/// Version of Landlock that the running kernel has; 0 = none.
pub(crate) fn landlock_abi() -> i64 {
    // SAFETY: without an attribute and with this flag (LANDLOCK_CREATE_RULESET_VERSION) it only tells its version.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    version.max(0)
}

/// An empty directory for this case.
pub(crate) fn directory() -> PathBuf {
    tempfile::tempdir().unwrap().keep()
}
