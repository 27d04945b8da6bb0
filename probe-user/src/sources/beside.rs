//! Work on one of the runtime's threads for what blocks, which the loop waits for without standing still. What such a
//! thread keeps of this process's privileges is decided where the runtime is built.

use tokio::sync::oneshot;

/// Work that runs, and its result.
pub(super) struct Beside<T>(oneshot::Receiver<T>);

impl<T: Send + 'static> Beside<T> {
    /// Starts the work; call inside a runtime.
    pub(super) fn start(work: impl FnOnce() -> T + Send + 'static) -> Self {
        let (sender, result) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            // Nobody may wait any more.
            let _ = sender.send(work());
        });
        Self(result)
    }

    /// The result, `None` if the work broke off. May be dropped and called again, until it returned.
    pub(super) async fn done(&mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_result_is_waited_for_or_said_to_be_missing() {
        let mut work = Beside::start(|| 7);
        assert_eq!(work.done().await, Some(7));
        let mut work = Beside::start(|| -> i32 { std::panic::resume_unwind(Box::new(())) });
        assert_eq!(work.done().await, None);
    }

    #[tokio::test]
    async fn whoever_waits_may_stop_and_come_back() {
        let (go, wait) = mpsc::channel::<()>();
        let mut work = Beside::start(move || wait.recv().is_ok());
        tokio::select! {
            biased;
            _ = work.done() => panic!("it cannot have ended"),
            () = std::future::ready(()) => {}
        }
        go.send(()).unwrap();
        assert_eq!(work.done().await, Some(true));
    }
}
