//! Tasks that end with their handle.

use tokio::task::JoinHandle;

/// A spawned task that is aborted when this is dropped. It may be aborted at any `await`, so what it runs holds
/// nothing that needs an orderly end.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    /// Starts it on the current runtime.
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// Whether it has ended by itself.
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only a runtime that is going down cancels such work, and then nobody waits here.
        Err(_) => std::future::pending().await,
    }
}
