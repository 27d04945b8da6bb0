//! When a handshake is over, and whether it is kept then.

use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt};

use super::{MAX_OPEN, Tracker, tuple_of_syn};
use crate::handshakes::PacketKind;
use crate::handshakes::flow::Flow;
use crate::handshakes::ports::Ports;
use crate::observation::Nanos;

/// Handshakes that are kept for a closer look; beyond it they are counted.
const MAX_KEPT: usize = 32_768;
/// Of those that nothing is wrong with but that nobody answered, or that came about unseen, the latest: they are worth a
/// look only if another input knows more.
const MAX_UNEVENTFUL: usize = 8192;
/// A handshake of which nothing was seen for so long is over: a SYN_SENT socket lives about 130 s.
const IDLE_NS: Nanos = 150_000_000_000;

impl Tracker<'_> {
    /// Whether a completed handshake is worth more than being counted.
    pub(super) fn is_noteworthy(&self, number: u32) -> bool {
        let Some(flow) = self.flows.get(&number) else { return false };
        flow.again
            || flow.has(PacketKind::Reset)
            || flow
                .seen
                .iter()
                .any(|seen| seen.kind == PacketKind::Syn && (self.is_service)(tuple_of_syn(seen)))
    }

    pub(super) fn forget(&mut self, number: u32) -> Option<Flow> {
        let flow = self.flows.remove(&number)?;
        if let Some(beyond) = &flow.beyond {
            self.beyond.remove(beyond);
        }
        for port in &flow.ports {
            self.pending.remove(*port);
        }
        for seen in flow.seen.iter().filter(|seen| seen.kind == PacketKind::Syn) {
            if self.tuples.get(&tuple_of_syn(seen)) == Some(&number) {
                self.tuples.remove(&tuple_of_syn(seen));
            }
        }
        if let Some(tuple) = flow.tuple()
            && self.tuples.get(&tuple) == Some(&number)
        {
            self.tuples.remove(&tuple);
        }
        Some(flow)
    }

    /// The handshake is over, or will not go on.
    pub(super) fn conclude(&mut self, number: u32) {
        let noteworthy = self.is_noteworthy(number);
        let Some(flow) = self.forget(number) else { return };
        if flow.established && !noteworthy {
            return;
        }
        let Some(room) = self.room.checked_sub(flow.seen.len()) else {
            self.counts.forgotten += 1;
            return;
        };
        let refused = flow.has(PacketKind::ResetAck);
        let broken =
            refused || flow.seen.iter().any(|seen| matches!(seen.kind, PacketKind::Unreachable { .. }));
        if !noteworthy && !broken {
            self.room = room;
            self.uneventful.push_back(flow);
            if self.uneventful.len() > MAX_UNEVENTFUL
                && let Some(oldest) = self.uneventful.pop_front()
            {
                self.room += oldest.seen.len();
            }
            return;
        }
        let kept = if refused && !noteworthy { &mut self.refused } else { &mut self.kept };
        if kept.len() < MAX_KEPT {
            self.room = room;
            kept.push(flow);
        } else {
            self.counts.forgotten += 1;
        }
    }

    pub(super) fn expire(&mut self) {
        if self.order.len() > 4 * MAX_OPEN {
            let flows = &self.flows;
            self.order.retain(|(began, number)| flows.get(number).is_some_and(|flow| flow.first() == *began));
        }
        while let Some(&(began, number)) = self.order.front() {
            let crowded = self.flows.len() > MAX_OPEN;
            if !crowded && began.saturating_add(IDLE_NS) > self.last {
                return;
            }
            self.order.pop_front();
            let Some(flow) = self.flows.get(&number).filter(|flow| flow.first() == began) else { continue };
            if !crowded && flow.last.saturating_add(IDLE_NS) > self.last {
                // Still being retried: looked at again when it may be over.
                self.order.push_back((began, number));
                return;
            }
            self.counts.forgotten += u64::from(crowded);
            self.conclude(number);
        }
    }

    /// The input is at its end: what is open will not go on, and only what is kept takes memory from now on.
    pub fn end(&mut self) {
        let mut open: Vec<_> = self.flows.values().map(|flow| (flow.first(), flow.number)).collect();
        open.sort_unstable();
        for (_, number) in open {
            self.conclude(number);
        }
        self.flows = HashMap::new();
        self.tuples = HashMap::new();
        self.beyond = HashMap::new();
        self.order = VecDeque::new();
        self.pending = Ports::none();
    }
}
