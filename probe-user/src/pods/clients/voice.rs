//! What the sources say, and that they say each trouble once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Duration, Instant};

use crate::pods::update::{PodSourceKind, PodUpdate, UpdateSender};

/// What a source in trouble said is taken back this long after it, if another source answers.
const STALE: Duration = Duration::from_mins(1);

/// The receiver has gone: the source ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Pods of this node.
    Pods,
    /// Services of the cluster.
    Services,
}

/// Sends messages and remembers what is in force. Clones share that memory.
#[derive(Clone)]
pub(super) struct Voice {
    updates: UpdateSender,
    /// Whether a source that is not there counts as one in trouble.
    name_absent: bool,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    /// Troubles that are not over.
    troubles: BTreeMap<(PodSourceKind, Topic), String>,
    /// Sources that are not there, and why that is thought.
    absent: BTreeMap<PodSourceKind, String>,
    /// Whether it was said that there is no source at all.
    nobody: bool,
    /// Sources whose list of pods is in force, and when it came.
    lists: BTreeMap<PodSourceKind, Instant>,
}

impl Memory {
    fn troubles_of(&self, source: PodSourceKind) -> Vec<String> {
        let of = self.troubles.iter().filter(|((of, _), _)| *of == source);
        of.map(|(_, reason)| reason.clone()).collect()
    }
}

impl Voice {
    pub(super) fn new(updates: UpdateSender, name_absent: bool) -> Self {
        Self { updates, name_absent, memory: Arc::default() }
    }

    /// A source did not answer. `none`: there is no sign of it, which is no trouble unless it once answered or somebody
    /// wants to know.
    pub(super) async fn no_answer(
        &self,
        source: PodSourceKind,
        topic: Topic,
        reason: String,
        none: bool,
    ) -> Result<(), Closed> {
        if !none || self.name_absent || self.remember(|memory| memory.lists.contains_key(&source)) {
            return self.trouble(source, topic, reason).await;
        }
        let before = self.remember(|memory| memory.absent.insert(source, reason.clone()));
        if before.as_ref() == Some(&reason) {
            return if self.updates.is_closed() { Err(Closed) } else { Ok(()) };
        }
        tracing::debug!("{reason}");
        self.send(PodUpdate::Absent { source, reason }).await
    }

    /// No source answered. If that is because none is there, it is said, once.
    pub(super) fn nobody_there(&self) {
        let first = self.remember(|memory| {
            let nobody = memory.troubles.is_empty() && memory.lists.is_empty() && !memory.absent.is_empty();
            nobody && !std::mem::replace(&mut memory.nobody, true)
        });
        if first {
            let api = if cfg!(feature = "kube") { ", API server" } else { "" };
            tracing::info!(
                "no kubelet{api} or container runtime on this machine, so nothing names its pods; --pods file:PATH \
                 reads a list"
            );
        }
    }

    /// Says a trouble, unless it was said already: for this topic last, or for the other one and is not over.
    pub(super) async fn trouble(
        &self,
        source: PodSourceKind,
        topic: Topic,
        reason: String,
    ) -> Result<(), Closed> {
        let known = self.remember(|memory| {
            let known = memory.troubles_of(source).contains(&reason);
            memory.troubles.insert((source, topic), reason.clone());
            memory.absent.remove(&source);
            known
        });
        if known {
            return if self.updates.is_closed() { Err(Closed) } else { Ok(()) };
        }
        tracing::warn!("{reason}");
        self.send(PodUpdate::Trouble { source, reason }).await
    }

    /// Says all that a source knows about a topic. That ends its trouble.
    pub(super) async fn list(
        &self,
        source: PodSourceKind,
        topic: Topic,
        list: PodUpdate,
    ) -> Result<(), Closed> {
        let over = self.remember(|memory| {
            if topic == Topic::Pods {
                memory.lists.insert(source, Instant::now());
            }
            memory.absent.remove(&source);
            memory.troubles.remove(&(source, topic))
        });
        if over.is_some() {
            tracing::info!("{source} answers again");
        }
        self.list_and_troubles(source, list).await
    }

    /// Takes back what other sources said about pods and nothing keeps up to date any more, now that `by` answers.
    /// What a source in trouble said is left alone for a minute: it may know probes that `by` does not.
    pub(super) async fn supersede(&self, by: PodSourceKind) -> Result<(), Closed> {
        let over: Vec<PodSourceKind> = self.remember(|memory| {
            let (lists, troubles) = (&memory.lists, &memory.troubles);
            let is_over = |source: PodSourceKind, at: Instant| {
                source != by && (!troubles.contains_key(&(source, Topic::Pods)) || at.elapsed() > STALE)
            };
            let over: Vec<_> =
                lists.iter().filter(|(source, at)| is_over(**source, **at)).map(|(s, _)| *s).collect();
            memory.lists.retain(|source, _| !over.contains(source));
            over
        });
        for source in over {
            let nothing = PodUpdate::All { source, pods: Vec::new(), unreadable: Vec::new() };
            self.list_and_troubles(source, nothing).await?;
        }
        Ok(())
    }

    /// For the receiver a list ends every trouble of its source, also those that are not over.
    async fn list_and_troubles(&self, source: PodSourceKind, list: PodUpdate) -> Result<(), Closed> {
        self.send(list).await?;
        for reason in self.remember(|memory| memory.troubles_of(source)) {
            self.send(PodUpdate::Trouble { source, reason }).await?;
        }
        Ok(())
    }

    /// Says one thing.
    pub(super) async fn send(&self, update: PodUpdate) -> Result<(), Closed> {
        self.updates.send(update).await.map_err(|_| Closed)
    }

    fn remember<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
