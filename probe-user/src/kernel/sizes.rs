//! How much the maps in the kernel hold, where the object does not say it.

use probe_ebpf::{PACKET_RING_BYTES, RING_BYTES};

/// A ring buffer must have whole pages, of whatever size they are here.
const PAGES: u32 = 65_536;
/// Sizes of the maps that only recording packets uses, where it does not.
const NO_PACKETS: [(&str, u32); 3] = [("FLOWS", 1), ("PACKETS", PAGES), ("PACKETS_LOST", 1)];

/// Sizes of the ring buffers, bytes. A ring is mapped twice in a row, so that a record never wraps around; resident memory
/// counts it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    events: u32,
    packets: u32,
}

impl Default for Rings {
    fn default() -> Self {
        Self { events: RING_BYTES, packets: PACKET_RING_BYTES }
    }
}

impl Rings {
    /// Largest ring that may be asked for, bytes.
    pub const MOST: u64 = 256 << 20;

    /// Rings of at least so many bytes each, as far as [`Self::MOST`] allows: a ring is whole pages, and a power of two.
    pub fn of(bytes: u64) -> Self {
        let bytes = u32::try_from(bytes.min(Self::MOST)).unwrap_or(RING_BYTES);
        let bytes = bytes.max(PAGES).next_power_of_two();
        Self { events: bytes, packets: bytes }
    }
}

/// Maps and their entries or bytes, to trace with these rings; `packets`: whether packets are recorded.
pub(super) fn to_trace(rings: Rings, packets: bool) -> Vec<(&'static str, u32)> {
    let mut sizes = vec![("COUNTED", 1), ("EVENTS", rings.events)];
    if packets {
        sizes.push(("PACKETS", rings.packets));
    } else {
        sizes.extend(NO_PACKETS);
    }
    sizes
}

/// The same, to count connects in a map with at most so many entries.
pub(super) fn to_count(entries: u32) -> Vec<(&'static str, u32)> {
    const UNUSED: [(&str, u32); 4] = [("EVENTS", PAGES), ("SERVICES", 1), ("FLAGGED", 1), ("CALLERS", 1)];
    let mut sizes = UNUSED.to_vec();
    sizes.extend(NO_PACKETS);
    sizes.push(("COUNTED", entries));
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_have_sizes_that_kernels_take() {
        let sizes = |bytes| (Rings::of(bytes).events, Rings::of(bytes).packets);
        assert_eq!(sizes(1 << 20), (1 << 20, 1 << 20));
        assert_eq!(sizes(1), (65_536, 65_536));
        assert_eq!(sizes(100_000), (131_072, 131_072));
        assert_eq!(sizes(u64::MAX), (256 << 20, 256 << 20));
    }
}
