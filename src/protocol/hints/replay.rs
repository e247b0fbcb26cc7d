//! Delivering hints: whole sets, to targets that are in reach, at a bounded pace, so that no foreground write waits.

use std::sync::Arc;

use super::Due;
use crate::protocol::asks::About;
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Change, Effects, Hint, Unreadable};
use crate::protocol::peer::{Told, Unheard};
use crate::protocol::planted::Bug;
use crate::protocol::shard::{Load, Shard};
use crate::protocol::types::{AppendId, Key, NodeId, Now};

/// The quota that is planted to be kept to at any price: few enough to be reached in a rehearsal.
const HINTS_FEW: usize = 4;

impl Shard {
    /// Keeps a hint, and gives its append. One that counts is kept in any case: its caller has looked for room. One
    /// that does not is dropped where there is none.
    pub(in crate::protocol) fn owe(
        &mut self,
        target: NodeId,
        key: Key,
        counted: bool,
        effects: &mut Effects,
    ) -> Option<AppendId> {
        if !counted && !self.keeps_hints {
            return None;
        }
        let is_crowded = self.planted.is(Bug::CountedHintDropped) && HINTS_FEW <= self.hints.len();
        if self.stopped || is_crowded || (!counted && !self.hints.has_room()) {
            self.stats.hints_dropped += 1;
            self.marked.insert(self.ring.partition(&key));
            return None;
        }
        let counted = counted || self.hints.is_counted(target, &key);
        let append = self.append_beside(key.clone(), Change::Hint(Hint { target, counted }), effects);
        self.hints.keep(target, key, counted, append);
        self.stats.hints_stored += 1;
        Some(append)
    }

    /// Sends what is due to every target in reach.
    pub(in crate::protocol) fn deliver_hints(&mut self, now: Now, effects: &mut Effects) {
        for target in self.hints.targets() {
            self.deliver_to(now, target, effects);
        }
    }

    fn deliver_to(&mut self, now: Now, target: NodeId, effects: &mut Effects) {
        let is_member = self.view.written().any(|layout| layout.has(target));
        // Who owns what must be known: a hint for somebody who owns nothing any more goes to others.
        let is_known = 0 < self.view.epoch;
        if self.stopped || !is_known || (is_member && !self.is_reachable(target)) {
            return;
        }
        for due in self.hints.next_due(target, now.instant, self.durable) {
            let key = due.key.clone();
            self.load(Load::Hint(due), key, effects);
        }
    }

    /// What a hint owes was read.
    pub(in crate::protocol) fn on_owed(
        &mut self,
        now: Now,
        due: Due,
        found: Result<Option<Arc<Siblings>>, Unreadable>,
        effects: &mut Effects,
    ) {
        let partition = self.ring.partition(&due.key);
        match found {
            Err(_) => self.hints.on_failed(&due, now.instant),
            Ok(None) => self.done(&due, effects),
            Ok(Some(set)) if self.view.is_written(due.target, partition) => {
                let ask = self.whole(&due.key, &set, None);
                if self.planted.is(Bug::HintForgotten) {
                    self.done(&due, effects);
                    return self.ask(now, due.target, partition, ask, About::Repair, effects);
                }
                self.ask(now, due.target, partition, ask, About::Hint(due), effects);
            }
            Ok(Some(_)) if self.stopped => {}
            Ok(Some(_)) => self.pass_on(&due, effects),
        }
    }

    /// The target does not own the key any more: its present owners are owed it.
    fn pass_on(&mut self, due: &Due, effects: &mut Effects) {
        let view = Arc::clone(&self.view);
        let counted = self.hints.is_counted(due.target, &due.key);
        let partition = self.ring.partition(&due.key);
        for owner in view.written().flat_map(|layout| layout.owners(partition)).filter(|owner| *owner != view.me) {
            self.owe(owner, due.key.clone(), counted, effects);
        }
        self.done(due, effects);
    }

    pub(in crate::protocol) fn on_hint_told(
        &mut self,
        now: Now,
        due: Due,
        told: Result<Told, Unheard>,
        effects: &mut Effects,
    ) {
        if told == Ok(Told::Stored) {
            self.done(&due, effects);
            self.deliver_to(now, due.target, effects);
        } else {
            self.hints.on_failed(&due, now.instant);
        }
    }

    /// A core that writes no more cannot note it, and delivers it again after its next start.
    fn done(&mut self, due: &Due, effects: &mut Effects) {
        if !self.stopped && self.hints.on_delivered(due) {
            self.stats.hints_delivered += 1;
            self.append_beside(due.key.clone(), Change::Delivered { target: due.target }, effects);
        }
    }
}
