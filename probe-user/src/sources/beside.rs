//! Work on a thread of its own, which the loop waits for without standing still.
//!
//! A thread for each piece of work, and not one of a pool: what it inherits of this process's privileges ends with it.

use std::io;
use std::thread::{Builder, JoinHandle};

use tokio::sync::oneshot;

/// Work that runs, and its result.
pub(super) struct Beside<T> {
    result: oneshot::Receiver<T>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Beside<T> {
    /// Starts the work; fails if there can be no more threads.
    pub(super) fn start(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (sender, result) = oneshot::channel();
        // Nobody may wait any more.
        let run = move || drop(sender.send(work()));
        Ok(Self { result, thread: Builder::new().name(name.to_owned()).spawn(run)? })
    }

    /// The result, `None` if the work broke off. May be dropped and called again, until it returned.
    pub(super) async fn done(&mut self) -> Option<T> {
        (&mut self.result).await.ok()
    }

    /// The result, `None` if the work broke off. Blocks.
    pub(super) fn wait(mut self) -> Option<T> {
        self.thread.join().ok()?;
        self.result.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_result_is_waited_for_or_said_to_be_missing() {
        let mut work = Beside::start("test", || 7).unwrap();
        assert_eq!(work.done().await, Some(7));
        assert_eq!(Beside::start("test", || 8).unwrap().wait(), Some(8));
        let mut work = Beside::start("test", || -> i32 { std::panic::resume_unwind(Box::new(())) }).unwrap();
        assert_eq!(work.done().await, None);
        assert_eq!(work.wait(), None);
    }

    #[tokio::test]
    async fn whoever_waits_may_stop_and_come_back() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let mut work = Beside::start("test", move || wait.recv().is_ok()).unwrap();
        tokio::select! {
            biased;
            _ = work.done() => panic!("it cannot have ended"),
            () = std::future::ready(()) => {}
        }
        go.send(()).unwrap();
        assert_eq!(work.done().await, Some(true));
    }
}
