//! What is due when: timers of SWIM, and what is done again after a while. A loop that is late condemns nobody.

use std::time::Duration;

use super::io::{Effect, Note, Packet};
use super::swim::{self, PROBE_RTT, Wanted};
use super::{Membership, SwimWants};
use crate::protocol::types::Instant;

/// A loop that is later than this has been held up: its verdicts on others wait.
const LATE_MIN: Duration = Duration::from_millis(60);

/// A verdict waits at most so much longer.
const VERDICT_WAIT_MAX: Duration = Duration::from_secs(1);

/// While our own loop is late, a suspect gets up to so many times as long to say that it is there, and once more.
const STRETCH_MAX: u32 = 8;

/// What is to be done at a time.
#[derive(Debug)]
pub(super) enum Alarm {
    /// A timer of SWIM; whether it was put off once.
    Swim(swim::Timer, bool),
    /// Look for members that do not answer.
    Reach,
    /// Enough time was given to more joined nodes.
    Gathered,
    /// Write again what was not written.
    Persist,
}

impl Membership {
    pub(super) fn on_tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let first = self.alarms.first_key_value().map(|((due, _), _)| *due);
        let late = first.map_or(Duration::ZERO, |due| now.since(due));
        if LATE_MIN < late {
            self.stretch = (self.stretch + 1).min(STRETCH_MAX);
            if VERDICT_WAIT_MAX < late {
                effects.push(Effect::Note(Note::Late { late }));
            }
        }
        // What an alarm sets is due later than now, or the loop would not end.
        let due = self.alarms.split_off(&(now + Duration::from_micros(1), 0));
        for (_, alarm) in std::mem::replace(&mut self.alarms, due) {
            self.on_alarm(now, late, alarm, effects);
        }
    }

    fn on_alarm(&mut self, now: Instant, late: Duration, alarm: Alarm, effects: &mut Vec<Effect>) {
        match alarm {
            // What the others have said meanwhile is still to be read.
            Alarm::Swim(timer, false) if LATE_MIN < late && swim::is_verdict(&timer) => {
                self.set(now + PROBE_RTT + late.min(VERDICT_WAIT_MAX), Alarm::Swim(timer, true));
            }
            Alarm::Swim(timer, _) => {
                if late <= LATE_MIN && swim::is_verdict(&timer) {
                    self.stretch = self.stretch.saturating_sub(1);
                }
                let mut wants = SwimWants::default();
                self.swim.on_timer(timer, &mut wants);
                self.carry(now, wants, effects);
            }
            Alarm::Reach => self.on_reach(now, effects),
            Alarm::Gathered => self.on_gathered(),
            Alarm::Persist => self.holds_off = false,
        }
    }

    pub(super) fn set(&mut self, due: Instant, alarm: Alarm) {
        self.alarms_set += 1;
        self.alarms.insert((due, self.alarms_set), alarm);
    }

    /// Carries out what SWIM wants.
    pub(super) fn carry(&mut self, now: Instant, wants: Wanted, effects: &mut Vec<Effect>) {
        for (to, payload) in wants.sends {
            let packet = Packet { sender: self.me, layout: self.layouts.stamp(), rows: self.digest, payload };
            effects.push(Effect::Send { to, packet });
        }
        for (timer, after) in wants.timers {
            let times = if matches!(timer, swim::Timer::ChangeSuspectToDown { .. }) { 1 + self.stretch } else { 1 };
            self.set(now + after * times, Alarm::Swim(timer, false));
        }
        if wants.has_renewed {
            self.set(now, Alarm::Reach);
        }
    }
}
