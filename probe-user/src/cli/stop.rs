//! Being told to stop: the first SIGINT or SIGTERM ends the work in order, a second one ends the process.

use std::io;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Listens for signals on a thread of its own, so that the second one works whatever the program is busy with: loading
/// programs, or writing to a reader that has stopped reading. The kernel then detaches everything, as it does whenever
/// the process ends.
pub(super) struct Stop {
    requested: watch::Receiver<bool>,
}

impl Stop {
    /// Takes over SIGINT and SIGTERM.
    pub(super) fn install() -> io::Result<Self> {
        Self::install_with(|| ())
    }

    /// The same; `before_exit` runs if a second signal ends the process.
    pub(super) fn install_with(before_exit: impl Fn() + Send + 'static) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Registered here and not in the thread: a signal that comes right after this is not missed.
        let (mut interrupt, mut terminate) = {
            let _guard = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let (request, requested) = watch::channel(false);
        let listen = async move {
            loop {
                let status = tokio::select! {
                    _ = interrupt.recv() => 128 + libc::SIGINT,
                    _ = terminate.recv() => 128 + libc::SIGTERM,
                };
                if request.send_replace(true) {
                    before_exit();
                    std::process::exit(status);
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(listen))?;
        Ok(Self { requested })
    }

    /// Whether the first signal has come.
    pub(super) fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Returns as soon as the first signal has come.
    pub(super) async fn requested(&mut self) {
        // An error would mean that the listening thread has gone, which it never does.
        let _ = self.requested.wait_for(|requested| *requested).await;
    }
}
