//! Which connection a fact belongs to: a function of the fact and the connections, never of their order.

use super::connection::Tracked;
use super::facts::Held;
use super::index::{Id, MAX_SYN_DATA};
use crate::observation::{Fact, Nanos};

/// A sequence number identifies its connection so surely that clocks of two sources may differ by this.
const SKEW_NS: Nanos = 1_000_000_000;
/// Nothing that happens later can be about a connect: a SYN_SENT socket dies after about 130 s by default.
const LIFETIME_NS: Nanos = 600_000_000_000;

/// How sure a match is; the surest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The server alone, while the ISN of the connect is unknown. Only if no other connect fits.
    Remote,
    /// The sequence number alone: NAT changed the server. Only if no other connect fits.
    SeqAlone,
    /// Server, and a sequence number that a SYN with data explains. Only if no other connect fits.
    RemoteAndLateSeq,
    /// Both addresses.
    Tuple,
    /// Both addresses, and a sequence number that a SYN with data explains.
    TupleAndLateSeq,
    /// The socket, or server and sequence number.
    Exact,
}

impl Rank {
    fn must_be_the_only_one(self) -> bool {
        matches!(self, Self::Remote | Self::SeqAlone | Self::RemoteAndLateSeq)
    }
}

/// The connection among `candidates` that `fact` belongs to. Of several that fit equally well, the one that began
/// last: addresses and socket identities are reused, sequence numbers are not.
pub(super) fn choose<'a>(fact: &Held, candidates: impl Iterator<Item = (Id, &'a Tracked)>) -> Option<Id> {
    let mut best: Option<(Rank, &Tracked, Id)> = None;
    let mut equals = 0_usize;
    for (id, connection) in candidates {
        let Some(rank) = rank(fact, connection) else { continue };
        match &best {
            Some((top, _, _)) if rank < *top => continue,
            Some((top, _, _)) if rank == *top => equals += 1,
            _ => equals = 1,
        }
        let later =
            best.as_ref().is_none_or(|(top, other, _)| rank > *top || connection.order() > other.order());
        if later {
            best = Some((rank, connection, id));
        }
    }
    match best {
        Some((rank, _, _)) if rank.must_be_the_only_one() && equals > 1 => None,
        Some((_, _, id)) => Some(id),
        None => None,
    }
}

fn rank(fact: &Held, connection: &Tracked) -> Option<Rank> {
    let since = fact.at().saturating_sub(connection.start());
    let exact_seq = matches!((fact.keys.seq, connection.keys().seq), (Some(a), Some(b)) if a == b);
    let earliest = if exact_seq { -SKEW_NS } else { 0 };
    if since < earliest || since > LIFETIME_NS {
        return None;
    }
    match &fact.observation.fact {
        Fact::Reset { .. } => by_seq(fact, connection),
        Fact::Hijacked { netns, .. } | Fact::NoBackend { netns, .. } => {
            by_seq(fact, connection).filter(|rank| *rank == Rank::Exact || agree(*netns, connection.netns()))
        }
        Fact::ConnectionRow { netns, .. } => {
            by_life(fact, connection).filter(|_| agree(*netns, connection.netns()))
        }
        Fact::SynRetransmitted { netns, .. }
        | Fact::Established { netns, .. }
        | Fact::Died { netns, .. }
        | Fact::ResetOtherwise { netns, .. }
        | Fact::Masqueraded { netns, .. }
        | Fact::FirstSynLost { netns, .. }
        | Fact::Remembered { netns, .. }
        | Fact::ReplyIgnored { netns, .. }
        | Fact::NoService { netns, .. }
        | Fact::FellSilent { netns, .. }
        | Fact::ConnectFailed { netns, .. } => {
            by_life(fact, connection).filter(|_| agree(*netns, connection.netns()))
        }
        Fact::Services { .. } | Fact::ConnectBegan { .. } | Fact::ProbeFailed { .. } => None,
    }
}

/// Facts about the SYN-ACK: the sequence number decides where both sides know it.
fn by_seq(fact: &Held, connection: &Tracked) -> Option<Rank> {
    let same_remote = fact.keys.remote == connection.keys().remote;
    let same_tuple = fact.keys.tuple == connection.keys().tuple;
    let is_reset = matches!(fact.observation.fact, Fact::Reset { .. });
    match (fact.keys.seq, connection.keys().seq) {
        (Some(seen), Some(expected)) => {
            let beyond = seen.wrapping_sub(expected);
            match (beyond, same_remote, same_tuple) {
                (0, true, _) => Some(Rank::Exact),
                (0, false, _) => Some(Rank::SeqAlone),
                (1..=MAX_SYN_DATA, _, true) => Some(Rank::TupleAndLateSeq),
                (1..=MAX_SYN_DATA, true, false) if is_reset => Some(Rank::RemoteAndLateSeq),
                _ => None,
            }
        }
        _ if same_tuple => Some(Rank::Tuple),
        (Some(_), None) if same_remote && is_reset => Some(Rank::Remote),
        _ => None,
    }
}

/// Facts about the socket: its identity where both sides know it, and never against the addresses.
fn by_life(fact: &Held, connection: &Tracked) -> Option<Rank> {
    let same_tuple = match fact.keys.tuple {
        Some(tuple) if Some(tuple) != connection.keys().tuple => return None,
        seen => seen.is_some(),
    };
    match (fact.keys.socket, connection.keys().socket) {
        (Some(seen), Some(known)) => (seen == known).then_some(Rank::Exact),
        _ => same_tuple.then_some(Rank::Tuple),
    }
}

/// Two namespaces are not known to differ.
fn agree(one: Option<u32>, other: Option<u32>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}
