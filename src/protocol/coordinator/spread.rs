//! The copies of a write: sent to all owners at once, counted as they become durable, and owed to whoever is absent.
//!
//! ```text
//!   own append ──▶ durable ─────────────┐
//!   owner b ──Ask(Store)──▶ Stored ─────┼──▶ W of them ──▶ answer
//!   owner c ──Ask(Store)──▶ silent ─┐   │
//!              fallback d ◀─Ask(Merge, stands for c)──▶ Stored
//!                    no fallback ───▶ a hint of our own, which does not count
//! ```
//! A write goes on after its answer until every owner has it or is owed it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::legs::{LegState, Legs};
use super::quorum::Verdict;
use crate::protocol::asks::About;
use crate::protocol::causality::Siblings;
use crate::protocol::io::Effects;
use crate::protocol::message::{Failure, Reply, Written};
use crate::protocol::peer::{Ask, Refused, Store, Told, Unheard};
use crate::protocol::replica::Remembered;
use crate::protocol::ring::Partition;
use crate::protocol::shard::{Asker, Shard, Waiting, Whom};
use crate::protocol::types::{AppendId, Key, NodeId, Now};

/// A write that is minted and waits for its copies.
#[derive(Debug)]
pub(in crate::protocol) struct Writing {
    /// The answer, but for its level, until it was given.
    written: Option<Written>,
    /// The W that it asks for, 0 for the layout's.
    asked: u8,
    legs: Legs,
    strict: bool,
    key: Key,
    partition: Partition,
    state: Arc<Siblings>,
    /// What is known of it, if it was minted before: the state may have superseded it.
    remembered: Option<Box<Remembered>>,
    /// Who may stand in and was not asked yet; looked up at first need.
    fallbacks: Option<VecDeque<NodeId>>,
}

/// What other owners are sent of a write.
#[derive(Debug)]
pub(super) enum Send {
    /// The version, with what it was minted upon.
    Version(Arc<Store>),
    /// The key's whole set.
    Whole,
    /// The same, for the sake of a write that was minted before, which may be superseded in it.
    Remembered(Box<Remembered>),
}

impl Writing {
    pub(super) fn new(
        written: Written,
        asked: u8,
        legs: Legs,
        strict: bool,
        key: Key,
        partition: Partition,
        state: Arc<Siblings>,
    ) -> Writing {
        let (written, remembered, fallbacks) = (Some(written), None, None);
        Writing { written, asked, legs, strict, key, partition, state, remembered, fallbacks }
    }

    /// The failure of one whose time is over.
    pub(in crate::protocol) fn not_met(&self) -> Failure {
        self.legs.not_met()
    }

    pub(in crate::protocol) fn partition(&self) -> Partition {
        self.partition
    }

    /// Whether whoever asked has an answer.
    pub(in crate::protocol) fn is_answered(&self) -> bool {
        self.written.is_none()
    }

    pub(in crate::protocol) fn set_answered(&mut self) {
        self.written = None;
    }

    /// Whether peers were asked that have not answered yet.
    pub(in crate::protocol) fn is_spreading(&self) -> bool {
        self.legs.is_spreading()
    }
}

impl Shard {
    /// Lets a write wait for its own append, and sends it to the other owners.
    pub(super) fn spread(
        &mut self,
        now: Now,
        asker: Asker,
        mut writing: Box<Writing>,
        mut append: AppendId,
        send: Send,
        effects: &mut Effects,
    ) {
        let whom = asker.whom;
        if !self.view.is_written(self.view.me, writing.partition) {
            for owner in writing.legs.stand_in() {
                append = self.owe(owner, writing.key.clone(), true, effects).unwrap_or(append);
            }
        }
        writing.legs.own_settled = self.counts(append);
        let settled = writing.legs.own_settled;
        let owners = writing.legs.lacking();
        let version = match send {
            Send::Version(store) => Ask::Store(store),
            Send::Whole | Send::Remembered(_) if owners.is_empty() => {
                self.wait_for_own(asker, writing, settled, append);
                return self.judge_write(whom, effects);
            }
            Send::Whole => self.whole_of(&writing, None),
            Send::Remembered(remembered) => {
                writing.remembered = Some(remembered);
                self.whole_of(&writing, None)
            }
        };
        self.wait_for_own(asker, writing, settled, append);
        self.send_to(now, whom, &owners, &version, effects);
        self.stretch_later_where_needed(now, whom);
        self.judge_write(whom, effects);
    }

