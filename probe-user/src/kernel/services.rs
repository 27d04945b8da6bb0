//! The service table in the kernel: exact services and the bitmap of their ports.

use aya::maps::{Array, HashMap, MapData, MapError};
use aya::{Ebpf, Pod};
use probe_ebpf::ServiceKey;

use super::loader::LoadError;
use std::collections::BTreeSet;

use crate::ipvs::diff::{PortBitmap, kernel_key};
use crate::ipvs::table::ServiceId;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Key(ServiceKey);

// SAFETY: ServiceKey is repr(C), holds only integers and has no padding (its own field fills the gap).
unsafe impl Pod for Key {}

/// Handles of the two maps, and what has been put into them.
pub struct ServiceMap {
    exact: HashMap<MapData, Key, u32>,
    ports: Array<MapData, u64>,
    announced: Array<MapData, u32>,
    bitmap: PortBitmap,
    /// Services that did not fit.
    refused: u64,
}

impl ServiceMap {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let exact = ebpf.take_map("SERVICES").ok_or(LoadError::Missing("SERVICES"))?;
        let ports = ebpf.take_map("PORTS").ok_or(LoadError::Missing("PORTS"))?;
        let announced = ebpf.take_map("ANNOUNCED").ok_or(LoadError::Missing("ANNOUNCED"))?;
        Ok(Self {
            announced: Array::try_from(announced)
                .map_err(|source| LoadError::Map { name: "ANNOUNCED", source })?,
            exact: HashMap::try_from(exact).map_err(|source| LoadError::Map { name: "SERVICES", source })?,
            ports: Array::try_from(ports).map_err(|source| LoadError::Map { name: "PORTS", source })?,
            bitmap: PortBitmap::default(),
            refused: 0,
        })
    }

    /// Adds the TCP services among `ids`; what is not TCP cannot collide and is left out.
    pub fn add<'a>(
        &mut self,
        netns: u32,
        ids: impl IntoIterator<Item = &'a ServiceId>,
    ) -> Result<(), LoadError> {
        for key in ids.into_iter().filter_map(|id| kernel_key(*id, netns)) {
            // The exact entry first: a set bit without it costs a lookup, a missing bit loses a connect.
            if self.exact.insert(Key(key), 1, 0).is_err() {
                self.refused += 1;
                continue;
            }
            let changed = self.bitmap.add(key.port);
            self.write(&changed)?;
        }
        Ok(())
    }

    /// Removes services.
    pub fn remove<'a>(
        &mut self,
        netns: u32,
        ids: impl IntoIterator<Item = &'a ServiceId>,
    ) -> Result<(), LoadError> {
        for key in ids.into_iter().filter_map(|id| kernel_key(*id, netns)) {
            match self.exact.remove(&Key(key)) {
                Ok(()) => {
                    let changed = self.bitmap.remove(key.port);
                    self.write(&changed)?;
                }
                // It was among the refused.
                Err(MapError::KeyNotFound) => self.refused = self.refused.saturating_sub(1),
                Err(source) => return Err(LoadError::Map { name: "SERVICES", source }),
            }
        }
        Ok(())
    }

    /// Services that the kernel map had no room for.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Lets the kernel side announce the next table change. Call right before the table is read.
    pub fn rearm_trigger(&mut self) -> Result<(), LoadError> {
        self.announced.set(0, 0, 0).map_err(|source| LoadError::Map { name: "ANNOUNCED", source })
    }

    fn write(&mut self, words: &BTreeSet<u32>) -> Result<(), LoadError> {
        for &word in words {
            let value = self.bitmap.words().get(word as usize).copied().unwrap_or(0);
            self.ports.set(word, value, 0).map_err(|source| LoadError::Map { name: "PORTS", source })?;
        }
        Ok(())
    }
}
