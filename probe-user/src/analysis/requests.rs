//! A probed server's own log of requests: where its rhythm is broken, a probe did not arrive.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::model::Moment;
use super::zones::{STEP, WIDEST, difference};
use crate::access_log::Request;
use crate::diagnosis::time::rfc3339;
use crate::observation::Nanos;

/// Where a request should have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Who did not ask.
    pub client: IpAddr,
    /// When it should have, by the log's clock.
    pub at: Nanos,
    /// The request before, and the one after.
    pub between: (u64, u64),
    /// Time between two requests otherwise.
    pub period: Nanos,
}

const SECOND: Nanos = 1_000_000_000;
/// The log has whole seconds, and a request is logged when it was answered.
const NEAR: Nanos = 1_500_000_000;
/// Requests of one client that show its rhythm.
const MIN_REQUESTS: usize = 4;

/// Gaps in the rhythm of kubelet's requests.
pub fn missing<'a>(requests: impl Iterator<Item = &'a Request>) -> Vec<Missing> {
    let mut by_client: BTreeMap<IpAddr, Vec<&Request>> = BTreeMap::new();
    for request in requests.filter(|request| request.kube_probe) {
        by_client.entry(request.client).or_default().push(request);
    }
    by_client.into_iter().flat_map(|(client, requests)| gaps(client, requests)).collect()
}

fn gaps(client: IpAddr, mut requests: Vec<&Request>) -> Vec<Missing> {
    requests.sort_by_key(|request| (request.at, request.line));
    if requests.len() < MIN_REQUESTS {
        return Vec::new();
    }
    let pairs = || requests.iter().zip(requests.iter().skip(1));
    let mut steps: Vec<Nanos> = pairs().map(|(one, next)| next.at - one.at).collect();
    steps.sort_unstable();
    let period = steps.get((steps.len() - 1) / 2).copied().unwrap_or_default();
    if period < SECOND {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (one, next) in pairs() {
        let count = (next.at - one.at + period / 2) / period;
        // A long pause is a restart, not a probe that was lost.
        if (2..=4).contains(&count) {
            found.extend((1..count).map(|n| Missing {
                client,
                at: one.at + n * period,
                between: (one.line, next.line),
                period,
            }));
        }
    }
    found
}

impl Missing {
    /// How far the log's clock is from that of the packets, if the request that is missing is the one that a connect at
    /// `at` was for.
    pub fn offset_from(&self, at: Nanos) -> Option<Nanos> {
        let distance = self.at - at;
        let zone = (distance + distance.signum() * STEP / 2) / STEP * STEP;
        ((distance - zone).abs() <= NEAR && zone.abs() <= WIDEST).then_some(zone)
    }

    /// For the timeline of the incident at `at`.
    pub fn moment(&self, input: &str, at: Nanos, offset: Nanos) -> Moment {
        let clock = match offset {
            0 => String::new(),
            ahead => {
                format!("; this log's clock is {} that of the packets, another time zone", difference(ahead))
            }
        };
        Moment {
            at: Some(at),
            source: format!("{input}, after line {}", self.between.0),
            text: format!(
                "the server logged no request of {} at {}, where its rhythm of {} s wants one{clock}",
                self.client,
                rfc3339(self.at).get(..19).unwrap_or_default().replace('T', " "),
                self.period / SECOND
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(seconds: &[Nanos]) -> Vec<Request> {
        let client = IpAddr::from([10, 23, 77, 129]);
        let request = |(line, at): (u64, &Nanos)| Request {
            client,
            at: at * SECOND,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            status: 200,
            kube_probe: true,
            line,
        };
        (1..).zip(seconds).map(request).collect()
    }

    #[test]
    fn a_broken_rhythm_shows_the_probe_that_did_not_arrive_in_whatever_zone() {
        let seen = requests(&[22, 32, 52, 62]);
        let missing = missing(seen.iter());
        let [one] = missing.as_slice() else { panic!("{missing:?}") };
        assert_eq!((one.at, one.period, one.between), (42 * SECOND, 10 * SECOND, (2, 3)));
        assert_eq!(one.offset_from(42 * SECOND + SECOND / 2), Some(0));
        assert_eq!(one.offset_from(42 * SECOND + 8 * 3600 * SECOND), Some(-8 * 3600 * SECOND));
        assert_eq!(one.offset_from(47 * SECOND), None);
    }

    #[test]
    fn a_steady_rhythm_and_a_pause_have_no_gaps() {
        assert_eq!(missing(requests(&[0, 10, 20, 30, 40]).iter()), []);
        assert_eq!(missing(requests(&[0, 10, 20, 900, 910]).iter()), []);
    }
}
