//! How long the ports towards a destination will last. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use super::model::Outlook;
use super::usage::Usage;

/// How long a socket stays in TIME-WAIT: `TCP_TIMEWAIT_LEN`, include/net/tcp.h.
pub const TIME_WAIT: Duration = Duration::from_secs(60);
/// Growth is measured over this time.
const WINDOW: Duration = Duration::from_secs(20);
/// And over no less.
const LEAST: Duration = Duration::from_millis(2500);

/// Usage of one destination over the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    /// When (since the beginning), and what was in use.
    seen: VecDeque<(Duration, Usage)>,
}

impl Trend {
    /// Adds what was read at a time.
    pub fn add(&mut self, at: Duration, usage: Usage) {
        self.seen.push_back((at, usage));
        while self.seen.len() > 2 && self.seen.get(1).is_some_and(|(second, _)| *second + WINDOW < at) {
            self.seen.pop_front();
        }
    }

    /// The latest usage.
    pub fn latest(&self) -> Option<Usage> {
        self.seen.back().map(|(_, usage)| *usage)
    }

    /// True if nothing has been in use for a while.
    pub fn is_empty(&self) -> bool {
        self.seen.iter().all(|(_, usage)| *usage == Usage::default())
    }

    /// How the ports will last, with so many usable, and connects per second now; with the seconds until none is left.
    pub fn outlook(&self, usable: Option<u64>, connects_per_second: f64) -> (Outlook, Option<f64>) {
        let (Some(usable), Some(now)) = (usable, self.seen.back()) else { return (Outlook::Unknown, None) };
        let free = usable.saturating_sub(now.1.taken);
        if free == 0 {
            return (Outlook::UsedUp, Some(0.0));
        }
        let before = self.seen.iter().find(|(at, _)| *at + WINDOW >= now.0).unwrap_or(now);
        let seconds = now.0.saturating_sub(before.0);
        if seconds < LEAST {
            return (Outlook::Unknown, None);
        }
        let growth = (count(now.1.taken) - count(before.1.taken)) / seconds.as_secs_f64();
        if growth <= 0.0 {
            return (Outlook::Lasts, None);
        }
        // What is closed is free again after 60 s: with connections that do not stay, the number levels out.
        let stays = now.1.open > before.1.open;
        let levels_out_at = count(now.1.open) + connects_per_second * TIME_WAIT.as_secs_f64();
        if !stays && levels_out_at < count(usable) {
            return (Outlook::Lasts, None);
        }
        let left = count(free) / growth;
        // Slower than a day is no trend that a few seconds could show.
        if left > 86_400.0 { (Outlook::Lasts, None) } else { (Outlook::RunningOut, Some(left)) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of ports")]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A usage per second.
    fn trend(usages: &[(u64, u64)]) -> Trend {
        let mut trend = Trend::default();
        for (second, &(time_wait, open)) in (0..).zip(usages) {
            trend.add(Duration::from_secs(second), Usage { time_wait, open, taken: time_wait + open });
        }
        trend
    }

    #[test]
    fn closed_connections_level_out_after_a_minute_or_use_the_range_up() {
        let growing = |rate: u64| trend(&(0..10).map(|second| (second * rate, 0)).collect::<Vec<_>>());
        // 400/s × 60 s = 24,000 < 28,232.
        assert_eq!(growing(400).outlook(Some(28_232), 400.0), (Outlook::Lasts, None));
        // 1000/s: 9000 are taken, the other 19,232 last 19 s.
        let (outlook, seconds) = growing(1000).outlook(Some(28_232), 1000.0);
        assert_eq!(outlook, Outlook::RunningOut);
        assert!((seconds.unwrap() - 19.232).abs() < 0.001);
    }

    #[test]
    fn connections_that_stay_never_level_out() {
        let leak = trend(&(0..10).map(|second| (0, second * 10)).collect::<Vec<_>>());
        let (outlook, seconds) = leak.outlook(Some(1090), 10.0);
        assert_eq!((outlook, seconds), (Outlook::RunningOut, Some(100.0)));
        let slow = trend(&[(0, 0), (0, 0), (0, 0), (0, 0), (0, 1)]);
        assert_eq!(slow.outlook(Some(60_000), 0.2).0, Outlook::Lasts, "more than a day away");
    }

    #[test]
    fn a_number_that_does_not_grow_lasts_and_one_that_is_reached_is_used_up() {
        assert_eq!(trend(&[(60, 0); 6]).outlook(Some(28_232), 1.0), (Outlook::Lasts, None));
        assert_eq!(trend(&[(90, 10); 2]).outlook(Some(100), 1.0), (Outlook::UsedUp, Some(0.0)));
    }

    #[test]
    fn without_sockets_range_or_time_it_is_unknown() {
        assert_eq!(Trend::default().outlook(Some(100), 1.0).0, Outlook::Unknown);
        assert_eq!(trend(&[(1, 0); 9]).outlook(None, 1.0).0, Outlook::Unknown);
        assert_eq!(trend(&[(0, 0), (1, 0)]).outlook(Some(100), 1.0).0, Outlook::Unknown);
    }

    #[test]
    fn only_the_last_seconds_are_kept() {
        let mut trend = Trend::default();
        for second in 0..1000 {
            trend.add(Duration::from_secs(second), Usage::default());
        }
        assert!(trend.seen.len() <= 23, "{}", trend.seen.len());
    }
}
