//! Log lines, as far as they need the connections.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{State, count};
use crate::diagnosis::connection::Tracked;
use crate::diagnosis::index::Id;
use crate::diagnosis::lines::{Choice, Line};
use crate::kubelet_log::ProbeFailure;
use crate::observation::Nanos;

impl State {
    /// Holds a line (time and source) until its connection is concluded.
    pub(super) fn take_line(
        &mut self,
        line: (Nanos, Arc<str>),
        failure: &Arc<ProbeFailure>,
        targets: &[SocketAddr],
    ) {
        let patience = self.settings.park_ns.saturating_add(self.settings.log_wait_ns);
        let due = line.0.saturating_add(patience);
        let id = self.number();
        self.lines.insert(id, line, failure, targets, due);
    }

    /// A connection is concluded: its line is used up, and those that may be about it or another are given up.
    pub(super) fn settle_lines(&mut self, id: Id, own: Option<Id>, ambiguous: Vec<Id>) {
        let logged = own.and_then(|line| self.lines.remove(line)).is_some();
        for line in ambiguous {
            self.lines.ambiguous += u64::from(self.lines.remove(line).is_some());
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.logged = logged;
        }
    }

    /// Connections with this server.
    fn with_remote(&self, remote: SocketAddr) -> impl Iterator<Item = (Id, &Tracked)> {
        self.connection_index.with_remote(remote).filter_map(|id| Some((id, self.connections.get(&id)?)))
    }

    fn choose(&self, line: &Line) -> Choice {
        line.choose(line.targets().flat_map(|target| self.with_remote(target)))
    }

    /// The log line about this connection, and lines that may as well be about another.
    pub(super) fn lines_of(&self, id: Id) -> (Option<Id>, Vec<Id>) {
        let Some(connection) = self.connections.get(&id) else { return (None, Vec::new()) };
        let (mut own, mut ambiguous) = (Vec::new(), Vec::new());
        for line_id in self.lines.near(connection) {
            match self.lines.get(line_id).map(|line| self.choose(line)) {
                Some(Choice::One(chosen)) if chosen == id => own.push(line_id),
                Some(Choice::Several) => ambiguous.push(line_id),
                Some(Choice::One(_) | Choice::Nothing) | None => {}
            }
        }
        (self.lines.nearest(&own, connection), ambiguous)
    }

    /// Gives up the lines whose time is up and that no connection waits for.
    pub(super) fn expire_lines(&mut self, now: Option<Nanos>) {
        for id in self.lines.expired(now) {
            let Some(line) = self.lines.get(id) else { continue };
            let waiting = line.targets().flat_map(|target| self.with_remote(target));
            let waiting = waiting.filter(|(_, connection)| line.fits(connection));
            let deadline = waiting.map(|(_, connection)| connection.deadline).max();
            if let (Some(deadline), Some(now)) = (deadline, now) {
                self.lines.postpone(id, deadline.max(now.saturating_add(1)));
                continue;
            }
            let concluded = line.targets().flat_map(|target| self.done_index.with_remote(target));
            let concluded = concluded.filter_map(|id| self.done.get(&id));
            // Its connection was concluded without it: the line came late, its reason is known.
            let late = concluded.filter(|connection| !connection.logged).any(|known| line.fits(known));
            self.lines.remove(id);
            if late {
                count(&mut self.unjoined, "log_line");
            } else {
                self.lines.elsewhere = self.lines.elsewhere.saturating_add(1);
            }
        }
    }
}
