//! What the connections of one thread share: what comes next, and what was counted.

use std::time::{Duration, Instant};

use super::Limit;
use super::pace::Pace;
use crate::lab::tally::Tally;
use crate::lab::workload::{End, Operation, Source};

/// Time for answers, and for operations that are late, after the end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The same when somebody wants to be done.
const DRAIN_STOPPED_MAX: Duration = Duration::from_millis(500);

/// A load gives up when it got nothing done for this long.
const FUTILE_MAX: Duration = Duration::from_secs(10);

/// A load waits this long after a server asked it to come later.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) source: Source,
    pub(super) tally: Tally,
    /// Operations that have ended, warm-up and failures too.
    pub(super) ended: u64,
    pace: Pace,
    /// Operations that begin from here on are counted.
    measured_from: Instant,
    /// None begins from here on.
    end: Option<Instant>,
    /// Measured operations that may yet begin.
    left: u64,
    in_flight: usize,
    paused_until: Instant,
    /// When an operation was done at last.
    done_at: Instant,
    /// When it was seen that no further operation begins.
    over_at: Option<Instant>,
    stopped: bool,
}

impl Desk {
    /// One that has nothing to begin yet.
    pub(super) fn new(source: Source, now: Instant) -> Desk {
        Desk {
            source,
            tally: Tally::new(),
            ended: 0,
            pace: Pace::Closed,
            measured_from: now,
            end: None,
            left: 0,
            in_flight: 0,
            paused_until: now,
            done_at: now,
            over_at: None,
            stopped: false,
        }
    }

    /// From `now` on there is something to do.
    pub(super) fn open(&mut self, pace: Pace, now: Instant, warmup: Duration, limit: Limit) {
        self.pace = pace;
        self.done_at = now;
        self.measured_from = now + warmup;
        (self.end, self.left) = match limit {
            Limit::Time(time) => (Some(self.measured_from + time), u64::MAX),
            Limit::Operations(count) => (None, count),
            Limit::Exhaustion => (None, u64::MAX),
        };
    }

    /// The next operation, and when it began, or should have begun. None when none is due.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Operation, Instant)> {
        if self.stopped || now < self.paused_until || self.left == 0 {
            return None;
        }
        let began = match &self.pace {
            Pace::Closed => now,
            Pace::Open(schedule) => Some(schedule.due()).filter(|due| *due <= now)?,
        };
        if self.end.is_some_and(|end| end <= began || end + DRAIN_MAX <= now) {
            return None;
        }
        let operation = self.source.next_operation()?;
        self.left -= u64::from(self.measured_from <= began);
        if let Pace::Open(schedule) = &mut self.pace {
            schedule.take();
        }
        self.in_flight += 1;
        Some((operation, began))
    }

    /// When the next operation is due, in an open loop.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.pace {
            Pace::Open(schedule) if !self.stopped => Some(schedule.due()),
            _ => None,
        }
    }

    pub(super) fn is_open_loop(&self) -> bool {
        matches!(self.pace, Pace::Open(_))
    }

    /// A read has found a value, or none.
    pub(super) fn read(&mut self, began: Instant, hit: bool) {
        if self.measured_from <= began {
            *(if hit { &mut self.tally.hits } else { &mut self.tally.misses }) += 1;
        }
    }

    pub(super) fn done(&mut self, operation: Operation, began: Instant, now: Instant) {
        self.ends(operation, End::Done);
        self.done_at = now;
        if self.measured_from <= began {
            self.tally.done(operation.kind, now.saturating_duration_since(began));
        }
    }

    /// An operation was refused; `passes` when it may be done later.
    pub(super) fn refused(&mut self, operation: Operation, began: Instant, now: Instant, why: Why<'_>) {
        let again = self.source.insists() && why.passes;
        self.ends(operation, if again { End::Undone } else { End::Done });
        if again {
            self.paused_until = now + PAUSE;
        } else if self.measured_from <= began {
            self.tally.errors.add(why.kind, 1, why.message);
        }
    }

    fn ends(&mut self, operation: Operation, end: End) {
        self.source.settle(operation, end);
        self.in_flight -= 1;
        self.ended += 1;
    }

    /// Begins nothing more.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stopped = true;
        self.over_at.get_or_insert(now);
    }

    /// Whether there is nothing more to begin and nothing more to wait for.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        if self.source.insists() && self.done_at + FUTILE_MAX <= now {
            self.stop(now);
        }
        if self.over_at.is_none() && self.is_exhausted(now) {
            self.over_at = Some(now);
        }
        let Some(over_at) = self.over_at else {
            return self.end.is_some_and(|end| end + DRAIN_MAX <= now);
        };
        let drain = if self.stopped { DRAIN_STOPPED_MAX } else { DRAIN_MAX };
        self.in_flight == 0 || over_at + drain <= now
    }

    fn is_exhausted(&self, now: Instant) -> bool {
        // In an open loop there may be more that was due before the end.
        let next = self.due().map_or(now, |due| due.min(now));
        // And what is under way of a load may have to be done again.
        let is_done = self.source.is_done() && self.in_flight == 0;
        self.left == 0 || is_done || self.end.is_some_and(|end| end <= next)
    }

    /// What was counted by the end.
    pub(super) fn close(mut self, now: Instant) -> Tally {
        let over_at = self.over_at.unwrap_or(now);
        let issued_until = self.end.map_or(over_at, |end| end.min(over_at));
        let until = issued_until.max(self.done_at);
        self.tally.elapsed = until.saturating_duration_since(self.measured_from);
        if let Pace::Open(schedule) = &self.pace {
            self.tally.unstarted = self.left.min(schedule.left_before(issued_until));
        }
        self.tally
    }
}

/// Why an operation was not done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Why<'a> {
    pub(super) kind: &'static str,
    pub(super) message: &'a str,
    pub(super) passes: bool,
}
