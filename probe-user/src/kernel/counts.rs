//! The connect counts that the kernel side keeps, read by user space.

use aya::maps::{Array, MapData, MapError, PerCpuHashMap};
use aya::{Ebpf, Pod};
use probe_ebpf::{Count, CountKey, MAX_COUNTED};

use super::loader::LoadError;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Key(CountKey);

// SAFETY: CountKey is repr(C), holds only integers and has no padding (its own field fills the gap).
unsafe impl Pod for Key {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(Count);

// SAFETY: Count is repr(C) and holds three integers of 8 bytes.
unsafe impl Pod for Value {}

/// Memory that the slots of all CPUs may take together, bytes.
const MEMORY: usize = 24 << 20;

/// Entries that the map gets on a machine with so many CPUs, as the memory bound allows.
pub fn entries_for(cpus: usize) -> u32 {
    let entries = MEMORY / size_of::<Count>() / cpus.max(1);
    u32::try_from(entries).unwrap_or(MAX_COUNTED).clamp(1024, MAX_COUNTED)
}

/// Handles of the maps.
pub struct CountMap {
    counted: PerCpuHashMap<MapData, Key, Value>,
    netns: Array<MapData, u32>,
}

impl CountMap {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let counted = ebpf.take_map("COUNTED").ok_or(LoadError::Missing("COUNTED"))?;
        let netns = ebpf.take_map("COUNTED_NETNS").ok_or(LoadError::Missing("COUNTED_NETNS"))?;
        Ok(Self {
            counted: PerCpuHashMap::try_from(counted).map_err(error("COUNTED"))?,
            netns: Array::try_from(netns).map_err(error("COUNTED_NETNS"))?,
        })
    }

    /// Counts connects of this network namespace only (inode number; `None` = all).
    pub fn select(&mut self, netns: Option<u32>) -> Result<(), LoadError> {
        self.netns.set(0, netns.unwrap_or(0), 0).map_err(error("COUNTED_NETNS"))
    }

    /// Every entry, summed over all CPUs. Entries that go while they are read are left out.
    pub fn read(&self) -> Result<Vec<(CountKey, Count)>, LoadError> {
        let mut entries = Vec::new();
        // A key that is evicted in the meantime makes the kernel begin anew: keys may come twice, and must not for ever.
        for key in self.counted.keys().take(2 * MAX_COUNTED as usize) {
            let key = key.map_err(error("COUNTED"))?;
            match self.counted.get(&key, 0) {
                Ok(slots) => entries.push((key.0, sum(slots.iter().map(|slot| slot.0)))),
                Err(MapError::KeyNotFound) => {}
                Err(other) => return Err(error("COUNTED")(other)),
            }
        }
        Ok(entries)
    }

    /// Removes an entry that nobody will count in any more.
    pub fn remove(&mut self, key: &CountKey) -> Result<(), LoadError> {
        match self.counted.remove(&Key(*key)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(other) if is_not_found(&other) => Ok(()),
            Err(other) => Err(error("COUNTED")(other)),
        }
    }
}

fn is_not_found(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::ENOENT))
}

fn error(name: &'static str) -> impl Fn(MapError) -> LoadError {
    move |source| LoadError::Map { name, source }
}

/// Counts wrap in a slot (a connect that is taken back may be so on another CPU); the sum does not.
fn sum(slots: impl Iterator<Item = Count>) -> Count {
    slots.fold(Count::default(), |total, slot| Count {
        connects: total.connects.wrapping_add(slot.connects),
        unavailable: total.unavailable.wrapping_add(slot.unavailable),
        since_ns: match (total.since_ns, slot.since_ns) {
            (0, since) | (since, 0) => since,
            (one, other) => one.min(other),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_wrap_and_their_sum_does_not() {
        let slot = |connects, since_ns| Count { connects, unavailable: 1, since_ns };
        let total = sum([slot(5, 70), slot(u64::MAX, 90), slot(0, 0)].into_iter());
        assert_eq!(total, Count { connects: 4, unavailable: 3, since_ns: 70 });
        assert_eq!(sum(std::iter::empty()), Count::default());
    }

    #[test]
    fn large_machines_get_fewer_entries_and_never_too_few() {
        assert_eq!(entries_for(2), MAX_COUNTED);
        assert_eq!(entries_for(256), 4096);
        assert_eq!(entries_for(100_000), 1024);
    }
}
