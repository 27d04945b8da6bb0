//! Ports whose packets are looked at.

/// Local ports of open handshakes: one bit each, so that a packet of no interest costs one look.
pub(super) struct Ports {
    bits: Vec<u64>,
    /// Handshakes per port.
    counts: Vec<u32>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { bits: vec![0; 1 << 10], counts: vec![0; 1 << 16] }
    }
}

impl Ports {
    #[inline]
    pub(super) fn has(&self, port: u16) -> bool {
        self.bits.get(usize::from(port >> 6)).is_some_and(|word| word >> (port & 63) & 1 == 1)
    }

    pub(super) fn add(&mut self, port: u16) {
        if let (Some(count), Some(word)) = self.of(port) {
            *count += 1;
            *word |= 1 << (port & 63);
        }
    }

    pub(super) fn remove(&mut self, port: u16) {
        if let (Some(count), Some(word)) = self.of(port) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                *word &= !(1 << (port & 63));
            }
        }
    }

    fn of(&mut self, port: u16) -> (Option<&mut u32>, Option<&mut u64>) {
        (self.counts.get_mut(usize::from(port)), self.bits.get_mut(usize::from(port >> 6)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_there_until_its_last_handshake_is_gone() {
        let mut ports = Ports::default();
        for port in [0, 63, 64, u16::MAX] {
            ports.add(port);
            ports.add(port);
            ports.remove(port);
            assert!(ports.has(port) && !ports.has(port ^ 1));
            ports.remove(port);
            ports.remove(port);
            assert!(!ports.has(port));
        }
    }
}
