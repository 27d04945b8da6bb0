//! What changed between two tables, and what of a table the kernel maps hold. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use probe_ebpf::{PORT_WORDS, ServiceKey};

use super::table::{Protocol, ServiceId, ServiceTable, canonical};

/// The services that differ between two tables, each in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDiff {
    /// Only in the new table.
    pub added: Vec<ServiceId>,
    /// Only in the old table.
    pub removed: Vec<ServiceId>,
    /// In both, with other backends, scheduler or flags.
    pub changed: Vec<ServiceId>,
}

impl TableDiff {
    /// Whether the tables hold the same services.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Compares two tables; what could not be read plays no part.
pub fn diff(old: &ServiceTable, new: &ServiceTable) -> TableDiff {
    let mut diff = TableDiff::default();
    for (id, service) in &new.services {
        match old.services.get(id) {
            None => diff.added.push(*id),
            Some(before) if before != service => diff.changed.push(*id),
            Some(_) => {}
        }
    }
    diff.removed = old.services.keys().filter(|id| !new.services.contains_key(id)).copied().collect();
    diff
}

/// Key of a service in the kernel's map; `None` for a service that no TCP socket collides with.
pub fn kernel_key(id: ServiceId, netns: u32) -> Option<ServiceKey> {
    let ServiceId::Address(Protocol::Tcp, address) = id else { return None };
    let address = canonical(address);
    let ip = match address.ip() {
        IpAddr::V4(ip) => probe_ebpf::v4_mapped(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    };
    Some(ServiceKey { address: ip, netns, port: address.port(), padding: 0 })
}

/// Keys of all TCP services of a table, for network namespace `netns` (its inode).
pub fn kernel_keys(table: &ServiceTable, netns: u32) -> impl Iterator<Item = ServiceKey> {
    table.services.keys().filter_map(move |id| kernel_key(*id, netns))
}

/// Number of ports, and the word count of the kernel's bitmap as a length.
const PORTS: usize = 65_536;
const WORDS: usize = PORT_WORDS as usize;

/// Which ports are a TCP service, as the kernel's bitmap has it: port `p` is bit `p % 64` of word `p / 64`. While a
/// service for all ports (port 0) exists, every bit is set.
#[derive(Clone, Debug)]
pub struct PortBitmap {
    /// How many services use each port.
    counts: Vec<u32>,
    words: Box<[u64; WORDS]>,
}

impl Default for PortBitmap {
    fn default() -> Self {
        Self { counts: vec![0; PORTS], words: Box::new([0; WORDS]) }
    }
}

impl PortBitmap {
    /// The bitmap of a table.
    pub fn of(table: &ServiceTable) -> Self {
        let mut bitmap = Self::default();
        for key in kernel_keys(table, 0) {
            bitmap.add(key.port);
        }
        bitmap
    }

    /// Counts one more service at `port`. Returns the indexes of the words that changed, ascending.
    pub fn add(&mut self, port: u16) -> BTreeSet<u32> {
        self.count(port, |count| count.saturating_add(1))
    }

    /// Counts one service less at `port`; one that was never added changes nothing. Returns the indexes of the words
    /// that changed, ascending.
    pub fn remove(&mut self, port: u16) -> BTreeSet<u32> {
        self.count(port, |count| count.saturating_sub(1))
    }

    /// All words, for the kernel's map.
    pub fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// Whether a connect from `port` has to be looked at.
    pub fn contains(&self, port: u16) -> bool {
        self.words.get(usize::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 == 1)
    }

    fn count(&mut self, port: u16, change: impl FnOnce(u32) -> u32) -> BTreeSet<u32> {
        let Some(count) = self.counts.get_mut(usize::from(port)) else { return BTreeSet::new() };
        let before = *count;
        *count = change(before);
        if (before == 0) == (*count == 0) {
            return BTreeSet::new();
        }
        let word = usize::from(port / 64);
        let range = if port == 0 { 0..WORDS } else { word..word + 1 };
        range.filter(|word| self.refresh(*word)).filter_map(|word| u32::try_from(word).ok()).collect()
    }

    /// Computes one word from the counts; true if it changed.
    fn refresh(&mut self, index: usize) -> bool {
        let all_ports = self.counts.first().is_some_and(|count| *count > 0);
        let counts = self.counts.chunks_exact(64).nth(index).unwrap_or_default();
        let used = counts.iter().rev().fold(0, |word, count| (word << 1) | u64::from(*count > 0));
        let Some(word) = self.words.get_mut(index) else { return false };
        let new = if all_ports { u64::MAX } else { used };
        std::mem::replace(word, new) != new
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
