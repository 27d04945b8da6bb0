//! The service ports that the kernel side looks for now, read from its map.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, Map, MapData, loaded_maps};

use crate::lab::wait_until;

/// Two readings of a large table on a slow machine, and the rest between them.
const NOTICED: Duration = Duration::from_mins(1);

/// Waits until a change of the service table has reached the kernel side: all of these ports are looked for, or none. The
/// port of a service comes last when it is added, and goes last when it is removed.
pub fn wait_until_watched(ports: &RangeInclusive<u16>, wanted: bool) -> Result<()> {
    let not = if wanted { "" } else { "not " };
    let what = format!("ports {} to {} are {not}looked for", ports.start(), ports.end());
    let bitmap = port_bitmap()?;
    wait_until(&what, NOTICED, || {
        for port in ports.clone() {
            if is_set(&bitmap, port)? != wanted {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// The bitmap of the one tracer that runs: port p is bit p % 64 of word p / 64.
fn port_bitmap() -> Result<Array<MapData, u64>> {
    let mut found = Vec::new();
    for map in loaded_maps() {
        let map = map?;
        if map.name_as_str() == Some("PORTS") {
            found.push(map.id());
        }
    }
    let [id] = found[..] else { bail!("{} tracers run", found.len()) };
    let map = Map::from_map_data(MapData::from_id(id)?)?;
    Array::try_from(map).context("PORTS is no array of words")
}

fn is_set(bitmap: &Array<MapData, u64>, port: u16) -> Result<bool> {
    let word = bitmap.get(&u32::from(port / 64), 0)?;
    Ok(word >> (port % 64) & 1 == 1)
}
