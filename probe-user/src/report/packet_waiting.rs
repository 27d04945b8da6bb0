//! Packets that wait until it is clear whose they are.

use std::collections::{BTreeMap, VecDeque};

use crate::sources::packets::LivePacket;

/// Connections that are remembered for packets that come after it is clear whose they are.
const MAX_TOLD: usize = 4096;

/// Waiting packets, by the initial sequence number of their connection, and what was said about connections so far.
pub(crate) struct Waiting<K> {
    most: usize,
    count: usize,
    packets: BTreeMap<u32, Vec<LivePacket>>,
    told: Told<K>,
}

/// What becomes of a packet.
#[derive(Debug)]
pub(crate) enum Taken<K> {
    /// It waits.
    Waits,
    /// It is known whose it is.
    Known(K, LivePacket),
}

struct Told<K> {
    known: BTreeMap<u32, K>,
    order: VecDeque<u32>,
}

impl<K> Told<K> {
    fn insert(&mut self, isn: u32, known: K) {
        if self.known.insert(isn, known).is_none() {
            self.order.push_back(isn);
        }
        if self.order.len() > MAX_TOLD
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl<K: Clone> Waiting<K> {
    /// At most so many packets are to wait.
    pub(crate) const fn new(most: usize) -> Self {
        let told = Told { known: BTreeMap::new(), order: VecDeque::new() };
        Self { most, count: 0, packets: BTreeMap::new(), told }
    }

    /// Takes a packet.
    pub(crate) fn take(&mut self, packet: LivePacket) -> Taken<K> {
        if let Some(known) = self.told.known.get(&packet.isn) {
            return Taken::Known(known.clone(), packet);
        }
        self.count += 1;
        self.packets.entry(packet.isn).or_default().push(packet);
        Taken::Waits
    }

    /// Packets of one connection that wait.
    pub(crate) fn of(&self, isn: u32) -> usize {
        self.packets.get(&isn).map_or(0, Vec::len)
    }

    /// Says whose the packets of a connection are, and hands over those that waited.
    pub(crate) fn tell(&mut self, isn: u32, known: K) -> Vec<LivePacket> {
        self.told.insert(isn, known);
        self.remove(isn)
    }

    /// The packets of the oldest connection, if too many wait.
    pub(crate) fn too_many(&mut self) -> Option<Vec<LivePacket>> {
        if self.count > self.most { self.oldest() } else { None }
    }

    /// The packets of the oldest connection, whosever they are; `None` = none wait.
    pub(crate) fn oldest(&mut self) -> Option<Vec<LivePacket>> {
        let first = |packets: &Vec<LivePacket>| packets.first().map(|packet| packet.at);
        let isn = self.packets.iter().min_by_key(|(_, packets)| first(packets)).map(|(isn, _)| *isn)?;
        Some(self.remove(isn))
    }

    fn remove(&mut self, isn: u32) -> Vec<LivePacket> {
        let packets = self.packets.remove(&isn).unwrap_or_default();
        self.count -= packets.len();
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::packet;

    #[test]
    fn connections_that_are_remembered_are_bounded() {
        let mut waiting = Waiting::new(10);
        for isn in 0..10_000 {
            assert!(waiting.tell(isn, ()).is_empty());
        }
        assert_eq!((waiting.told.known.len(), waiting.told.order.len()), (MAX_TOLD, MAX_TOLD));
        assert!(matches!(waiting.take(packet(9_999, 1)), Taken::Known((), _)));
        assert!(matches!(waiting.take(packet(1, 1)), Taken::Waits), "forgotten");
    }

    #[test]
    fn the_oldest_connection_makes_room() {
        let mut waiting = Waiting::<()>::new(2);
        for (isn, at) in [(7, 5), (9, 1), (7, 0)] {
            assert!(waiting.too_many().is_none());
            waiting.take(packet(isn, at));
        }
        // By its first packet that came.
        assert_eq!(waiting.too_many().unwrap(), [packet(9, 1)]);
        assert_eq!((waiting.of(7), waiting.of(9), waiting.count), (2, 0, 2));
        assert!(waiting.too_many().is_none());
        assert_eq!(waiting.tell(7, ()).len(), 2);
        assert!(waiting.oldest().is_none());
    }
}
