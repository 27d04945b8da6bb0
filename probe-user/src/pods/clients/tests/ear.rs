//! Listens to what the sources say.

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::DEADLINE;
use crate::pods::update::{CHANNEL_CAPACITY, PodSourceKind, PodUpdate, UpdateSender};

pub(super) struct Ear {
    updates: mpsc::Receiver<PodUpdate>,
    /// Everything that was heard.
    pub(super) heard: Vec<PodUpdate>,
}

impl Ear {
    pub(super) fn new() -> (UpdateSender, Self) {
        let (send, updates) = mpsc::channel(CHANNEL_CAPACITY);
        (send, Self { updates, heard: Vec::new() })
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> PodUpdate {
        let next = timeout(DEADLINE, self.updates.recv()).await;
        let update =
            next.unwrap_or_else(|_| panic!("nothing came; before: {:#?}", self.heard)).expect("ended");
        self.heard.push(update.clone());
        update
    }

    /// The next message, or `None` if all senders have gone.
    #[cfg(feature = "kube")]
    pub(super) async fn next_or_end(&mut self) -> Option<PodUpdate> {
        timeout(DEADLINE, self.updates.recv()).await.expect("neither a message nor the end")
    }

    /// Whether nothing waits to be heard.
    #[cfg(feature = "kube")]
    pub(super) fn is_silent(&mut self) -> bool {
        self.updates.try_recv().is_err()
    }

    /// Listens until a message is what is wanted.
    pub(super) async fn until<T>(&mut self, wanted: impl Fn(&PodUpdate) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.next().await) {
                return found;
            }
        }
    }

    /// The next trouble.
    #[cfg(feature = "kube")]
    pub(super) async fn trouble(&mut self) -> (PodSourceKind, String) {
        self.until(|update| match update {
            PodUpdate::Trouble { source, reason } => Some((*source, reason.clone())),
            _ => None,
        })
        .await
    }

    /// The next list of pods: its source and their names.
    pub(super) async fn pods(&mut self) -> (PodSourceKind, Vec<String>) {
        self.until(|update| match update {
            PodUpdate::All { source, pods, .. } => {
                Some((*source, pods.iter().map(|pod| pod.name.clone()).collect()))
            }
            _ => None,
        })
        .await
    }

    /// Troubles heard so far.
    pub(super) fn troubles(&self) -> Vec<String> {
        let reasons = self.heard.iter().filter_map(|update| match update {
            PodUpdate::Trouble { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        reasons.collect()
    }
}
