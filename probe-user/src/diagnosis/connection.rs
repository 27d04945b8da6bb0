//! One connect that is being watched.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::index::{Id, Keys};
use crate::ipvs::table::Service;
use crate::observation::{Fact, Nanos, Observation, Owner, Tuple};

/// Reports of one and the same connect that are kept; more sources than that do not exist.
const MAX_REPORTS: usize = 8;
/// Facts kept per connection. A SYN is sent at most a dozen times, each with a hijack, a reset and a row or two.
pub(super) const MAX_FACTS: usize = 128;
/// Connections with the same addresses that are watched at one time; one is open, the others ended moments ago.
pub(super) const MAX_SAME_TUPLE: usize = 16;

/// What makes two reports the same connect: addresses and ISN, or the time where the ISN is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    tuple: Tuple,
    isn: Option<u32>,
    at: Option<Nanos>,
}

/// One report of the connect.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) at: Nanos,
    pub(super) source: Arc<str>,
    tuple: Tuple,
    netns: Option<u32>,
    isn: Option<u32>,
    socket: Option<u64>,
    owner: Option<Arc<Owner>>,
    pub(super) service: Option<Arc<Service>>,
}

impl Report {
    /// `None` if the observation is no `ConnectBegan`.
    pub(super) fn new(observation: &Observation) -> Option<Self> {
        let Fact::ConnectBegan { tuple, netns, isn, socket, owner, service } = &observation.fact else {
            return None;
        };
        Some(Self {
            at: observation.at,
            source: Arc::clone(&observation.source),
            tuple: *tuple,
            netns: *netns,
            isn: *isn,
            socket: *socket,
            owner: owner.clone(),
            service: service.clone(),
        })
    }

    /// Whether it is a row of a list rather than a SYN that was seen.
    pub(super) fn is_listed(&self) -> bool {
        self.isn.is_none() && self.socket.is_none() && self.netns.is_none()
    }

    pub(super) fn identity(&self) -> Identity {
        let at = if self.isn.is_none() { Some(self.at) } else { None };
        Identity { tuple: self.tuple, isn: self.isn, at }
    }

    fn order(&self) -> impl Ord + '_ {
        let owner = self.owner.as_deref();
        (
            self.at,
            &self.source,
            self.netns,
            self.socket,
            owner.map(|owner| (owner.pid, &owner.comm, &owner.exe, &owner.cmdline, &owner.cgroup)),
            owner.map(|owner| &owner.container_id),
            self.service.as_ref().map(|service| (service.id, service.backends.len())),
        )
    }
}

/// A watched connect: the reports of it, and the facts that were joined to it.
#[derive(Debug)]
pub(super) struct Tracked {
    /// Never empty; sorted.
    reports: Vec<Report>,
    keys: Keys,
    /// Numbers of its facts.
    pub(super) facts: BTreeSet<Id>,
    /// When it ended, as far as is known now.
    pub(super) ended: Option<Nanos>,
    /// It completed its handshake, as far as is known now.
    pub(super) established: bool,
    /// A line of the kubelet's log was joined to it.
    pub(super) logged: bool,
    /// A clear verdict was told.
    pub(super) told: bool,
    /// When it is concluded if nothing else happens.
    pub(super) deadline: Nanos,
}

impl Tracked {
    pub(super) fn new(report: Report, keys: Keys) -> Self {
        let deadline = report.at;
        Self {
            reports: vec![report],
            keys,
            facts: BTreeSet::new(),
            ended: None,
            established: false,
            logged: false,
            told: false,
            deadline,
        }
    }

    /// Adds what another source says about the same connect.
    pub(super) fn merge(&mut self, report: Report) {
        let place = self.reports.partition_point(|known| known.order() < report.order());
        self.reports.insert(place, report);
        self.reports.truncate(MAX_REPORTS);
        self.keys.socket = self.first(|report| report.socket);
    }

    fn first<T>(&self, field: impl Fn(&Report) -> Option<T>) -> Option<T> {
        self.reports.iter().find_map(field)
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Time of the first SYN.
    pub(super) fn start(&self) -> Nanos {
        self.reports.first().map_or(0, |report| report.at)
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.reports.first().map(Report::identity)
    }

    /// Sorts connections by when they began, then by what they are.
    pub(super) fn order(&self) -> (Nanos, Option<Identity>) {
        (self.start(), self.identity())
    }

    pub(super) fn tuple(&self) -> Option<Tuple> {
        self.keys.tuple
    }

    pub(super) fn netns(&self) -> Option<u32> {
        self.first(|report| report.netns)
    }

    pub(super) fn isn(&self) -> Option<u32> {
        self.first(|report| report.isn)
    }

    pub(super) fn owner(&self) -> Option<Arc<Owner>> {
        self.first(|report| report.owner.clone())
    }
}