    fn send_to(&mut self, now: Now, whom: Whom, owners: &[NodeId], ask: &Ask, effects: &mut Effects) {
        for owner in owners {
            if self.is_reachable(*owner) {
                self.ask_for_copy(now, whom, *owner, *owner, ask.clone(), effects);
            } else {
                self.stand_in(now, whom, *owner, effects);
            }
        }
    }

    fn wait_for_own(&mut self, asker: Asker, writing: Box<Writing>, settled: bool, append: AppendId) {
        self.wait(asker, Waiting::Write(writing));
        if !settled {
            self.await_append(append, asker.whom);
        }
    }

    /// Fallbacks are asked too when owners are silent; where there are none, waiting is all that can be done.
    fn stretch_later_where_needed(&mut self, now: Now, whom: Whom) {
        if self.view.change.is_some() || self.view.layout.rows().len() > usize::from(self.copies.n) {
            self.stretch_later(now, whom);
        }
    }

    fn writing_mut(&mut self, whom: Whom) -> Option<&mut Writing> {
        match self.waiting_mut(whom) {
            Some(Waiting::Write(writing)) => Some(writing),
            _ => None,
        }
    }

    fn writing(&self, whom: Whom) -> Option<&Writing> {
        match self.waiting.get(&whom) {
            Some((_, Waiting::Write(writing))) => Some(writing),
            _ => None,
        }
    }

    fn ask_for_copy(&mut self, now: Now, whom: Whom, owner: NodeId, to: NodeId, ask: Ask, effects: &mut Effects) {
        let Some(writing) = self.writing_mut(whom) else { return };
        let partition = writing.partition;
        if let Some(leg) = writing.legs.leg(owner) {
            leg.under_way += 1;
        }
        self.ask(now, to, partition, ask, About::Copy(whom, owner), effects);
    }

    /// Lets the next fallback keep the copy of an absent owner. With none left the owner is owed it by this node, and
    /// that does not count.
    fn stand_in(&mut self, now: Now, whom: Whom, owner: NodeId, effects: &mut Effects) {
        let Some(fallback) = self.next_fallback(whom) else {
            return self.leave_owed(whom, owner, effects);
        };
        let Some(ask) = self.whole_for(whom, Some(owner)) else { return };
        self.ask_for_copy(now, whom, owner, fallback, ask, effects);
    }

    fn whole_for(&self, whom: Whom, stands_for: Option<NodeId>) -> Option<Ask> {
        self.writing(whom).map(|writing| self.whole_of(writing, stands_for))
    }

    fn whole_of(&self, writing: &Writing, stands_for: Option<NodeId>) -> Ask {
        let mut ask = self.whole(&writing.key, &writing.state, stands_for);
        if let (Ask::Merge(merge), Some(remembered)) = (&mut ask, &writing.remembered)
            && !merge.remember.iter().any(|other| other.operation == remembered.operation)
        {
            merge.remember.push(Remembered::clone(remembered));
        }
        ask
    }

    fn next_fallback(&mut self, whom: Whom) -> Option<NodeId> {
        let view = Arc::clone(&self.view);
        let writing = self.writing_mut(whom).filter(|writing| !writing.strict)?;
        let partition = writing.partition;
        let fallbacks = writing.fallbacks.get_or_insert_with(|| view.fallbacks(partition).into());
        let mut left = std::mem::take(fallbacks);
        let has_it = |node: &NodeId| self.writing(whom).is_some_and(|writing| writing.legs.has(*node));
        let is_good = |node: &NodeId| *node != view.me && self.is_reachable(*node) && !has_it(node);
        let found = std::iter::from_fn(|| left.pop_front()).find(is_good);
        if let Some(writing) = self.writing_mut(whom) {
            writing.fallbacks = Some(left);
        }
        found
    }

    fn leave_owed(&mut self, whom: Whom, owner: NodeId, effects: &mut Effects) {
        let Some(writing) = self.writing_mut(whom) else { return };
        let key = writing.key.clone();
        let Some(leg) = writing.legs.leg(owner).filter(|leg| leg.under_way == 0 && leg.state == LegState::Open) else {
            return;
        };
        leg.state = LegState::Owed;
        self.owe(owner, key, false, effects);
    }

