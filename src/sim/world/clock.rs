//! The two clocks of a node. The monotonic one never goes back, but may go fast or slow; the wall clock goes along with
//! it, and may be off beside.

use std::time::Duration;

use crate::protocol::types::{Instant, Now, WallTime};

/// The wall clock when a world begins: 2026.
const WALL_MS: u64 = 1_767_225_600_000;

/// A clock is fast or slow by this much at most: twenty times as much as a kernel lets itself be steered.
pub(crate) const DRIFT_PPM_MAX: i64 = 10_000;

const MILLION: u64 = 1_000_000;

/// The clocks of one node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// What the monotonic clock showed, when that was, and how it has gone since: a millionth part too fast.
    shown: Instant,
    at: Instant,
    drift_ppm: i64,
    off_ms: i64,
}

impl Clock {
    /// The wall clock is that much off from now on.
    pub(crate) fn jump(&mut self, off_ms: i64) {
        self.off_ms = off_ms;
    }

    /// From now on both clocks go fast by so many millionth parts, or slow.
    pub(crate) fn drift(&mut self, now: Instant, ppm: i64) {
        assert!(ppm.abs() <= DRIFT_PPM_MAX, "{ppm} is no drift that a clock has");
        (self.shown, self.at, self.drift_ppm) = (self.instant(now), now, ppm);
    }

    /// What the monotonic clock shows.
    pub(crate) fn instant(&self, now: Instant) -> Instant {
        let gone = now.since(self.at).as_micros() as u64;
        self.shown + Duration::from_micros(scaled(gone, self.rate(), MILLION))
    }

    /// What both show.
    pub(crate) fn now(&self, now: Instant) -> Now {
        let instant = self.instant(now);
        Now { instant, wall: WallTime((WALL_MS + instant.0 / 1_000).saturating_add_signed(self.off_ms)) }
    }

    /// How long it takes until they have gone on by so much, at least.
    pub(crate) fn takes(&self, wait: Duration) -> Duration {
        Duration::from_micros(scaled(wait.as_micros() as u64, MILLION, self.rate()) + u64::from(self.drift_ppm != 0))
    }

    fn rate(&self) -> u64 {
        MILLION.saturating_add_signed(self.drift_ppm)
    }
}

fn scaled(micros: u64, times: u64, over: u64) -> u64 {
    u64::try_from(u128::from(micros) * u128::from(times) / u128::from(over)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clock_goes_as_fast_as_it_drifts_and_never_back() {
        let second = Instant(1_000_000);
        let mut clock = Clock::default();
        assert_eq!((clock.instant(second), clock.now(second).wall), (second, WallTime(WALL_MS + 1_000)));
        clock.drift(second, DRIFT_PPM_MAX);
        assert_eq!((clock.instant(second), clock.instant(Instant(2_000_000))), (second, Instant(2_010_000)));
        clock.drift(Instant(2_000_000), -DRIFT_PPM_MAX);
        assert_eq!(clock.instant(Instant(3_000_000)), Instant(3_000_000));
        clock.jump(-500);
        assert_eq!(clock.now(Instant(3_000_000)).wall, WallTime(WALL_MS + 2_500));
    }

    proptest! {
        #[test]
        fn whoever_waits_wakes_when_it_is_time(ppm in -DRIFT_PPM_MAX..=DRIFT_PPM_MAX, at: u32, wait: u32) {
            let (at, wait) = (Instant(at.into()), Duration::from_micros(wait.into()));
            let mut clock = Clock::default();
            clock.drift(at, ppm);
            let (due, woken) = (clock.instant(at) + wait, clock.instant(at + clock.takes(wait)));
            prop_assert!(due <= woken && woken.since(due) <= Duration::from_micros(2), "{due:?} {woken:?}");
        }
    }
}
