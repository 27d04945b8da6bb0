//! How long to wait before the next try.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Doubles the wait from `first` to `most`; each wait is shortened by up to half at random, so that the nodes of a
/// cluster do not come back to the API server all at once.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_mins(1))
    }
}

impl Backoff {
    /// Waits of `first`, twice as much, and so on up to `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = jittered(self.next, random());
        self.next = self.next.saturating_mul(2).min(self.most);
        wait
    }

    /// After a success the next wait is the first one again.
    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Between half of `wait` and all of it.
fn jittered(wait: Duration, random: u64) -> Duration {
    let thousandths = u32::try_from(random % 501).unwrap_or(0);
    wait.saturating_sub(wait / 1000 * thousandths)
}

/// The standard library's seed of hash tables: random enough to spread waits.
fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_double_up_to_the_most_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(100 * MS, 500 * MS);
        for full in [100, 200, 400, 500, 500] {
            let wait = backoff.wait();
            assert!(wait <= full * MS && wait >= full * MS / 2, "{wait:?} of {full} ms");
        }
        backoff.reset();
        assert!(backoff.wait() <= 100 * MS);
    }

    #[test]
    fn jitter_takes_up_to_half() {
        assert_eq!(jittered(1000 * MS, 0), 1000 * MS);
        assert_eq!(jittered(1000 * MS, 500), 500 * MS);
        assert_eq!(jittered(1000 * MS, 501), 1000 * MS);
        let different: std::collections::HashSet<u64> = (0..10).map(|_| random()).collect();
        assert!(different.len() > 1);
    }
}
