//! The ports that a tracker waits for packets from.

use std::collections::HashMap;

/// Local ports of open handshakes: one bit each, so that a packet of no interest costs one look.
pub(super) struct Ports {
    bits: Vec<u64>,
    counts: HashMap<u16, u32>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { bits: vec![0; 1024], counts: HashMap::new() }
    }
}

impl Ports {
    pub(super) fn has(&self, port: u16) -> bool {
        self.bits.get(usize::from(port >> 6)).is_some_and(|word| word >> (port & 63) & 1 == 1)
    }

    pub(super) fn add(&mut self, port: u16) {
        *self.counts.entry(port).or_default() += 1;
        if let Some(word) = self.bits.get_mut(usize::from(port >> 6)) {
            *word |= 1 << (port & 63);
        }
    }

    pub(super) fn remove(&mut self, port: u16) {
        let Some(count) = self.counts.get_mut(&port) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.counts.remove(&port);
            if let Some(word) = self.bits.get_mut(usize::from(port >> 6)) {
                *word &= !(1 << (port & 63));
            }
        }
    }
}
