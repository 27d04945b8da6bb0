//! Log lines, as far as they need the connections.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{State, count};
use crate::diagnosis::connection::Tracked;
use crate::diagnosis::index::Id;
use crate::diagnosis::lines::Standing;
use crate::kubelet_log::ProbeFailure;
use crate::observation::Nanos;

/// The lines that fit a connection.
#[derive(Debug, Default)]
pub(super) struct LinesOf {
    /// The one that its incident shows: the nearest of its own.
    pub(super) joined: Option<Id>,
    standings: Vec<(Id, Standing)>,
}

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
        let Some(line) = self.lines.get(id) else { return };
        let concluded: Vec<Id> =
            line.targets().flat_map(|target| self.done_index.with_remote(target)).collect();
        for connection in concluded.iter().filter_map(|id| self.done.get(id)) {
            self.lines.pass(id, connection);
        }
    }

    /// A connection is concluded: the lines about it are used up, also those that it has no use for, and those that are
    /// as well about another are given up.
    pub(super) fn settle_lines(&mut self, id: Id, lines: &LinesOf) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.logged = lines.joined.is_some();
        for (line, standing) in &lines.standings {
            match standing {
                Standing::Another => self.lines.pass(*line, connection),
                Standing::Shared => self.lines.ambiguous += u64::from(self.lines.remove(*line).is_some()),
                Standing::Own => {
                    let surplus = self.lines.remove(*line).is_some() && lines.joined != Some(*line);
                    self.lines.elsewhere += u64::from(surplus);
                }
            }
        }
    }

    /// Connections with this server.
    fn with_remote(&self, remote: SocketAddr) -> impl Iterator<Item = (Id, &Tracked)> {
        self.connection_index.with_remote(remote).filter_map(|id| Some((id, self.connections.get(&id)?)))
    }

    /// The lines that fit this connection, as things stand now.
    pub(super) fn lines_of(&self, id: Id) -> LinesOf {
        let Some(connection) = self.connections.get(&id) else { return LinesOf::default() };
        let standing = |line: &Id| {
            let line = self.lines.get(*line)?;
            let others = line.targets().flat_map(|target| self.with_remote(target));
            line.standing(connection, others.filter(|(other, _)| *other != id).map(|(_, other)| other))
        };
        let near = self.lines.near(connection).into_iter();
        let standings: Vec<_> = near.filter_map(|line| Some((line, standing(&line)?))).collect();
        let own = standings.iter().filter(|(_, standing)| *standing == Standing::Own).map(|(line, _)| *line);
        LinesOf { joined: self.lines.nearest(own, connection), standings }
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
