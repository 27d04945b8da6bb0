//! Which probe a connect of kubelet is. Pure: index, connect and earlier connects in, a match or several out.

use std::net::SocketAddr;

use super::index::{Candidate, PodIndex};
use super::kubelet::IsKubelet;
use super::targets::TargetBy;
use super::update::PodSourceKind;
use crate::diagnosis::incident::Confidence;
use crate::observation::Nanos;

const SECOND: Nanos = 1_000_000_000;
/// kubelet gives a connect up this close to the probe's timeout; a loaded node is late rather than early.
const TIMEOUT_EARLY_NS: Nanos = 50_000_000;
const TIMEOUT_LATE_NS: Nanos = 400_000_000;
/// A probe comes this close to its period after the one before (kubelet's prober worker uses a ticker).
const RHYTHM_NS: Nanos = 150_000_000;
/// Periods that are looked back.
const PERIODS: i64 = 6;

/// A connect whose probe is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    /// Where it goes.
    pub remote: SocketAddr,
    /// When its first SYN was sent.
    pub at: Nanos,
    /// How long after that its process gave it up; `None` if it did not, or that is not known.
    pub given_up_after: Option<Nanos>,
}

/// What was found.
#[derive(Debug)]
pub enum ProbeMatch<'a> {
    /// This probe.
    One {
        /// The probe.
        found: Candidate<'a>,
        /// How sure that is.
        confidence: Confidence,
        /// Why it is not proven; `None` if it is.
        doubt: Option<&'static str>,
    },
    /// One of these; nothing tells them apart.
    Ambiguous(Vec<Candidate<'a>>),
    /// No known probe goes there, or no kubelet connected.
    None,
}

/// Finds the probe. `earlier`: when kubelet connected to the same address before, as far as that was seen.
pub fn match_probe<'a>(
    index: &'a PodIndex,
    connect: Connect,
    kubelet: &IsKubelet,
    earlier: &[Nanos],
) -> ProbeMatch<'a> {
    if *kubelet == IsKubelet::No {
        return ProbeMatch::None;
    }
    let all: Vec<Candidate<'a>> = index.candidates(connect.remote, connect.at).collect();
    let several = all.len() > 1;
    let left = narrow(all, |found| timeout_fits(found, connect.given_up_after) == Some(true));
    let left = narrow(left, |found| rhythm_fits(found, connect.at, earlier));
    match left.as_slice() {
        [] => ProbeMatch::None,
        [found] => {
            let doubt = doubt(index, found, connect, kubelet, several);
            let confidence = doubt.map_or(Confidence::Proven, |(confidence, _)| confidence);
            ProbeMatch::One { found: *found, confidence, doubt: doubt.map(|(_, why)| why) }
        }
        _ => ProbeMatch::Ambiguous(left),
    }
}

/// Those that fit, or all if none does: a sign that fits nobody says nothing.
fn narrow<'a>(all: Vec<Candidate<'a>>, fits: impl Fn(&Candidate<'a>) -> bool) -> Vec<Candidate<'a>> {
    if all.len() < 2 || !all.iter().any(&fits) {
        return all;
    }
    all.into_iter().filter(fits).collect()
}

/// Whether the connect was given up when this probe's time was over; `None` if that is not known.
fn timeout_fits(found: &Candidate<'_>, given_up_after: Option<Nanos>) -> Option<bool> {
    let beyond = given_up_after? - Nanos::from(found.probe.timeout_s) * SECOND;
    Some((-TIMEOUT_EARLY_NS..=TIMEOUT_LATE_NS).contains(&beyond))
}

/// Whether an earlier connect came a whole number of this probe's periods before.
fn rhythm_fits(found: &Candidate<'_>, at: Nanos, earlier: &[Nanos]) -> bool {
    let period = Nanos::from(found.probe.period_s.max(1)) * SECOND;
    earlier.iter().map(|before| at - before).any(|gap| {
        let periods = (gap + period / 2) / period;
        (1..=PERIODS).contains(&periods) && (gap - periods * period).abs() <= RHYTHM_NS
    })
}

fn doubt(
    index: &PodIndex,
    found: &Candidate<'_>,
    connect: Connect,
    kubelet: &IsKubelet,
    several: bool,
) -> Option<(Confidence, &'static str)> {
    let stale = index.sources().get(found.known.source).is_none_or(|state| state.is_stale(connect.at));
    if *kubelet == IsKubelet::Unknown {
        return Some((Confidence::Possible, "whether kubelet made this connect is not known"));
    }
    if found.by == TargetBy::OtherPodAddress {
        return Some((Confidence::Possible, "kubelet uses the pod's first address, this is another"));
    }
    if stale {
        return Some((Confidence::Possible, "the pod list is old"));
    }
    if several {
        return Some((Confidence::Likely, "told from the other probes of this address by timeout or period"));
    }
    if timeout_fits(found, connect.given_up_after) == Some(false) {
        return Some((Confidence::Likely, "it was not given up when the probe's time was over"));
    }
    if found.known.source == PodSourceKind::File {
        return Some((Confidence::Likely, "the pod list is a file"));
    }
    None
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
