//! What is left of the privileges afterwards.

use std::process::Command;

use probe_user::serve::privileges::{Plan, PrivilegesError, ThreadStatus, confine, threads};

use crate::{Outcome, is_root, usual, with};

pub(crate) fn nothing(thread: &ThreadStatus) {
    let sets = [thread.permitted, thread.effective, thread.inheritable, thread.ambient];
    assert_eq!(sets, [0; 4], "{thread:?}");
    assert!(thread.no_new_privs && thread.filtered, "{thread:?}");
}

/// On this one, on those of the standard library and on tokio's.
pub(crate) fn on_any_thread() -> Outcome {
    let root = is_root();
    let confined = usual();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let own = std::thread::spawn(move || receive.recv().is_err());
    let seen = runtime.block_on(async { tokio::task::spawn_blocking(|| threads().unwrap()).await.unwrap() });
    assert!(seen.len() >= 3, "{seen:?}");
    for thread in &seen {
        nothing(thread);
        assert!(!root || thread.bounding == 0, "{thread:?}");
    }
    drop(send);
    assert!(own.join().unwrap());
    assert!(confined.summary().contains("no capability is left"), "{}", confined.summary());
    Outcome::Passed
}

pub(crate) fn without_setpcap() -> Outcome {
    if !is_root() {
        return Outcome::Skipped("not root".to_owned());
    }
    caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap();
    let confined = usual();
    let seen = threads().unwrap();
    seen.iter().for_each(nothing);
    assert!(seen.iter().all(|thread| thread.bounding != 0));
    assert!(confined.notes().iter().any(|note| note.contains("bounding")), "{:?}", confined.notes());
    Outcome::Passed
}

/// journalctl, or whoever takes its place, and although this is root.
pub(crate) fn for_a_program() -> Outcome {
    if is_root() {
        // So that root would get everything back.
        caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap();
    }
    with(|plan| plan.executes_journalctl = true);
    let output = Command::new("cat").arg("/proc/self/status").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    nothing(&ThreadStatus::parse(&text).unwrap_or_else(|| panic!("{output:?}")));
    Outcome::Passed
}

pub(crate) fn other_threads() -> Outcome {
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::Builder::new().name("blocking".into()).spawn(move || receive.recv().is_err());
    let error = confine(&Plan::new(), None).unwrap_err();
    assert!(matches!(&error, PrivilegesError::OtherThreads(names) if names.contains("blocking")), "{error}");
    drop(send);
    assert!(thread.unwrap().join().unwrap());
    Outcome::Passed
}
