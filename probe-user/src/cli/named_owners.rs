//! Names the pods of those who connect, for `portclash ports`: sources work on a thread of their own, and what they have
//! said by then is taken when a report is due. Nobody waits for them.

use std::thread;

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use super::pod_sources::PodSourceArgs;
use crate::node::netns::NetNs;
use crate::pods::choice::PodChoice;
use crate::pods::session::Session;
use crate::ports::model::{Report, Sort};
use crate::ports::naming::{is_unnamed, name, trouble};
use crate::ports::watch::Watch;
use crate::sources::clock::Clock;

/// Sources at work.
pub(super) struct NamedOwners {
    session: Session,
    clock: Clock,
    choice: PodChoice,
    /// Owners that run in pods without a known name.
    unnamed: usize,
    /// The thread of the sources ends when this is dropped.
    _end: oneshot::Sender<()>,
}

impl NamedOwners {
    /// Starts the sources. `netns`: the node's network namespace.
    pub(super) fn start(args: &PodSourceArgs, netns: &NetNs) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("start the runtime")?;
        let clock = Clock::sample();
        let session = {
            let _guard = runtime.enter();
            args.start(netns, clock.now(), false)?
        };
        let (end, ended) = oneshot::channel();
        let work = move || {
            // An error is the drop of the other end.
            let _ = runtime.block_on(ended);
        };
        thread::Builder::new()
            .name("portclash-pods".into())
            .spawn(work)
            .context("start a thread for the pods")?;
        Ok(Self { session, clock, choice: args.pods.clone(), unnamed: 0, _end: end })
    }

    /// What to know about what was read, one sentence each.
    pub(super) fn notes(&self) -> Vec<String> {
        self.session.notes().iter().map(|note| format!("portclash: {}: {note}", self.choice)).collect()
    }

    /// Takes what the sources have said, and names whom it names.
    pub(super) fn name(&mut self, watch: &mut Watch) {
        let now = self.clock.now();
        self.session.take_waiting(now);
        let index = self.session.names().pods();
        let mut unnamed = 0;
        for owner in watch.owners_mut() {
            name(owner, index, now);
            unnamed += usize::from(is_unnamed(owner));
        }
        // Once for each that comes: one that no source ever names is no reason to ask every second.
        if unnamed > self.unnamed {
            self.session.refresh();
        }
        self.unnamed = unnamed;
    }

    /// What is known now, with names.
    pub(super) fn report(&mut self, watch: &mut Watch, whole: bool, by: Sort) -> Report {
        self.name(watch);
        let mut report = watch.report(whole, by);
        if self.unnamed > 0 {
            report.unnamed_pods = trouble(self.session.names().pods());
        }
        report
    }
}
