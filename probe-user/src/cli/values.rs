//! Values of options: times, sizes, yes or no.

use std::time::Duration;

/// `30`, `30s`, `10m`, `2h`, `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let wrong = || format!("\"{text}\" is not a time; write it like 500ms, 30s, 10m or 2h");
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let milliseconds = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(milliseconds) {
        Some(0) | None => Err(wrong()),
        Some(total) => Ok(Duration::from_millis(total)),
    }
}

/// A time that may be absent: `0`, `0s`, `off`, `none` and `false` are no time at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MaybeTime(pub(super) Option<Duration>);

/// A time, or `none`.
pub(super) fn duration_or_none(text: &str) -> Result<MaybeTime, String> {
    if matches!(text, "0" | "0s" | "off" | "none" | "false") {
        return Ok(MaybeTime(None));
    }
    duration(text).map(|time| MaybeTime(Some(time))).map_err(|wrong| format!("{wrong}, or none"))
}

/// A time of at least a second, or `none`.
pub(super) fn seconds_or_none(text: &str) -> Result<MaybeTime, String> {
    match duration_or_none(text)? {
        MaybeTime(Some(time)) if time < Duration::from_secs(1) => Err("at least 1s, or none".to_owned()),
        time => Ok(time),
    }
}

/// `4096`, `500K`, `10M`, `1G`, in powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a size; write it like 500K, 10M or 1G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return Err(wrong()),
    };
    match number.checked_mul(1 << shift) {
        Some(0) | None => Err(wrong()),
        Some(bytes) => Ok(bytes),
    }
}

/// How many pods get a label of their own: a number, true for the usual one, false for none.
pub(super) fn pods(text: &str) -> Result<usize, String> {
    match text {
        "true" => Ok(100),
        "false" | "none" => Ok(0),
        _ => text.parse().ok().filter(|number| *number <= 10_000).ok_or_else(|| "0 to 10000 pods".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_unit() {
        assert_eq!(duration("30").unwrap(), Duration::from_secs(30));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("2h").unwrap(), Duration::from_hours(2));
        for wrong in ["", "0", "s", "1d", "-1s", "18446744073709551615h", "1 s"] {
            assert!(duration(wrong).unwrap_err().contains("30s"), "{wrong}");
        }
    }

    #[test]
    fn a_time_may_be_absent_where_that_means_something() {
        for none in ["0", "0s", "off", "none", "false"] {
            assert_eq!(duration_or_none(none).unwrap(), MaybeTime(None));
        }
        assert_eq!(duration_or_none("5m").unwrap(), MaybeTime(Some(Duration::from_mins(5))));
        assert!(duration_or_none("never").unwrap_err().ends_with("or none"));
        assert_eq!(seconds_or_none("0s").unwrap(), MaybeTime(None));
        assert_eq!(seconds_or_none("1s").unwrap(), MaybeTime(Some(Duration::from_secs(1))));
        assert!(seconds_or_none("999ms").unwrap_err().contains("1s"));
    }

    #[test]
    fn sizes_are_read_with_and_without_unit() {
        assert_eq!(size("4096").unwrap(), 4096);
        assert_eq!(size("10M").unwrap(), 10 << 20);
        for wrong in ["", "0", "M", "-1", "1T", "1 M", "18446744073709551615G"] {
            assert!(size(wrong).unwrap_err().contains("10M"), "{wrong}");
        }
    }
}
