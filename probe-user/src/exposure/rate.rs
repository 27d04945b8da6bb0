//! How often it will happen: a rate with the uncertainty of its count.

/// How long a closed connection stays in TIME-WAIT, seconds (TCP_TIMEWAIT_LEN, include/net/tcp.h; not adjustable).
pub const TIME_WAIT_S: f64 = 60.0;
/// Quantile of the normal distribution for 95 % between both ends.
const Z_95: f64 = 1.959_963_985;

/// A value with the range in which it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Best value.
    pub value: f64,
    /// Low end.
    pub low: f64,
    /// High end.
    pub high: f64,
}

impl Estimate {
    /// Nothing happens.
    pub const ZERO: Self = Self { value: 0.0, low: 0.0, high: 0.0 };

    /// Rate per second behind `count` events in `seconds`; the range is where the true rate lies with 95 %
    /// probability if the events are independent (exact interval of a Poisson count, by Byar's approximation).
    pub fn of_count(count: u64, seconds: f64) -> Self {
        #[expect(clippy::cast_precision_loss)] // counts of sockets are far below 2^52
        let n = count as f64;
        let byar = |n: f64, sign: f64| {
            let root = 1.0 - 1.0 / (9.0 * n) + sign * Z_95 / (3.0 * n.sqrt());
            n * root.max(0.0).powi(3)
        };
        let low = if count == 0 { 0.0 } else { byar(n, -1.0) };
        let high = byar(n + 1.0, 1.0);
        Self { value: n / seconds, low: low / seconds, high: high / seconds }
    }

    /// Scaled by a factor that is exact.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { value: self.value * factor, low: self.low * factor, high: self.high * factor }
    }

    /// Both together; the ends are added, which is wider than independent errors would be.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { value: self.value + other.value, low: self.low + other.low, high: self.high + other.high }
    }
}

/// Mean seconds until the first of events that come at `per_hour`; `None` if they never come.
pub fn mean_seconds(per_hour: f64) -> Option<f64> {
    (per_hour > 0.0).then(|| 3600.0 / per_hour)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 0.01 * b.abs()
    }

    #[test]
    fn the_seeds_node_fails_once_in_5_4_minutes() {
        let rate = Estimate::of_count(849, TIME_WAIT_S);
        assert!(near(rate.value, 14.15));
        let failures = rate.times(7.0 / 31_988.0 * 3600.0);
        assert!(near(mean_seconds(failures.value).unwrap() / 60.0, 5.383), "{failures:?}");
        assert!(failures.low < failures.value && failures.value < failures.high);
    }

    /// Tables of the exact (Garwood) interval: 0 -> 0 to 3.689, 10 -> 4.795 to 18.39, 100 -> 81.36 to 121.63.
    #[test]
    fn the_interval_is_the_one_in_tables() {
        for (count, low, high) in [(10, 4.795, 18.39), (100, 81.36, 121.63)] {
            let estimate = Estimate::of_count(count, 1.0);
            assert!(near(estimate.low, low) && near(estimate.high, high), "{estimate:?}");
        }
        let none = Estimate::of_count(0, 1.0);
        assert!(none.low.abs() < 1e-12 && (3.3..3.8).contains(&none.high), "{none:?}");
        assert_eq!(mean_seconds(none.value), None);
    }
}
