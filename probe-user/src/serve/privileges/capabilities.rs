//! Capabilities: all sets of the calling thread.

use std::io;
use std::os::fd::BorrowedFd;

use aya::maps::{Map, MapData, PerCpuArray};
use caps::{CapSet, CapsHashSet};

use super::{PrivilegesError, in_thread};

/// Leaves only `kept`, as far as it is there, in the permitted and the effective set, and nothing in the others. Returns
/// what is left.
pub(super) fn keep_only(kept: &CapsHashSet, notes: &mut Vec<String>) -> Result<CapsHashSet, PrivilegesError> {
    let failed = |set| {
        move |error: caps::errors::CapsError| PrivilegesError::Capabilities { set, reason: error.to_string() }
    };
    // Ambient capabilities exist wherever there is a BPF ring buffer.
    caps::clear(None, CapSet::Ambient).map_err(failed("ambient"))?;
    // The bounding set only limits what a program that is executed could gain, which no_new_privs does already.
    let bounded = caps::read(None, CapSet::Bounding).map_err(failed("bounding"))?;
    let may =
        caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).map_err(failed("effective"))?;
    if may {
        for capability in bounded {
            caps::drop(None, CapSet::Bounding, capability).map_err(failed("bounding"))?;
        }
    } else if !bounded.is_empty() {
        notes.push(
            "the bounding set is left as it was (emptying it needs CAP_SETPCAP); with no_new_privs nothing can be \
             gained from it"
                .to_owned(),
        );
    }
    caps::clear(None, CapSet::Inheritable).map_err(failed("inheritable"))?;
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed("permitted"))?;
    let left: CapsHashSet = permitted.intersection(kept).copied().collect();
    caps::set(None, CapSet::Effective, &left).map_err(failed("effective"))?;
    caps::set(None, CapSet::Permitted, &left).map_err(failed("permitted"))?;
    Ok(left)
}

/// Whether a look-up in a map is refused without capabilities. Tried, in a thread that has none, because distributions
/// port back: before 6.0 `kernel.unprivileged_bpf_disabled` forbids every command of bpf(2), since then
/// (c8644cd0efe7) only those that make something new.
pub(super) fn maps_need_one(map: BorrowedFd<'_>) -> Result<bool, PrivilegesError> {
    let look_up_with_nothing = || {
        keep_only(&CapsHashSet::new(), &mut Vec::new())?;
        Ok(look_up(map).is_err())
    };
    // It fails as well where nothing would help; then nothing is kept.
    Ok(in_thread(look_up_with_nothing)? && look_up(map).is_ok())
}

/// Reads the first value of a per-CPU array of 64-bit numbers, such as the programs' counters.
fn look_up(map: BorrowedFd<'_>) -> io::Result<()> {
    let data = MapData::from_fd(map.try_clone_to_owned()?).map_err(io::Error::other)?;
    let map = Map::PerCpuArray(data);
    let array = PerCpuArray::<_, u64>::try_from(&map).map_err(io::Error::other)?;
    array.get(&0, 0).map(drop).map_err(io::Error::other)
}

/// For a thread that needs none: gives up all capabilities.
pub fn renounce() -> Result<(), PrivilegesError> {
    keep_only(&CapsHashSet::new(), &mut Vec::new()).map(drop)
}

/// For a child between fork and exec: it keeps no capability, and cannot get any by executing a program. Calls only
/// system calls, and allocates nothing.
pub fn renounce_in_child() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    let quiet = |_| io::Error::from_raw_os_error(libc::EPERM);
    caps::clear(None, CapSet::Ambient).map_err(quiet)?;
    caps::clear(None, CapSet::Effective).map_err(quiet)?;
    caps::clear(None, CapSet::Permitted).map_err(quiet)?;
    caps::clear(None, CapSet::Inheritable).map_err(quiet)
}
