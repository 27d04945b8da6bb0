//! The state behind [`super::Diagnosis`]: connections, facts, deadlines, bounds.

use std::collections::{BTreeMap, BTreeSet};

use super::advisor::Advisor;
use super::build;
use super::connection::{Identity, Report, Tracked};
use super::exhaustion::{Exhaustion, Key};
use super::facts::{EADDRNOTAVAIL, Held, without_port};
use super::incident::{Incident, Outcome, Verdict};
use super::index::{Id, Index};
use super::join;
use super::judge::{Case, Judgement};
use super::lines::{Line, Lines};
use super::tables::Tables;
use super::{Settings, Update};
use crate::observation::{Fact, Nanos, Observation, Tuple};

mod bounds;
mod logged;

/// See [`super::Diagnosis`].
#[derive(Debug, Default)]
pub(super) struct State {
    settings: Settings,
    pub(super) advisor: Advisor,
    connections: BTreeMap<Id, Tracked>,
    identities: BTreeMap<Identity, Id>,
    connection_index: Index,
    /// (deadline, connection), for all of them.
    deadlines: BTreeSet<(Nanos, Id)>,
    /// (start, connection), for all of them.
    starts: BTreeSet<(Nanos, Id)>,
    facts: BTreeMap<Id, Held>,
    fact_index: Index,
    /// (time, fact), for the facts without a connection.
    parked: BTreeSet<(Nanos, Id)>,
    /// Concluded connections, so that what still comes about them is not mistaken for something new.
    done: BTreeMap<Id, Tracked>,
    done_identities: BTreeMap<Identity, Id>,
    done_index: Index,
    tables: Tables,
    pub(super) lines: Lines,
    exhaustion: Exhaustion,
    pub(super) counts: BTreeMap<Verdict, u64>,
    pub(super) unjoined: BTreeMap<&'static str, u64>,
    pub(super) forgotten: u64,
    next_id: Id,
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub(super) const fn settings(&self) -> Settings {
        self.settings
    }

    pub(super) fn observe(&mut self, observation: Observation) -> Vec<Update> {
        let held = Held::new(observation);
        let at = held.at();
        match &held.observation.fact {
            Fact::Services { netns, table } => {
                self.tables.insert(at, *netns, table.clone());
                Vec::new()
            }
            Fact::ProbeFailed { failure, targets } => {
                self.take_line((at, held.observation.source.clone()), failure, targets);
                Vec::new()
            }
            Fact::ConnectBegan { .. } => self.begin(&held),
            Fact::ConnectFailed { errno: EADDRNOTAVAIL, local, .. } => {
                if without_port(*local) {
                    self.exhausted(&held)
                } else {
                    // A bound socket: exactly this connection exists already. No shortage of ports.
                    count(&mut self.counts, Verdict::None);
                    Vec::new()
                }
            }
            _ => self.hold(held),
        }
    }

    /// Concludes what is due by `now`, or everything.
    pub(super) fn advance(&mut self, now: Option<Nanos>) -> Vec<Update> {
        let due = self.due(now);
        let mut updates: Vec<Update> =
            due.into_iter().filter_map(|id| self.tell_or_conclude(id, now)).collect();
        let expired = |at: Nanos| now.is_none_or(|now| at.saturating_add(self.settings.park_ns) <= now);
        let given_up: Vec<Id> =
            self.parked.iter().take_while(|(at, _)| expired(*at)).map(|(_, id)| *id).collect();
        for id in given_up {
            self.give_up(id);
        }
        self.expire_lines(now);
        if let Some(now) = now {
            self.expire_done(now);
            let needed = now.saturating_sub(self.settings.park_ns);
            let oldest = self.starts.first().map_or(needed, |(start, _)| (*start).min(needed));
            self.tables.forget_before(oldest);
        } else {
            self.tables.forget_before(Nanos::MAX);
        }
        for key in self.exhaustion.due(now, &self.settings) {
            updates.extend(self.conclude_exhaustion(&key));
        }
        updates
    }

    /// Connections watched so far.
    pub(super) fn watched(&self) -> u64 {
        self.counts.values().sum::<u64>().saturating_add(self.open())
    }

