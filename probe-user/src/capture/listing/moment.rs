//! The time of a listed packet: each program has several ways to print it, and most leave something out.

use jiff::civil::DateTime;

use crate::observation::Nanos;

const SECOND: Nanos = 1_000_000_000;
const DAY: Nanos = 86_400 * SECOND;
/// Seconds before 2001: what is smaller counts from the beginning of a capture.
const EARLIEST_EPOCH: Nanos = 978_307_200 * SECOND;

/// When a packet was captured, as far as its listing says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListedTime {
    /// Nanoseconds since the Unix epoch.
    Full(Nanos),
    /// Date and time of a zone that the listing does not name: nanoseconds since the Unix epoch, if the zone were UTC.
    /// The true time is this minus the zone's offset.
    Local(Nanos),
    /// Time of day, of a zone that the listing does not name: nanoseconds since midnight of the first packet's day.
    TimeOfDay(Nanos),
    /// Nanoseconds since the first packet.
    Relative(Nanos),
    /// The listing has no times.
    Unknown,
}

/// A stamp, as it is printed in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    Epoch(Nanos),
    Local(Nanos),
    Clock(Nanos),
    /// Seconds since the first packet, or since the one before.
    Seconds(Nanos),
}

/// `12.345678` as nanoseconds.
pub(super) fn seconds(text: &str) -> Option<Nanos> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 || whole.len() > 10 {
        return None;
    }
    let nanos: Nanos = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<Nanos>().ok()?.checked_mul(SECOND)?.checked_add(nanos)
}

/// `19:09:02.533940` as nanoseconds since midnight. The fraction must be there: other programs print times too.
pub(super) fn clock(text: &str) -> Option<Nanos> {
    let mut parts = text.splitn(3, ':');
    let mut two_digits = |limit: Nanos| {
        let part = parts.next().filter(|part| part.len() == 2)?;
        part.parse::<u8>().ok().map(Nanos::from).filter(|number| *number < limit)
    };
    let (hours, minutes) = (two_digits(24)?, two_digits(60)?);
    let rest = parts.next()?;
    if rest.as_bytes().get(2) != Some(&b'.') {
        return None;
    }
    // A leap second is read as the beginning of the next minute.
    let within = seconds(rest).filter(|within| *within < 61 * SECOND)?;
    Some((hours * 60 + minutes) * 60 * SECOND + within)
}

/// `2022-09-15` and a time of day as one number, as if the zone were UTC.
pub(super) fn local(date: &str, nanos_of_day: Nanos) -> Option<Nanos> {
    let well_formed = date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let date: jiff::civil::Date = date.get(..10).filter(|_| well_formed)?.parse().ok()?;
    as_if_utc(date.to_datetime(jiff::civil::Time::midnight()))?.checked_add(nanos_of_day)
}

pub(super) fn as_if_utc(time: DateTime) -> Option<Nanos> {
    let timestamp = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?;
    Nanos::try_from(timestamp.as_nanosecond()).ok()
}

/// Takes a stamp from the beginning of a line and returns what follows it.
pub(super) fn take(line: &str) -> Option<(Stamp, &str)> {
    let line = line.trim_start();
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    if let Some(nanos) = clock(word) {
        return Some((Stamp::Clock(nanos), rest));
    }
    if let Some(nanos) = seconds(word).filter(|_| word.contains('.')) {
        let stamp = if nanos >= EARLIEST_EPOCH { Stamp::Epoch(nanos) } else { Stamp::Seconds(nanos) };
        return Some((stamp, rest));
    }
    // One word, as `tshark -t ud` of later versions and people's scripts print it.
    if let Some((date, time)) = word.split_once('T') {
        let utc = time.strip_suffix('Z');
        let nanos = local(date, clock(utc.unwrap_or(time))?)?;
        return Some((if utc.is_some() { Stamp::Epoch(nanos) } else { Stamp::Local(nanos) }, rest));
    }
    let (time, after) = rest.trim_start().split_once([' ', '\t'])?;
    let utc = time.strip_suffix('Z');
    let nanos = local(word, clock(utc.unwrap_or(time))?)?;
    Some((if utc.is_some() { Stamp::Epoch(nanos) } else { Stamp::Local(nanos) }, after))
}

/// Follows the stamps of one listing.
#[derive(Debug, Default)]
pub(super) struct Clock {
    days: Nanos,
    last: Nanos,
}

impl Clock {
    pub(super) fn time(&mut self, stamp: Option<Stamp>) -> ListedTime {
        match stamp {
            None => ListedTime::Unknown,
            Some(Stamp::Epoch(at)) => ListedTime::Full(at),
            Some(Stamp::Local(at)) => ListedTime::Local(at),
            Some(Stamp::Seconds(at)) => ListedTime::Relative(at),
            Some(Stamp::Clock(at)) => {
                // Packets are not always in order, but never half a day out of it.
                if self.last.saturating_sub(at) > DAY / 2 {
                    self.days = self.days.saturating_add(DAY);
                    self.last = at;
                } else if at.saturating_sub(self.last) <= DAY / 2 || self.days == 0 {
                    self.last = at;
                } else {
                    return ListedTime::TimeOfDay(self.days.saturating_add(at).saturating_sub(DAY));
                }
                ListedTime::TimeOfDay(self.days.saturating_add(at))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Nanos = 1_663_268_942_533_940_000;

    #[test]
    fn every_stamp() {
        for (text, stamp) in [
            ("19:09:02.533940 IP x", Stamp::Clock(68_942_533_940_000)),
            ("1663268942.533940 IP x", Stamp::Epoch(AT)),
            ("1663268942.533940000 IP x", Stamp::Epoch(AT)),
            ("2022-09-15 19:09:02.533940 IP x", Stamp::Local(AT)),
            ("2022-09-15T19:09:02.533940 IP x", Stamp::Local(AT)),
            ("2022-09-15 19:09:02.533940Z IP x", Stamp::Epoch(AT)),
            (" 0.000241 IP x", Stamp::Seconds(241_000)),
        ] {
            assert_eq!(take(text), Some((stamp, "IP x")), "{text}");
        }
        for text in
            ["", "IP 10.0.0.1", "19:09:02 IP", "25:00:00.1 IP", "2022-13-15 19:09:02.5 IP", "1.2.3.4 IP"]
        {
            assert_eq!(take(text), None, "{text}");
        }
    }

    #[test]
    fn midnight_begins_a_new_day_and_stragglers_stay_in_the_old_one() {
        let mut clock = Clock::default();
        let mut at = |text: &str| match clock.time(take(text).map(|(stamp, _)| stamp)) {
            ListedTime::TimeOfDay(at) => at / SECOND,
            other => panic!("{other:?}"),
        };
        let seen = ["23:59:59.5 ", "00:00:00.5 ", "23:59:59.9 ", "00:00:01.0 "].map(&mut at);
        assert_eq!(seen, [86_399, 86_400, 86_399, 86_401]);
    }
}
