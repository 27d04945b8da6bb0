//! What is kept, and for how long: concluded connections, the facts of a connection, parked facts, crowds.

use super::{State, count};
use crate::diagnosis::Update;
use crate::diagnosis::connection::{MAX_FACTS, MAX_SAME_TUPLE, Tracked};
use crate::diagnosis::facts::Held;
use crate::diagnosis::index::Id;
use crate::observation::Nanos;

/// Concluded connections remembered, and for how long after they were due: a server repeats its SYN-ACK for a minute.
const MAX_DONE: usize = 2048;
const DONE_NS: Nanos = 120_000_000_000;

impl State {
    /// Keeps the earliest facts of a connection that has too many.
    pub(super) fn trim(&mut self, id: Id) {
        while let Some(connection) = self.connections.get(&id).filter(|c| c.facts.len() > MAX_FACTS) {
            let key =
                |fact: &Id| self.facts.get(fact).map(|held| (held.at(), held.observation.source.clone()));
            let Some(last) = connection.facts.iter().copied().max_by_key(|fact| (key(fact), *fact)) else {
                return;
            };
            self.give_up(last);
        }
    }

    pub(super) fn retire(&mut self, id: Id) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        self.connection_index.remove(connection.keys(), id);
        self.deadlines.remove(&(connection.deadline, id));
        self.starts.remove(&(connection.start(), id));
        for fact in std::mem::take(&mut connection.facts) {
            self.forget_fact(fact);
        }
        if let Some(identity) = connection.identity() {
            self.identities.remove(&identity);
            self.done_identities.insert(identity, id);
        }
        self.done_index.insert(connection.keys(), id);
        self.done.insert(id, connection);
        while self.done.len() > self.settings.max_connections.min(MAX_DONE) {
            self.forget_done();
        }
    }

    /// Forgets concluded connections that nothing is to be expected about any more.
    pub(super) fn expire_done(&mut self, now: Nanos) {
        let expired = |done: &Tracked| done.deadline.saturating_add(DONE_NS) <= now;
        while self.done.first_key_value().is_some_and(|(_, oldest)| expired(oldest)) {
            self.forget_done();
        }
    }

    fn forget_done(&mut self) {
        let Some((id, oldest)) = self.done.pop_first() else { return };
        self.done_index.remove(oldest.keys(), id);
        if let Some(identity) = oldest.identity() {
            self.done_identities.remove(&identity);
        }
    }

    /// Concludes the earliest of too many connections with the addresses of `id`. Only one of them can be open; a
    /// burst of connects from one port would otherwise be compared each with each.
    pub(super) fn thin_out(&mut self, id: Id) -> Option<Update> {
        let tuple = self.connections.get(&id)?.tuple()?;
        let crowd: Vec<Id> = self.connection_index.with_tuple(tuple).collect();
        if crowd.len() <= MAX_SAME_TUPLE {
            return None;
        }
        let order = |id: &Id| self.connections.get(id).map(Tracked::order);
        let earliest = crowd.into_iter().min_by_key(order)?;
        self.forgotten = self.forgotten.saturating_add(1);
        self.conclude(earliest)
    }

    pub(super) fn enforce_bounds(&mut self) -> Vec<Update> {
        let mut updates = Vec::new();
        while self.connections.len() > self.settings.max_connections {
            let Some((_, id)) = self.starts.first().copied() else { break };
            self.forgotten = self.forgotten.saturating_add(1);
            updates.extend(self.conclude(id));
        }
        while self.parked.len() > self.settings.max_parked {
            let Some((_, id)) = self.parked.first().copied() else { break };
            self.give_up(id);
        }
        updates
    }

    /// Counts a fact that will never find its connection. One about a concluded connection is late, not unexplained.
    pub(super) fn give_up(&mut self, id: Id) {
        let unexplained = self.facts.get(&id).filter(|fact| fact.owner.is_some() || !fact.late);
        if let Some(kind) = unexplained.and_then(Held::kind) {
            count(&mut self.unjoined, kind);
        }
        self.forget_fact(id);
    }

    pub(super) fn forget_fact(&mut self, id: Id) {
        let Some(fact) = self.facts.remove(&id) else { return };
        self.fact_index.remove_fact(&fact.keys, id);
        self.parked.remove(&(fact.at(), id));
        if let Some(connection) = fact.owner.and_then(|owner| self.connections.get_mut(&owner)) {
            connection.facts.remove(&id);
        }
    }
}
