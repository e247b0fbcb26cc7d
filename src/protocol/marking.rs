//! A view comes: requests go on under it at once, and what this core has reached of a change is told.

use std::sync::Arc;

use super::config::REACHED_AGAIN;
use super::coordinator::quorum::Copies;
use super::io::{Effect, Effects};
use super::peer::{Refused, Told};
use super::planted::Bug;
use super::ring::{LayoutStamp, Ring, Step, View};
use super::shard::{Shard, Waiting, Whom};
use super::types::{AppendId, Instant, Now};

/// The step of a change that this core is at.
#[derive(Debug)]
pub(super) struct Marking {
    stamp: LayoutStamp,
    step: Step,
    /// What was appended before the step.
    before: AppendId,
    /// It is not told before.
    told_again: Instant,
}

impl Shard {
    /// The cluster is seen otherwise. Whatever is under way goes by the new view from now on: writes count anew, reads
    /// begin anew, and what peers asked under an older layout is asked again under this one.
    pub(super) fn on_view(&mut self, now: Now, view: Arc<View>, effects: &mut Effects) {
        self.ring = Ring::new(view.layout.partitions());
        self.copies = Copies::of(&view.layout);
        if view.stamp() != self.view.stamp() || view.change.is_some() {
            self.end_rounds(now, effects);
        }
        let before = std::mem::replace(&mut self.view, view);
        self.share_out(now);
        if self.view.stamp() != before.stamp() {
            self.refuse_what_waits(effects);
        }
        let counts_anew = !self.planted.is(Bug::NoDrain);
        if counts_anew && !stamps(&self.view).eq(stamps(&before)) {
            for whom in self.waiting.keys_of(|(_, waiting)| matches!(waiting, Waiting::Write(_))) {
                self.rebase_write(now, whom, effects);
            }
        }
        if counts_anew && self.view.layout.stamp() != before.layout.stamp() {
            for whom in self.waiting.keys_of(|(_, waiting)| matches!(waiting, Waiting::Read(_))) {
                self.read_anew(now, whom, effects);
            }
        }
        for (whom, newer) in std::mem::take(&mut self.outdated) {
            if newer.is_newer_than(self.view.stamp()) {
                self.outdated.insert(whom, newer);
            } else {
                self.go_on(now, whom, effects);
            }
        }
        self.deliver_hints(now, effects);
        self.share_out(now);
        self.enter_step();
        self.tell_reached(now.instant, effects);
    }

    /// A peer knows a newer layout, or one that has won against this node's: a request goes on once this node knows it
    /// too, unless its time is over before.
    pub(super) fn go_on_once_known(&mut self, now: Now, whom: Whom, newer: LayoutStamp, effects: &mut Effects) {
        let mine = self.view.stamp();
        if mine.number <= newer.number && mine != newer {
            self.outdated.insert(whom, newer);
        } else {
            self.go_on(now, whom, effects);
        }
    }

    fn go_on(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        match self.waiting_mut(whom) {
            Some(Waiting::Write(_)) => self.spread_on(now, whom, effects),
            Some(Waiting::Read(_)) => self.read_anew(now, whom, effects),
            Some(Waiting::Forward(_)) => self.forward_anew(now, whom, effects),
            _ => {}
        }
    }

    /// What peers asked before this layout was known here, and what still waits for the store, is asked again: the
    /// asker may go by an older layout.
    fn refuse_what_waits(&mut self, effects: &mut Effects) {
        let newest = self.view.stamp();
        for whom in self.waiting.keys_of(|(_, waiting)| matches!(waiting, Waiting::Serve(_))) {
            self.take(whom);
            self.tell(whom, Told::Refused(Refused::Layout(newest)), effects);
        }
    }

    fn enter_step(&mut self) {
        let entered = self.view.change.as_ref().map(|change| (change.pending.stamp(), change.step));
        if self.marking.as_ref().map(|marking| (marking.stamp, marking.step)) != entered {
            let (before, told_again) = (self.appended, Instant::default());
            self.marking = entered.map(|(stamp, step)| Marking { stamp, step, before, told_again });
        }
    }

    /// Tells that nothing begun before the step is unfinished, or that everything is fetched; now and then again.
    pub(super) fn tell_reached(&mut self, now: Instant, effects: &mut Effects) {
        let Some(marking) = self.marking.as_ref().filter(|marking| marking.told_again <= now) else {
            return;
        };
        let is_reached = match marking.step {
            // A log that failed ends what was under way.
            Step::Write | Step::Read if self.planted.is(Bug::NoDrain) => true,
            Step::Write | Step::Read => self.stopped || marking.before <= self.durable,
            Step::Hold => self.has_fetched_all(),
        };
        if !is_reached {
            return;
        }
        let (stamp, step) = (marking.stamp, marking.step);
        effects.push(Effect::Reached { stamp, step });
        self.marking.as_mut().expect("it was there a line ago").told_again = now + REACHED_AGAIN;
    }
}

/// The layouts that writes go by.
fn stamps(view: &View) -> impl Iterator<Item = LayoutStamp> {
    view.written().map(|layout| layout.stamp())
}