    pub(super) fn open(&self) -> u64 {
        u64::try_from(self.connections.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        let parked = self.parked.first().map(|(at, _)| at.saturating_add(self.settings.park_ns));
        let connection = self.deadlines.first().map(|(at, _)| *at);
        let exhaustion = self.exhaustion.next_deadline(&self.settings);
        let lines = self.lines.next_deadline();
        [parked, connection, exhaustion, lines, self.table_deadline()].into_iter().flatten().min()
    }

    /// When a table that was replaced is not needed any more: they are large, and nothing else may happen for long. `None`
    /// while a connection began before the one that followed it; its conclusion is a deadline itself.
    fn table_deadline(&self) -> Option<Nanos> {
        let replaced = self.tables.next_to_forget()?;
        let needed = self.starts.first().is_some_and(|(start, _)| *start < replaced);
        (!needed).then(|| replaced.saturating_add(self.settings.park_ns))
    }

    pub(super) fn open_connections(&self) -> Vec<(Tuple, Option<u32>)> {
        let open = self.starts.iter().filter_map(|(_, id)| {
            let connection = self.connections.get(id)?;
            let case = self.case(connection);
            let unproven = case.hijacks().is_empty() && case.judge().outcome != Outcome::NoBackend;
            if unproven { connection.tuple().map(|tuple| (tuple, connection.netns())) } else { None }
        });
        open.collect()
    }

    /// Connections whose time is up, the earliest connect first.
    fn due(&self, now: Option<Nanos>) -> Vec<Id> {
        let due = self.deadlines.iter().take_while(|(at, _)| now.is_none_or(|now| *at <= now));
        let mut due: Vec<_> =
            due.filter_map(|(_, id)| Some((self.connections.get(id)?.order(), *id))).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    fn begin(&mut self, held: &Held) -> Vec<Update> {
        let Some(report) = Report::new(&held.observation) else { return Vec::new() };
        let identity = report.identity();
        if self.done_identities.contains_key(&identity) {
            return Vec::new();
        }
        let known = self.identities.get(&identity).copied();
        let id = if let Some(id) = known {
            self.merge(id, report);
            id
        } else {
            let id = self.number();
            let connection = Tracked::new(report, held.keys);
            self.identities.insert(identity, id);
            self.connection_index.insert(connection.keys(), id);
            self.starts.insert((connection.start(), id));
            self.deadlines.insert((connection.deadline, id));
            self.connections.insert(id, connection);
            id
        };
        let mut changed = self.rejoin(id);
        changed.insert(id);
        let mut updates = Vec::new();
        if known.is_none() {
            updates.extend(self.began(id));
        }
        for id in changed {
            self.refresh(id);
        }
        updates.extend(self.thin_out(id));
        updates.extend(self.enforce_bounds());
        updates
    }

    fn merge(&mut self, id: Id, report: Report) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.connection_index.remove(connection.keys(), id);
        self.starts.remove(&(connection.start(), id));
        connection.merge(report);
        self.connection_index.insert(connection.keys(), id);
        self.starts.insert((connection.start(), id));
    }

    /// Decides anew for every fact that this connection may be about. Returns the connections that lost or won one.
    fn rejoin(&mut self, id: Id) -> BTreeSet<Id> {
        let Some(connection) = self.connections.get(&id) else { return BTreeSet::new() };
        let mut facts = self.fact_index.for_connection(connection.keys());
        facts.extend(&connection.facts);
        let mut changed = BTreeSet::new();
        for fact in facts {
            changed.extend(self.join(fact));
        }
        changed
    }

    fn hold(&mut self, mut held: Held) -> Vec<Update> {
        let id = self.number();
        held.late = self.fits_a_concluded(&held);
        self.fact_index.insert_fact(&held.keys, id);
        self.parked.insert((held.at(), id));
        self.facts.insert(id, held);
        for connection in self.join(id) {
            self.refresh(connection);
        }
        self.enforce_bounds()
    }

    /// Whether the fact may be about a connection that was concluded already. It waits all the same: its own connect, with
    /// the same addresses, may come after it.
    fn fits_a_concluded(&self, fact: &Held) -> bool {
        let concluded = self.done_index.for_fact(&fact.keys);
        let concluded = concluded.into_iter().filter_map(|id| Some((id, self.done.get(&id)?)));
        join::choose(fact, concluded).is_some()
    }

    /// Finds the fact's connection as things stand now. Returns the connections that changed by it.
    fn join(&mut self, fact_id: Id) -> Vec<Id> {
        let Some(fact) = self.facts.get(&fact_id) else { return Vec::new() };
        let (before, at) = (fact.owner, fact.at());
        let candidates = self.connection_index.for_fact(&fact.keys);
        let candidates = candidates.into_iter().filter_map(|id| Some((id, self.connections.get(&id)?)));
        let now = join::choose(fact, candidates);
        if now == before {
            return Vec::new();
        }
        match before.and_then(|id| self.connections.get_mut(&id)) {
            Some(connection) => {
                connection.facts.remove(&fact_id);
            }
            None => {
                self.parked.remove(&(at, fact_id));
            }
        }
        if let Some(fact) = self.facts.get_mut(&fact_id) {
            fact.owner = now;
        }
        match now.and_then(|id| self.connections.get_mut(&id)) {
            Some(connection) => {
                connection.facts.insert(fact_id);
            }
            None => {
                self.parked.insert((at, fact_id));
            }
        }
        before.into_iter().chain(now).collect()
    }

    fn case<'a>(&'a self, connection: &'a Tracked) -> Case<'a> {
        let facts = connection.facts.iter().filter_map(|id| self.facts.get(id)).map(|held| &held.observation);
        Case::new(connection, facts, &self.tables, self.settings.grace_ns)
    }

    fn incident(&self, case: &Case<'_>, judged: Judgement, line: Option<&Line>) -> Box<Incident> {
        let judged = if line.is_some() { judged.given_up() } else { judged };
        Box::new(build::incident(case, judged, &self.advisor, &self.tables, line))
    }

    fn began(&self, id: Id) -> Option<Update> {
        if self.settings.conclusions_only {
            return None;
        }
        let case = self.case(self.connections.get(&id)?);
        let judged = case.judge();
        (judged.verdict != Verdict::None).then(|| Update::Began(self.incident(&case, judged, None)))
    }

    /// After a change: sets the deadline anew.
    fn refresh(&mut self, id: Id) {
        self.trim(id);
        let Some(connection) = self.connections.get(&id) else { return };
        let case = self.case(connection);
        let settings = self.settings;
        let (ended, established) = (case.ended_at, case.established());
        let deadline = match (ended, case.judge().clear_at) {
            _ if connection.told => self.conclude_at(&case),
            // Told as soon as it would be without the log.
            (Some(ended), _) => ended.saturating_add(settings.grace_ns),
            (None, Some(clear)) => match case.last_reset() {
                None if case.judge().outcome == Outcome::Hijacked => clear.saturating_add(settings.reset_ns),
                reset => clear.max(reset.unwrap_or(clear)).saturating_add(settings.tell_ns),
            },
            (None, None) => self.conclude_at(&case),
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.deadlines.remove(&(connection.deadline, id));
        self.deadlines.insert((deadline, id));
        connection.deadline = deadline;
        (connection.ended, connection.established) = (ended, established);
    }

    /// When a connection is concluded if nothing else happens.
    fn conclude_at(&self, case: &Case<'_>) -> Nanos {
        let Settings { grace_ns, settle_ns, log_wait_ns, give_up_ns, .. } = self.settings;
        match (case.ended_at, case.judge().clear_at) {
            (Some(ended), _) => ended.saturating_add(grace_ns).saturating_add(log_wait_ns),
            (None, Some(clear)) => clear.saturating_add(settle_ns).saturating_add(log_wait_ns),
            (None, None) => case.connection.start().saturating_add(give_up_ns),
        }
    }

    /// What is due of a connection: to tell, once, that its verdict is clear although it is open or its log line may
    /// come; else its conclusion.
    fn tell_or_conclude(&mut self, id: Id, now: Option<Nanos>) -> Option<Update> {
        let connection = self.connections.get(&id)?;
        let case = self.case(connection);
        let judged = case.judge();
        let told = connection.told || (case.ended_at.is_some() && self.settings.log_wait_ns == 0);
        if told || now.is_none_or(|now| now >= self.conclude_at(&case)) {
            return self.conclude(id);
        }
        let line = self.lines_of(id).joined.and_then(|line| self.lines.get(line));
        let wanted = !self.settings.conclusions_only;
        let update = wanted.then(|| Update::Clear(self.incident(&case, judged, line)));
        self.connections.get_mut(&id)?.told = true;
        self.refresh(id);
        update
    }

    fn conclude(&mut self, id: Id) -> Option<Update> {
        let connection = self.connections.get(&id)?;
        let case = self.case(connection);
        let judged = case.judge();
        let lines = self.lines_of(id);
        let line = lines.joined.and_then(|line| self.lines.get(line));
        let incident = self.incident(&case, judged, line);
        count(&mut self.counts, judged.verdict);
        self.settle_lines(id, &lines);
        self.retire(id);
        Some(Update::Concluded(incident))
    }

    fn exhausted(&mut self, held: &Held) -> Vec<Update> {
        let Fact::ConnectFailed { remote, netns, owner, .. } = &held.observation.fact else {
            return Vec::new();
        };
        let pid = owner.as_ref().and_then(|owner| owner.pid);
        let key = Key { pid, remote: *remote, netns: *netns };
        let source = held.observation.source.clone();
        let mut updates = Vec::new();
        if self.exhaustion.add(key, held.at(), source, owner.clone()) {
            updates
                .extend(self.exhaustion.incident(&key, self.advisor.node()).map(Box::new).map(Update::Clear));
        }
        while let Some(key) = self.exhaustion.surplus() {
            self.forgotten = self.forgotten.saturating_add(1);
            updates.extend(self.conclude_exhaustion(&key));
        }
        updates
    }

    fn conclude_exhaustion(&mut self, key: &Key) -> Option<Update> {
        let incident = self.exhaustion.incident(key, self.advisor.node());
        self.exhaustion.remove(key);
        count(&mut self.counts, Verdict::Exhaustion);
        incident.map(|incident| Update::Concluded(Box::new(incident)))
    }

    fn number(&mut self) -> Id {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Connections, joined and parked facts, and exhausted processes held at this moment.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 4] {
        [self.connections.len(), self.facts.len(), self.parked.len(), self.exhaustion.len()]
    }

    #[cfg(test)]
    pub(super) fn indexes_are_empty(&self) -> bool {
        self.connection_index.is_empty()
            && self.fact_index.is_empty()
            && self.identities.is_empty()
            && self.lines.is_empty()
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}
