//! Times as the contract writes them: RFC 3339, UTC, nine digits of the second.

use crate::observation::Nanos;

/// `2022-09-15T19:09:02.533940000Z`
pub fn rfc3339(at: Nanos) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(at)) {
        Ok(timestamp) => format!("{timestamp:.9}"),
        // Not reachable: every i64 of nanoseconds lies within jiff's years -9999 to 9999.
        Err(_) => format!("{at} ns since 1970"),
    }
}

/// Whole milliseconds between two times, never negative.
pub(super) fn millis_between(from: Nanos, to: Nanos) -> u64 {
    u64::try_from(to.saturating_sub(from).max(0) / 1_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_digits_even_where_they_are_zero() {
        assert_eq!(rfc3339(1_663_268_942_533_940_000), "2022-09-15T19:09:02.533940000Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(i64::MAX), "2262-04-11T23:47:16.854775807Z");
    }

    #[test]
    fn a_duration_is_never_negative() {
        assert_eq!(millis_between(5_000_000, 7_999_999), 2);
        assert_eq!(millis_between(7, 5), 0);
        assert_eq!(millis_between(i64::MIN, i64::MAX), 9_223_372_036_854);
    }
}
