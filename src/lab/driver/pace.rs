//! When the next operation should begin.

use std::time::{Duration, Instant};

/// Closed or open loop.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As soon as a place is free: each connection waits for its answers. What it measures is a server's capacity.
    Closed,
    /// By the clock, whether the server follows or not. Latency counts from when an operation should have begun, so
    /// that a stall shows in all that it delayed, and not in the few that were under way.
    Open(Schedule),
}

/// Times at an even distance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    begin: Instant,
    nanos: f64,
    offset: f64,
    taken: u64,
}

impl Schedule {
    /// `rate` operations a second over `threads` threads together, which take turns, of which this is number `thread`.
    pub(super) fn new(begin: Instant, rate: f64, thread: usize, threads: usize) -> Schedule {
        let apart = 1e9 / rate;
        Schedule { begin, nanos: apart * threads as f64, offset: apart * thread as f64, taken: 0 }
    }

    /// When the next operation should begin.
    pub(super) fn due(&self) -> Instant {
        self.begin + Duration::from_nanos((self.offset + self.taken as f64 * self.nanos) as u64)
    }

    /// Goes on to the one after it.
    pub(super) fn take(&mut self) {
        self.taken += 1;
    }

    /// How many more are due before `end`.
    pub(super) fn left_before(&self, end: Instant) -> u64 {
        let span = end.saturating_duration_since(self.begin).as_nanos() as f64;
        let due = ((span - self.offset) / self.nanos).ceil().max(0.0) as u64;
        due.saturating_sub(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do to begin at")]
    fn threads_take_turns_at_an_even_distance() {
        let begin = Instant::now();
        let mut schedules = [0, 1].map(|thread| Schedule::new(begin, 1_000.0, thread, 2));
        for turn in 0..10 {
            for (thread, schedule) in schedules.iter_mut().enumerate() {
                assert_eq!(schedule.due(), begin + Duration::from_millis(2 * turn + thread as u64));
                schedule.take();
            }
        }
        let end = begin + Duration::from_millis(30);
        assert_eq!(schedules.map(|schedule| schedule.left_before(end)), [5, 5]);
        assert_eq!(schedules[0].left_before(begin), 0);
    }
}
