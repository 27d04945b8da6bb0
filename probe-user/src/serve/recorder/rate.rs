//! How many captures may be written: a flood of incidents must not keep the disk busy for good.

use std::time::{Duration, Instant};

/// Captures that may be written in one go, and each second after that.
const BURST: u32 = 256;
pub(super) const PER_SECOND: u32 = 4;
/// A flood is over when so long none was left out. Shorter, and a steady rate above the limit would begin and end with
/// every capture that it leaves room for.
const QUIET: Duration = Duration::from_mins(1);

/// So many captures at once, and so many a second after that.
pub(super) struct Rate {
    left: u32,
    since: Instant,
}

impl Rate {
    pub(super) const fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    /// Whether one more may be written.
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        const EACH: Duration = Duration::from_millis(1000 / PER_SECOND as u64);
        let earned = now.saturating_duration_since(self.since).as_millis() / EACH.as_millis();
        let earned = u32::try_from(earned).unwrap_or(BURST);
        self.since += EACH.saturating_mul(earned);
        self.left = self.left.saturating_add(earned).min(BURST);
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        true
    }
}

/// Captures that are left out for one reason.
#[derive(Default)]
pub(super) struct LeftOut(Option<Flood>);

struct Flood {
    last: Instant,
    count: u64,
}

impl LeftOut {
    /// Takes one. Returns a sentence if it is the first of a flood.
    pub(super) fn one_more(&mut self, now: Instant, reason: &str) -> Option<String> {
        let first = self.0.is_none();
        let flood = self.0.get_or_insert(Flood { last: now, count: 0 });
        (flood.last, flood.count) = (now, flood.count + 1);
        first.then(|| format!("flight recorder: {reason}"))
    }

    /// A sentence, once, when a flood is over.
    pub(super) fn over(&mut self, now: Instant) -> Option<String> {
        let quiet = |flood: &mut Flood| now.saturating_duration_since(flood.last) >= QUIET;
        let Flood { count, .. } = self.0.take_if(quiet)?;
        Some(format!("flight recorder: each incident gets a capture again; {count} got none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_of_a_flood_are_limited() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let mut written = |at| (0..1000).filter(|_| rate.spend(at)).count();
        assert_eq!(written(start), 256);
        assert_eq!(written(start + Duration::from_millis(1100)), 4);
        // The rest of a period is not lost.
        assert_eq!(written(start + Duration::from_millis(1250)), 1);
        assert_eq!(written(start + Duration::from_hours(1)), 256);
    }

    #[test]
    fn a_flood_is_told_when_it_begins_and_when_it_is_over_whatever_is_written_in_between() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let (mut told, mut flood, mut count) = (Vec::new(), LeftOut::default(), 0);
        // Twice as many as are allowed, for ten minutes.
        for eighth in 0..8 * 600 {
            let now = start + Duration::from_millis(125 * eighth);
            if !rate.spend(now) {
                count += 1;
                told.extend(flood.one_more(now, "too many"));
            }
            told.extend(flood.over(now));
        }
        assert_eq!(told, ["flight recorder: too many"]);
        let end = start + Duration::from_mins(11);
        let over = format!("flight recorder: each incident gets a capture again; {count} got none");
        assert_eq!((flood.over(end), flood.over(end)), (Some(over), None));
    }
}
