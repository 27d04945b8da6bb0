//! What is kept for hooks, and the kernel side without privileges.

use std::io;

use probe_user::kernel::ladder::{Hooks, Need};
use probe_user::node::netns::NetnsSpec;
use probe_user::serve::privileges::{Plan, confine, for_hooks, threads};
use probe_user::sources::live::{Live, LiveOptions};

use crate::left::nothing;
use crate::{Outcome, is_root, with};

const BPF_AND_PERFMON: u64 = 1 << 39 | 1 << 38;

/// How bpf(2) without any attribute fails for a command.
fn bpf(command: i32) -> Option<i32> {
    // SAFETY: without an attribute the kernel does nothing.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, 0, 0) };
    (result == -1).then(|| io::Error::last_os_error().raw_os_error()).flatten()
}

pub(crate) fn kept_until_released() -> Outcome {
    const PROG_LOAD: i32 = 5;
    if !is_root() {
        return Outcome::Skipped("not root".to_owned());
    }
    let mut confined = with(|plan| plan.keep_for_hooks = for_hooks(false));
    assert!(confined.keeps_for_hooks());
    let own = threads().unwrap();
    assert!(
        own.iter().all(|thread| (thread.permitted, thread.effective) == (BPF_AND_PERFMON, BPF_AND_PERFMON))
    );
    assert_ne!(bpf(PROG_LOAD), Some(libc::EPERM));
    // A thread that is to have nothing has nothing, and neither have those that it starts.
    let of_thread = || threads().unwrap().into_iter().find(|thread| thread.name == "http").unwrap();
    let start =
        move || std::thread::Builder::new().name("http".into()).spawn(move || (of_thread(), bpf(PROG_LOAD)));
    let (thread, error) = confined.sealed(start).unwrap().unwrap().join().unwrap();
    nothing(&thread);
    assert_eq!(error, Some(libc::EPERM));

    confined.release_hooks().unwrap();
    assert!(!confined.keeps_for_hooks() && confined.release_hooks().is_ok());
    assert_eq!(bpf(PROG_LOAD), Some(libc::EPERM));
    threads().unwrap().iter().for_each(nothing);
    Outcome::Passed
}

/// Maps are read and written, programs run, and what cannot be attached any more is said.
pub(crate) fn kernel_side_goes_on() -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = LiveOptions {
            netns: NetnsSpec::Path("/proc/self/ns/net".into()),
            ipvs: None,
            poll: std::time::Duration::from_millis(50),
            hooks: Hooks::Auto,
            log_level: 0,
            packets: false,
            rings: probe_user::kernel::loader::Rings::default(),
        };
        let mut live = match Live::start(&options) {
            Ok(live) => live,
            Err(error) => return Outcome::Skipped(format!("cannot trace here: {error}")),
        };
        let confined = confine(&Plan::new(), Some(live.tracer().readable_map().unwrap())).unwrap();
        live.privileges_dropped();
        let left = if confined.keeps_for_maps() { BPF_AND_PERFMON & 1 << 39 } else { 0 };
        assert!(threads().unwrap().iter().all(|thread| thread.permitted == left && thread.effective == left));
        let before = live.counters().unwrap().connects;
        let listener = std::net::TcpListener::bind("127.0.0.1:0");
        assert!(listener.is_err());
        // Whether or not somebody listens there, it is a connect.
        let _ = std::net::TcpStream::connect("127.0.0.1:9");
        assert!(live.counters().unwrap().connects > before, "connects are not counted any more");
        // The table is read again, which lets the kernel side announce changes again: a map is written.
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(1);
        live.next(Some(deadline)).await.unwrap();
        assert!(live.tracer().hooks().get(&Need::Connect).is_some_and(|hook| hook.way.is_some()));
        assert!(!live.tracer().lacks_privileges());
        println!("{} {:?}", confined.summary(), confined.notes());
        Outcome::Passed
    })
}
