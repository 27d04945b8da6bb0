//! Sources at work for one command: starts them, takes what they say, names incidents.

use std::net::IpAddr;
use std::path::Path;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::choice::PodChoice;
use super::clients::{ClientOptions, Clients, PodsFrom, follow};
use super::file::{self, FileError};
use super::index::ThisNode;
use super::kubelet::KUBELET_PORT;
use super::naming::Names;
use super::update::{CHANNEL_CAPACITY, PodUpdate, UpdateSender};
use crate::diagnosis::incident::Incident;
use crate::node::addresses::{self, InterfaceKind};
use crate::node::netns::NetNs;
use crate::node::sockets::{TcpState, diag};
use crate::observation::{Fact, Nanos, Observation};

/// Names for one run of a command.
pub struct Session {
    names: Names,
    updates: mpsc::Receiver<PodUpdate>,
    hints: NodeHints,
    notes: Vec<String>,
    /// Ends the network sources when it is dropped.
    clients: Option<Clients>,
}

/// What may tell which node this is.
#[derive(Clone, Debug, Default)]
pub struct NodeHints {
    /// Name that the user gave.
    pub given: Option<String>,
    /// Names that it may have, the better first; one that no pod is on is not believed.
    pub guesses: Vec<String>,
    /// Addresses of the node's namespace.
    pub addresses: Vec<IpAddr>,
}

impl NodeHints {
    /// All names that it may have, the best first.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.given.iter().chain(&self.guesses).cloned()
    }

    /// The name to ask the API server for.
    pub fn best_name(&self) -> Option<String> {
        self.names().next()
    }

    /// Reads the environment (`NODE_NAME`), the host's name and the addresses of a network namespace.
    pub fn read(given: Option<String>, netns: &NetNs) -> Self {
        let host =
            std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
        let guesses = std::env::var("NODE_NAME").ok().into_iter().chain(host).collect();
        let local = addresses::read_of(netns).unwrap_or_default();
        let kinds = [InterfaceKind::Other, InterfaceKind::NodeLocalDns];
        let addresses = kinds.into_iter().flat_map(|kind| local.on(kind)).collect();
        Self { given, guesses, addresses }
    }
}

impl Session {
    /// Starts what was chosen; within a tokio runtime. A file is read at once.
    pub fn start(
        choice: &PodChoice,
        hints: NodeHints,
        clients: &ClientOptions,
        now: Nanos,
    ) -> Result<Self, FileError> {
        let (sender, updates) = mpsc::channel(CHANNEL_CAPACITY);
        let mut session = Self { names: Names::new(), updates, hints, notes: Vec::new(), clients: None };
        let (pods, services) = match choice {
            PodChoice::File(path) => {
                session.start_file(path, sender, now)?;
                session.find_node();
                return Ok(session);
            }
            PodChoice::None => return Ok(session),
            PodChoice::Auto => (PodsFrom::Auto, cfg!(feature = "kube")),
            PodChoice::Kubelet => (PodsFrom::Kubelet, false),
            PodChoice::Api => (PodsFrom::Api, cfg!(feature = "kube")),
            PodChoice::Cri => (PodsFrom::Cri, false),
        };
        session.clients = Some(follow(Some(pods), services, clients, sender));
        session.find_node();
        Ok(session)
    }

    fn start_file(&mut self, path: &Path, sender: UpdateSender, now: Nanos) -> Result<(), FileError> {
        let content = file::read(path)?;
        self.notes = content.notes;
        for update in content.updates {
            self.names.apply(update, now);
        }
        tokio::spawn(file::follow(path.to_owned(), sender));
        Ok(())
    }

    /// What may tell which node this is.
    pub const fn hints(&self) -> &NodeHints {
        &self.hints
    }

    /// What is known.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// What to know about what was read, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The next message; waits forever if there is no source.
    pub async fn next(&mut self) -> PodUpdate {
        match self.updates.recv().await {
            Some(update) => update,
            None => std::future::pending().await,
        }
    }

    /// Takes a message.
    pub fn take(&mut self, update: PodUpdate, now: Nanos) {
        self.names.apply(update, now);
        self.find_node();
    }

    /// Takes all messages that wait.
    pub fn take_waiting(&mut self, now: Nanos) {
        while let Ok(update) = self.updates.try_recv() {
            self.take(update, now);
        }
    }

    /// Somebody met a container that no list has: sources that are polled list again soon.
    pub fn refresh(&self) {
        self.clients.iter().for_each(Clients::refresh);
    }

    /// Waits until some source named its pods, all gave up, or it is too late.
    pub async fn wait_for_pods(&mut self, deadline: Instant, clock: impl Fn() -> Nanos) {
        while !self.names.pods().sources().any_answered() {
            match timeout_at(deadline, self.updates.recv()).await {
                Ok(Some(update)) => self.take(update, clock()),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Says of lines of kubelet's log where the probes connect to, as far as that is known by now.
    pub fn add_targets(&mut self, observations: &mut [Observation], now: Nanos) {
        if observations.iter().any(|seen| matches!(seen.fact, Fact::ProbeFailed { .. })) {
            self.take_waiting(now);
        }
        for observation in observations {
            super::logged::add_targets(self.names.pods(), observation);
        }
    }

    /// Fills names into an incident. Its owner's sockets are looked at only if nothing else tells a kubelet.
    pub fn name(&mut self, incident: &mut Incident, netns: &NetNs) {
        let known = super::naming::is_known_kubelet(&incident.owner);
        let answered = self.names.pods().sources().any_answered();
        let pid = incident.owner.pid.filter(|_| !known && answered);
        self.names.name(incident, pid.and_then(|pid| listens(pid, netns)));
        let unnamed = incident.probe.is_none() && known;
        if let Some(clients) = self.clients.as_ref().filter(|_| unnamed) {
            // A pod that no list had yet may be in the next one, which then names the end of this incident.
            clients.refresh();
        }
    }

    fn find_node(&mut self) {
        let NodeHints { given, guesses, addresses } = &self.hints;
        let pods = self.names.pods();
        let named =
            |name: &&String| pods.pods().iter().any(|known| known.pod.node_name.as_ref() == Some(*name));
        let name = given
            .clone()
            .or_else(|| pods.node_name_by_address(addresses))
            .or_else(|| guesses.iter().find(named).cloned());
        let node = ThisNode { name, addresses: addresses.clone() };
        if *pods.node() != node {
            self.names.pods_mut().set_node(node);
        }
    }
}

/// Whether a process holds a socket that listens on kubelet's port; `None` if that cannot be seen.
fn listens(pid: u32, netns: &NetNs) -> Option<bool> {
    let sockets = diag::read_of(netns, diag::States::of(&[TcpState::Listen])).ok()?.sockets;
    let listeners = sockets.iter().filter(|socket| socket.local.port() == KUBELET_PORT);
    let inodes: Vec<u64> = listeners.filter_map(|socket| socket.inode).collect();
    if inodes.is_empty() {
        return Some(false);
    }
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let mut held = links
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
    Some(held.any(|inode| inodes.contains(&inode)))
}