    /// Somebody who was asked to keep a copy has answered, or will not.
    pub(in crate::protocol) fn on_copy_told(
        &mut self,
        now: Now,
        whom: Whom,
        owner: NodeId,
        from: NodeId,
        told: Result<Told, Unheard>,
        effects: &mut Effects,
    ) {
        let Some(writing) = self.writing_mut(whom) else { return };
        let is_owner = writing.legs.is_owner(owner);
        let Some(leg) = writing.legs.leg(owner) else { return };
        leg.under_way -= 1;
        let is_open = leg.state == LegState::Open;
        match told {
            Ok(Told::Stored) if is_open => leg.state = LegState::Done(from),
            Ok(Told::Stored) => {}
            // What was sent was named before the round, which this node has drained for: the copy is not from before.
            Ok(Told::Behind | Told::Refused(Refused::Round(_))) => {
                let stands_for = (from != owner).then_some(owner);
                let Some(whole) = self.whole_for(whom, stands_for) else { return };
                self.ask_for_copy(now, whom, owner, from, whole, effects);
            }
            Ok(Told::Refused(Refused::Layout(newer))) => self.go_on_once_known(now, whom, newer, effects),
            _ if is_open && is_owner => self.stand_in(now, whom, owner, effects),
            _ => {}
        }
        self.judge_write(whom, effects);
    }

    /// It has waited for long: fallbacks are asked beside the owners that are silent.
    pub(in crate::protocol) fn stretch_write(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let Some(writing) = self.writing_mut(whom) else { return };
        for owner in writing.legs.silent() {
            self.peers.on_silence(owner, now.instant);
            self.stand_in(now, whom, owner, effects);
        }
    }

    /// Writes go by other layouts: what this one has is counted for them, and owners that lack it are asked.
    pub(in crate::protocol) fn rebase_write(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let view = Arc::clone(&self.view);
        let Some(writing) = self.writing_mut(whom) else { return };
        writing.legs.rebase(&view, writing.partition, writing.asked);
        writing.fallbacks = None;
        self.spread_on(now, whom, effects);
        self.judge_write(whom, effects);
    }

    /// Owners that lack it and that nobody asks any more are asked, under the newest layout.
    pub(in crate::protocol) fn spread_on(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let Some(lacking) = self.writing(whom).map(|writing| writing.legs.lacking()) else { return };
        if lacking.is_empty() {
            return;
        }
        let Some(whole) = self.whole_for(whom, None) else { return };
        self.send_to(now, whom, &lacking, &whole, effects);
        self.stretch_later(now, whom);
    }

    /// This node's own copy is durable.
    pub(in crate::protocol) fn on_own_copy(&mut self, whom: Whom, effects: &mut Effects) {
        if let Some(writing) = self.writing_mut(whom) {
            writing.legs.own_settled = true;
            self.judge_write(whom, effects);
        }
    }

    /// This node's log has failed under a write, or under what a peer waits for.
    pub(in crate::protocol) fn on_own_copy_failed(&mut self, whom: Whom, effects: &mut Effects) {
        match self.take(whom) {
            Some((_, Waiting::Durable(_))) => self.tell(whom, Told::Refused(Refused::WritesStopped), effects),
            Some((_, Waiting::Write(writing))) if !writing.is_answered() => {
                self.finish(whom, Err(Failure::WritesStopped { core: self.core }), effects);
            }
            _ => {}
        }
    }

    /// Its owners are owed it where nobody took it: whoever waited for them waits no more.
    pub(in crate::protocol) fn owe_the_open(&mut self, writing: &mut Writing, effects: &mut Effects) {
        for owner in writing.legs.give_up() {
            self.owe(owner, writing.key.clone(), false, effects);
        }
    }

    fn judge_write(&mut self, whom: Whom, effects: &mut Effects) {
        let Some(writing) = self.writing_mut(whom) else { return };
        let ended = match writing.legs.verdict() {
            _ if writing.is_answered() => None,
            Verdict::Wait => None,
            Verdict::Enough => Some(Ok(writing.legs.level())),
            Verdict::Impossible => Some(Err(writing.legs.not_met())),
        };
        let ended = ended.and_then(|ended| Some((writing.written.take()?, ended)));
        let is_done = writing.is_answered() && writing.legs.is_complete() && !writing.is_spreading();
        if let Some((mut written, ended)) = ended {
            let outcome = ended.map(|level| {
                written.level = level;
                self.stats.remembered_writes += u64::from(written.remembered);
                match level.fallbacks {
                    0 => self.stats.writes_by_owners += 1,
                    _ => self.stats.writes_with_fallbacks += 1,
                }
                Reply::Written(written)
            });
            self.stats.quorum_failures += u64::from(outcome.is_err());
            self.finish(whom, outcome, effects);
        }
        if is_done {
            self.take(whom);
        }
    }
}
