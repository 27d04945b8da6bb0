//! The time of a klog line: local, and without a year.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::klog::Stamp;
use crate::observation::Nanos;

/// A line can be this much younger than the reference: a file's time is that of the last write, and the zone can be
/// wrong by 14 hours.
const SLACK_NS: Nanos = 24 * 3_600_000_000_000;
/// February 29 is at most this many years away.
const LEAP_YEARS: i16 = 8;

/// How a klog time becomes an absolute one.
#[derive(Clone, Debug)]
pub struct Times {
    /// Zone of the node. `None`: UTC is assumed, and lines whose time depends on it are counted.
    pub zone: Option<TimeZone>,
    /// Where the year comes from.
    pub year: YearRule,
}

/// Where the year of a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum YearRule {
    /// The latest year that puts the line not after this moment: now, or when the file was last written.
    NotAfter(Nanos),
    /// The first line is of this year; each step from December to January begins a new one.
    From(i16),
}

/// Follows the year through a file.
#[derive(Clone, Debug)]
pub(super) struct YearClock {
    times: Times,
    year: i16,
    month: Option<i8>,
}

impl YearClock {
    pub(super) fn new(times: Times) -> Self {
        let year = match times.year {
            YearRule::From(year) => year,
            YearRule::NotAfter(_) => 0,
        };
        Self { times, year, month: None }
    }

    pub(super) fn zone_is_assumed(&self) -> bool {
        self.times.zone.is_none()
    }

    /// A later reference: the file was written again.
    pub(super) fn not_after(&mut self, at: Nanos) {
        if let YearRule::NotAfter(known) = &mut self.times.year {
            *known = at;
        }
    }

    pub(super) fn absolute(&mut self, stamp: Stamp) -> Option<Nanos> {
        match self.times.year {
            YearRule::From(_) => {
                let year = self.roll(stamp.month);
                self.in_year(stamp, year)
            }
            YearRule::NotAfter(reference) => self.latest(stamp, reference),
        }
    }

    /// The year of a line of this month. Lines of December after one of January are stragglers of the old year.
    fn roll(&mut self, month: i8) -> i16 {
        let step = month - self.month.unwrap_or(month);
        if step > 6 {
            return self.year.saturating_sub(1);
        }
        if step < -6 {
            self.year = self.year.saturating_add(1);
        }
        self.month = Some(month);
        self.year
    }

    fn latest(&self, stamp: Stamp, reference: Nanos) -> Option<Nanos> {
        let limit = reference.saturating_add(SLACK_NS);
        let latest = jiff::Timestamp::from_nanosecond(limit.into()).ok()?;
        let latest = self.zone().to_datetime(latest).year();
        (0..=LEAP_YEARS)
            .filter_map(|back| self.in_year(stamp, latest.checked_sub(back)?))
            .find(|at| *at <= limit)
    }

    fn zone(&self) -> TimeZone {
        self.times.zone.clone().unwrap_or(TimeZone::UTC)
    }

    fn in_year(&self, stamp: Stamp, year: i16) -> Option<Nanos> {
        let date = Date::new(year, stamp.month, stamp.day).ok()?;
        // A leap second is the last one of its minute.
        let time = date.to_datetime(
            jiff::civil::Time::new(
                stamp.hour,
                stamp.minute,
                stamp.second.min(59),
                stamp.micros.checked_mul(1000)?,
            )
            .ok()?,
        );
        nanos(time, &self.zone())
    }
}

fn nanos(time: DateTime, zone: &TimeZone) -> Option<Nanos> {
    let timestamp = zone.to_ambiguous_timestamp(time).compatible().ok()?;
    Nanos::try_from(timestamp.as_nanosecond()).ok()
}

/// A wrapping's time in whole seconds, made exact by klog's: they differ by the zone, which is a multiple of 15 minutes.
pub(super) fn sharpened(at: Nanos, stamp: Stamp) -> Nanos {
    const SECOND: Nanos = 1_000_000_000;
    const QUARTER: Nanos = 900 * SECOND;
    if at % SECOND != 0 {
        return at;
    }
    let seconds = Nanos::from(stamp.minute) * 60 + Nanos::from(stamp.second);
    let within = seconds * SECOND + Nanos::from(stamp.micros) * 1000;
    let ahead = within.saturating_sub(at).rem_euclid(QUARTER);
    let distance = if ahead > QUARTER / 2 { ahead - QUARTER } else { ahead };
    // What is further away is not the same moment.
    if distance.abs() <= 2 * SECOND { at.saturating_add(distance) } else { at }
}

