//! Finds, for a fact, the connections it may belong to, and for a connection the facts, without a scan.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use crate::observation::Tuple;

/// Number of a connection or a fact, given in order of arrival. It never decides anything.
pub(super) type Id = u64;
const ALL: RangeInclusive<Id> = 0..=Id::MAX;

/// How far an acknowledgement may lie beyond ISN + 1: TCP Fast Open sends data in the SYN.
pub(super) const MAX_SYN_DATA: u32 = 65_534;

/// What a connection or a fact can be found by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    /// Kernel identity of the socket.
    pub(super) socket: Option<u64>,
    /// Addresses of the connect.
    pub(super) tuple: Option<Tuple>,
    /// The server; facts about the socket alone leave it out.
    pub(super) remote: Option<SocketAddr>,
    /// ISN + 1, which is what the SYN-ACK acknowledges and the RST carries.
    pub(super) seq: Option<u32>,
}

impl Keys {
    /// What a fact is found by, and finds by. A kernel gives the address of a socket to the next one at once, so that
    /// thousands may have had it; a fact that names the connect's addresses belongs to no connection with others
    /// ([`super::join`]).
    fn of_fact(&self) -> Self {
        Self { socket: self.socket.filter(|_| self.tuple.is_none()), ..*self }
    }
}

/// Numbers by each of their keys.
#[derive(Debug, Default)]
pub(super) struct Index {
    sockets: BTreeSet<(u64, Id)>,
    tuples: BTreeSet<(Tuple, Id)>,
    remotes: BTreeSet<(SocketAddr, Option<u32>, Id)>,
    seqs: BTreeSet<(u32, Id)>,
}

impl Index {
    pub(super) fn insert(&mut self, keys: &Keys, id: Id) {
        self.sockets.extend(keys.socket.map(|socket| (socket, id)));
        self.tuples.extend(keys.tuple.map(|tuple| (tuple, id)));
        self.remotes.extend(keys.remote.map(|remote| (remote, keys.seq, id)));
        self.seqs.extend(keys.seq.map(|seq| (seq, id)));
    }

    pub(super) fn remove(&mut self, keys: &Keys, id: Id) {
        if let Some(socket) = keys.socket {
            self.sockets.remove(&(socket, id));
        }
        if let Some(tuple) = keys.tuple {
            self.tuples.remove(&(tuple, id));
        }
        if let Some(remote) = keys.remote {
            self.remotes.remove(&(remote, keys.seq, id));
        }
        if let Some(seq) = keys.seq {
            self.seqs.remove(&(seq, id));
        }
    }

    /// The same for a fact, see [`Keys::of_fact`].
    pub(super) fn insert_fact(&mut self, keys: &Keys, id: Id) {
        self.insert(&keys.of_fact(), id);
    }

    /// The same for a fact.
    pub(super) fn remove_fact(&mut self, keys: &Keys, id: Id) {
        self.remove(&keys.of_fact(), id);
    }

    /// Connections that a fact with these keys may belong to (`self` indexes connections).
    pub(super) fn for_fact(&self, keys: &Keys) -> BTreeSet<Id> {
        let mut found = self.same(&keys.of_fact());
        if let (Some(remote), Some(seq)) = (keys.remote, keys.seq) {
            self.window(remote, seq.wrapping_sub(MAX_SYN_DATA), seq, &mut found);
            // Connections whose ISN nobody knows.
            found.extend(
                self.remotes.range((remote, None, 0)..=(remote, None, Id::MAX)).map(|&(_, _, id)| id),
            );
        }
        found
    }

    /// Facts that may belong to a connection with these keys (`self` indexes facts).
    pub(super) fn for_connection(&self, keys: &Keys) -> BTreeSet<Id> {
        let mut found = self.same(keys);
        match (keys.remote, keys.seq) {
            (Some(remote), Some(seq)) => {
                self.window(remote, seq, seq.wrapping_add(MAX_SYN_DATA), &mut found);
            }
            (Some(remote), None) => found.extend(self.with_remote(remote)),
            (None, _) => {}
        }
        found
    }

    /// All with these addresses.
    pub(super) fn with_tuple(&self, tuple: Tuple) -> impl Iterator<Item = Id> + '_ {
        self.tuples.range((tuple, *ALL.start())..=(tuple, *ALL.end())).map(|&(_, id)| id)
    }

    /// All with this server.
    pub(super) fn with_remote(&self, remote: SocketAddr) -> impl Iterator<Item = Id> + '_ {
        let range = (remote, None, 0)..=(remote, Some(u32::MAX), Id::MAX);
        self.remotes.range(range).map(|&(_, _, id)| id)
    }

    fn same(&self, keys: &Keys) -> BTreeSet<Id> {
        let mut found = BTreeSet::new();
        if let Some(socket) = keys.socket {
            found
                .extend(self.sockets.range((socket, *ALL.start())..=(socket, *ALL.end())).map(|&(_, id)| id));
        }
        if let Some(tuple) = keys.tuple {
            found.extend(self.with_tuple(tuple));
        }
        if let Some(seq) = keys.seq {
            found.extend(self.seqs.range((seq, *ALL.start())..=(seq, *ALL.end())).map(|&(_, id)| id));
        }
        found
    }

    /// Sequence numbers from `first` to `last`, modulo 2^32.
    fn window(&self, remote: SocketAddr, first: u32, last: u32, found: &mut BTreeSet<Id>) {
        let mut take = |from: u32, to: u32| {
            let range = (remote, Some(from), 0)..=(remote, Some(to), Id::MAX);
            found.extend(self.remotes.range(range).map(|&(_, _, id)| id));
        };
        if first <= last {
            take(first, last);
        } else {
            take(first, u32::MAX);
            take(0, last);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty() && self.tuples.is_empty() && self.remotes.is_empty() && self.seqs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(remote: &str, seq: u32) -> Keys {
        Keys { remote: remote.parse().ok(), seq: Some(seq), ..Keys::default() }
    }

    #[test]
    fn the_window_of_a_fast_open_syn_wraps_around() {
        let mut connections = Index::default();
        connections.insert(&keys("10.0.0.1:80", u32::MAX - 10), 1);
        let found = connections.for_fact(&keys("10.0.0.1:80", 500));
        assert_eq!(found, BTreeSet::from([1]));
        let found = connections.for_fact(&keys("10.0.0.1:80", 500 + MAX_SYN_DATA));
        assert!(found.is_empty(), "too far beyond the ISN");
        let found = connections.for_fact(&keys("10.0.0.2:80", 500));
        assert!(found.is_empty(), "another server");
    }

    #[test]
    fn what_is_removed_is_not_found_by_any_key() {
        let mut index = Index::default();
        let full = Keys {
            socket: Some(7),
            tuple: Some(Tuple {
                local: "10.0.0.9:36704".parse().unwrap(),
                remote: "10.0.0.1:80".parse().unwrap(),
            }),
            ..keys("10.0.0.1:80", 5)
        };
        index.insert(&full, 3);
        assert!(!index.is_empty());
        index.remove(&full, 3);
        assert!(index.is_empty());
    }
}
