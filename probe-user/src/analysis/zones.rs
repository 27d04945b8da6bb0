//! Logs without a time zone: a kubelet writes local time, a capture has UTC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::ipvs::table::canonical;
use crate::kubelet_log::ProbeFailure;
use crate::observation::Nanos;

const SECOND: Nanos = 1_000_000_000;
/// Time zones differ by multiples of this.
pub(super) const STEP: Nanos = 900 * SECOND;
/// The widest that two zones differ: UTC-12 and UTC+14.
pub(super) const WIDEST: Nanos = 26 * 3600 * SECOND;
/// A probe fails as much later than its connect began: timeouts of 1 s to 10 s, and what a busy node adds.
const FAILS_AFTER: (Nanos, Nanos) = (SECOND / 2, 11 * SECOND);

/// How far the log of a file is ahead of the packets, for files that fit them in no other way: no line is about a connect
/// as the times stand, and with one whole-zone difference some are.
pub(super) fn differences(
    failures: &[ProbeFailure],
    connects: &[(SocketAddr, Nanos)],
) -> BTreeMap<Arc<str>, Nanos> {
    let mut begun: BTreeMap<SocketAddr, Vec<Nanos>> = BTreeMap::new();
    for (remote, at) in connects {
        begun.entry(canonical(*remote)).or_default().push(*at);
    }
    let mut fits: BTreeMap<Arc<str>, BTreeMap<Nanos, usize>> = BTreeMap::new();
    for failure in failures {
        let (Some(at), Some(target)) = (failure.at, failure.target) else { continue };
        for start in begun.get(&canonical(target)).into_iter().flatten() {
            let later = at.saturating_sub(*start);
            let zone = (later - FAILS_AFTER.0).div_euclid(STEP) * STEP;
            let fit = (FAILS_AFTER.0..=FAILS_AFTER.1).contains(&(later - zone)) && zone.abs() <= WIDEST;
            if fit {
                *fits.entry(Arc::clone(&failure.file)).or_default().entry(zone).or_default() += 1;
            }
        }
    }
    fits.into_iter().filter_map(|(file, zones)| Some((file, only(&zones)?))).collect()
}

/// The difference that most lines fit, if it is none of no difference and none of two alike.
fn only(zones: &BTreeMap<Nanos, usize>) -> Option<Nanos> {
    if zones.contains_key(&0) {
        return None;
    }
    let most = zones.values().max()?;
    let mut best = zones.iter().filter(|(_, count)| *count == most);
    match (best.next(), best.next()) {
        (Some((zone, _)), None) => Some(*zone),
        _ => None,
    }
}

/// `8:00 h ahead of`
pub(super) fn difference(ahead: Nanos) -> String {
    let (hours, minutes) = (ahead.abs() / (3600 * SECOND), ahead.abs() / (60 * SECOND) % 60);
    let how = if ahead > 0 { "ahead of" } else { "behind" };
    format!("{hours}:{minutes:02} h {how}")
}

/// `kubelet.log is 8:00 h ahead of the packets, as if of another time zone`
pub(super) fn sentence(file: &str, ahead: Nanos) -> String {
    let difference = difference(ahead);
    format!(
        "{file} is {difference} the packets: it has no time zone, and with this difference, a time zone's, its lines \
         fit them"
    )
}