/// RFC 3339, with any offset.
pub(super) fn rfc3339(text: &str) -> Option<Nanos> {
    // Longer is no time, and the parser need not look at it.
    if text.len() > 40 {
        return None;
    }
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    Nanos::try_from(timestamp.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::time::rfc3339 as shown;

    fn stamp(month: i8, day: i8) -> Stamp {
        Stamp { month, day, hour: 19, minute: 40, second: 49, micros: 924_011 }
    }

    fn read(year: YearRule, dates: &[(i8, i8)]) -> Vec<String> {
        let mut clock = YearClock::new(Times { zone: None, year });
        dates
            .iter()
            .map(|(m, d)| {
                clock.absolute(stamp(*m, *d)).map_or("-".to_owned(), |at| shown(at)[..10].to_owned())
            })
            .collect()
    }

    /// fluent/fluent-bit#1589, kubermatic/kubermatic#4033
    #[test]
    fn the_year_is_the_latest_that_is_not_after_the_reference() {
        let reference = rfc3339("2023-01-02T00:00:00Z").unwrap();
        assert_eq!(
            read(
                YearRule::NotAfter(reference),
                &[(12, 31), (1, 1), (1, 2), (9, 19), (1, 5), (2, 29), (2, 30)]
            ),
            ["2022-12-31", "2023-01-01", "2023-01-02", "2022-09-19", "2022-01-05", "2020-02-29", "-"]
        );
    }

    #[test]
    fn a_line_of_the_new_year_may_be_a_little_younger_than_its_file() {
        let reference = rfc3339("2022-12-31T23:59:59Z").unwrap();
        assert_eq!(read(YearRule::NotAfter(reference), &[(1, 2), (12, 31)]), ["2022-01-02", "2022-12-31"]);
        let mut clock = YearClock::new(Times { zone: None, year: YearRule::NotAfter(reference) });
        let at = clock.absolute(Stamp { hour: 0, ..stamp(1, 1) }).unwrap();
        assert_eq!(shown(at), "2023-01-01T00:40:49.924011000Z");
    }

    /// fluent/fluent-bit#1589
    #[test]
    fn a_given_year_rolls_over_from_december_to_january() {
        let dates = [(11, 30), (12, 31), (1, 1), (12, 31), (1, 1), (3, 1), (12, 31), (1, 1)];
        assert_eq!(
            read(YearRule::From(2021), &dates),
            [
                "2021-11-30",
                "2021-12-31",
                "2022-01-01",
                "2021-12-31",
                "2022-01-01",
                "2022-03-01",
                "2021-12-31",
                "2022-01-01"
            ],
            "a step of more than half a year forward is a straggler"
        );
    }

    #[test]
    fn times_are_local_in_the_zone_that_is_given() {
        let zone = Some(TimeZone::fixed(jiff::tz::offset(2)));
        let mut clock = YearClock::new(Times { zone, year: YearRule::From(2022) });
        assert_eq!(shown(clock.absolute(stamp(9, 15)).unwrap()), "2022-09-15T17:40:49.924011000Z");
    }

    #[test]
    fn whole_seconds_are_made_exact_whatever_the_zone() {
        let exact = |wrapped: &str| shown(sharpened(rfc3339(wrapped).unwrap(), stamp(9, 15)));
        assert_eq!(exact("2022-09-15T17:40:50Z"), "2022-09-15T17:40:49.924011000Z");
        assert_eq!(exact("2022-09-15T14:10:49Z"), "2022-09-15T14:10:49.924011000Z", "India");
        assert_eq!(exact("2022-09-15T19:40:59Z"), "2022-09-15T19:40:59.000000000Z", "another moment");
        assert_eq!(exact("2022-09-15T19:40:49.5Z"), "2022-09-15T19:40:49.500000000Z");
    }

    #[test]
    fn impossible_times_are_none() {
        let mut clock = YearClock::new(Times { zone: None, year: YearRule::From(2022) });
        assert_eq!(clock.absolute(Stamp { hour: 25, ..stamp(9, 15) }), None);
        assert_eq!(clock.absolute(stamp(13, 1)), None);
        let mut clock = YearClock::new(Times { zone: None, year: YearRule::From(i16::MAX) });
        assert_eq!(clock.absolute(stamp(9, 15)), None);
    }

    #[test]
    fn offsets_of_container_runtimes() {
        assert_eq!(rfc3339("2019-03-08T06:31:46.679082406-05:00"), rfc3339("2019-03-08T11:31:46.679082406Z"));
        assert!(rfc3339("2019-03-08T11:31:46.679082406Z").is_some());
        assert_eq!(rfc3339("2019-03-08"), None);
    }
}
