//! Handshakes that broke, or were late, where nothing shows IPVS at work.

use super::{Explainer, is_reset, tuple_of};
use crate::handshakes::{Covered, PacketKind, Seen};
use crate::observation::{Fact, Nanos, ResetCause, Tuple};

/// A reply that comes later than this after the first SYN came to a client that may have given up: by then the SYN was
/// sent again (initial RTO, RFC 6298).
const LATE_NS: Nanos = 1_000_000_000;

impl Explainer<'_> {
    /// The source is no service, and IPVS was not seen.
    pub(super) fn explain_otherwise(&mut self, tuple: Tuple, covered: &Covered) -> Option<()> {
        if self.connect.is_completed() {
            return self.delayed(tuple);
        }
        let cause = self.cause(covered);
        // A server that repeats its old reply lost nothing but packets: a hijack makes it forget the connection.
        let anew = self.reply_ignored(tuple).is_some_and(|(_, anew)| anew);
        let unanswered = self.own_resets(tuple).is_empty() && !anew;
        if cause.is_none() && (unanswered || *covered == Covered::No) {
            return None;
        }
        self.began(tuple, None);
        self.no_service(tuple);
        let first = self.connect.seen.iter().find(|seen| is_reset(seen.kind)).copied();
        if let (Some(cause), Some(reset)) = (cause, first) {
            let source = self.source(&reset);
            self.tell(reset.at, &source, Fact::ResetOtherwise { tuple, netns: None, cause });
        } else {
            self.resets(tuple, &[]);
            self.ignored(tuple);
            self.end(tuple);
        }
        Some(())
    }

    /// Why the handshake was reset, if it is a known reason other than IPVS.
    fn cause(&self, covered: &Covered) -> Option<ResetCause> {
        let (clients, servers) = (self.connect.clients(), self.connect.servers());
        let acked: Vec<&Seen> = self.connect.of(PacketKind::ResetAck).collect();
        let by_server =
            acked.iter().find(|rst| self.answers_syn(rst.acknowledgement) && servers.contains(&rst.source));
        if let Some(rst) = by_server {
            let had_answered = self.connect.is_after_reply(rst);
            return Some(if had_answered { ResetCause::AbortedByServer } else { ResetCause::ClosedPort });
        }
        if acked.iter().any(|rst| self.answers_syn(rst.sequence) && clients.contains(&rst.source)) {
            return Some(ResetCause::Aborted);
        }
        let resets: Vec<&Seen> =
            self.connect.of(PacketKind::Reset).filter(|rst| clients.contains(&rst.source)).collect();
        let first = resets.first()?;
        if resets.iter().all(|rst| !servers.contains(&rst.destination)) {
            return Some(ResetCause::NoReverseNat(first.destination));
        }
        let begin = self.connect.of(PacketKind::Syn).next()?.at;
        let reply = self.connect.of(PacketKind::SynAck).next()?.at;
        let tried_again = self.connect.of(PacketKind::Syn).any(|syn| syn.at > first.at);
        if !tried_again && reply.saturating_sub(begin) >= LATE_NS {
            return Some(ResetCause::LateReply);
        }
        match covered {
            Covered::No => Some(ResetCause::Unexplained),
            Covered::Unknown if !tried_again => Some(ResetCause::Dropped),
            _ => None,
        }
    }

    /// A completed handshake that took a second SYN, to a service: what a reused port costs.
    fn delayed(&mut self, tuple: Tuple) -> Option<()> {
        let syns = self.connect.distinct(|seen| seen.kind == PacketKind::Syn && tuple_of(seen) == tuple);
        let [first, second] = syns.as_slice() else { return None };
        let waited = second.at.saturating_sub(first.at);
        let answered_before = self.connect.of(PacketKind::SynAck).any(|reply| reply.at < second.at);
        if answered_before || !self.context.coverage.is_service(tuple.remote) || waited < LATE_NS / 2 {
            return None;
        }
        let (at, source) = (second.at, self.source(second));
        self.began(tuple, None);
        self.no_service(tuple);
        self.tell(at, &source, Fact::FirstSynLost { tuple, netns: None, waited_ns: waited });
        self.end(tuple);
        Some(())
    }
}
