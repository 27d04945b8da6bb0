//! From the kernel's monotonic clock to wall-clock time.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::observation::Nanos;

/// Distance between CLOCK_REALTIME and CLOCK_MONOTONIC, taken once: a step of the wall clock while tracing must not
/// reorder what was seen.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: i64,
}

fn nanos(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// Processor time that the calling thread has taken so far. Waiting, for a processor as well, does not count.
pub(super) fn processor_time() -> Duration {
    Duration::from_nanos(nanos(ClockId::CLOCK_THREAD_CPUTIME_ID).unsigned_abs())
}

impl Clock {
    /// Samples both clocks.
    pub fn sample() -> Self {
        // The closest of a few samples: in between, the process may have been off the CPU.
        let sample = || {
            let before = nanos(ClockId::CLOCK_MONOTONIC);
            let wall = nanos(ClockId::CLOCK_REALTIME);
            let after = nanos(ClockId::CLOCK_MONOTONIC);
            (after - before, wall - (before + (after - before) / 2))
        };
        let offset = (0..5).map(|_| sample()).min_by_key(|(width, _)| *width).map_or(0, |(_, offset)| offset);
        Self { offset }
    }

    /// How far the wall clock was set since this was sampled, nanoseconds, as `new` shows.
    pub const fn step_to(self, new: Self) -> i64 {
        new.offset.saturating_sub(self.offset)
    }

    /// Wall-clock time of a kernel timestamp (`bpf_ktime_get_ns`).
    pub fn wall(self, monotonic_ns: u64) -> Nanos {
        monotonic_ns.cast_signed() + self.offset
    }

    /// Wall-clock time now, by the monotonic clock.
    pub fn now(self) -> Nanos {
        nanos(ClockId::CLOCK_MONOTONIC) + self.offset
    }
}
