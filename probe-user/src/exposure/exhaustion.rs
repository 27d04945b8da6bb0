//! When ports run out.

use super::rate::TIME_WAIT_S;

/// What a rate of connects comes to where all take from the same ports: those to one address and port, or of programs
/// that bind() to port 0 before they connect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Ports that are taken in the steady state, each for TIME-WAIT's 60 s.
    pub steady: f64,
    /// Ports that there are.
    pub available: u32,
    /// Seconds from an empty range until it is used up; `None` = never.
    pub used_up_after_s: Option<f64>,
}

impl Prediction {
    /// `per_second` connects that are closed at once on this side, in `available` ports.
    pub fn new(per_second: f64, available: u32) -> Self {
        let steady = per_second * TIME_WAIT_S;
        let runs_out = steady > f64::from(available);
        let used_up_after_s = runs_out.then(|| f64::from(available) / per_second);
        Self { steady, available, used_up_after_s }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <https://github.com/kubernetes/kubernetes/pull/115143>: 100 pods, two containers, three probes, once a second.
    #[test]
    fn six_hundred_probes_a_second_need_more_ports_than_the_default_range_has() {
        let all = Prediction::new(100.0 * 2.0 * 3.0, 28_232);
        assert!((all.steady - 36_000.0).abs() < 1e-9);
        assert!((all.used_up_after_s.unwrap() - 47.05).abs() < 0.01);
        // Each container is a destination of its own: that limit is far away.
        let one = Prediction::new(3.0, 28_232);
        assert_eq!(one.used_up_after_s, None);
    }
}
