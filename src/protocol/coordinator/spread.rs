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

use smallvec::SmallVec;

use super::Role;
use super::quorum::{Quorum, Verdict};
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
    quorum: Quorum,
    role: Role,
    /// This node's own copy is durable, or failed.
    own_settled: bool,
    strict: bool,
    key: Key,
    partition: Partition,
    state: Arc<Siblings>,
    /// What is known of it, if it was minted before: the state may have superseded it.
    remembered: Option<Box<Remembered>>,
    /// The other owners.
    legs: SmallVec<[Leg; 2]>,
    /// Who may stand in and was not asked yet; looked up at first need.
    fallbacks: Option<VecDeque<NodeId>>,
}

/// One owner's copy.
#[derive(Clone, Copy, Debug)]
struct Leg {
    owner: NodeId,
    /// Questions about it that have no answer yet.
    under_way: u8,
    state: LegState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LegState {
    /// Nobody has it yet.
    Open,
    /// This node has it: the owner, or a fallback for it.
    Done(NodeId),
    /// Nobody can be asked any more: the owner is owed it.
    Owed,
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
        quorum: Quorum,
        role: Role,
        strict: bool,
        key: Key,
        partition: Partition,
        state: Arc<Siblings>,
    ) -> Writing {
        Writing {
            written: Some(written),
            quorum,
            role,
            own_settled: false,
            strict,
            key,
            partition,
            state,
            remembered: None,
            legs: SmallVec::new(),
            fallbacks: None,
        }
    }

    pub(in crate::protocol) fn quorum(&self) -> Quorum {
        self.quorum
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
        self.legs.iter().any(|leg| 0 < leg.under_way)
    }

    fn leg(&mut self, owner: NodeId) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.owner == owner)
    }

    fn count_own(&mut self) {
        self.own_settled = true;
        match self.role {
            Role::Owner => self.quorum.on_owner(),
            Role::Fallback => self.quorum.on_fallback(),
        }
    }
}

impl Shard {
    /// Lets a write wait for its own append, and sends it to the other owners.
    pub(super) fn spread(
        &mut self,
        now: Now,
        asker: Asker,
        mut writing: Box<Writing>,
        append: AppendId,
        send: Send,
        effects: &mut Effects,
    ) {
        let whom = asker.whom;
        let (mut append, partition) = (append, writing.partition);
        let me = self.view.me;
        let mut owners: SmallVec<[NodeId; 3]> =
            self.view.layout.owners(partition).filter(|owner| *owner != me).collect();
        if writing.role == Role::Fallback {
            // This copy stands for the first of them.
            let first = owners.remove(0);
            append = self.owe(first, writing.key.clone(), true, effects).unwrap_or(append);
        }
        let leg = |owner| Leg { owner, under_way: 0, state: LegState::Open };
        writing.legs = owners.iter().copied().map(leg).collect();
        if append <= self.durable {
            writing.count_own();
        }
        let settled = writing.own_settled;
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
        for owner in owners {
            if self.is_reachable(owner) {
                self.ask_for_copy(now, whom, owner, owner, version.clone(), effects);
            } else {
                self.stand_in(now, whom, owner, effects);
            }
        }
        self.stretch_later_where_needed(now, whom);
        self.judge_write(whom, effects);
    }

    fn wait_for_own(&mut self, asker: Asker, writing: Box<Writing>, settled: bool, append: AppendId) {
        self.wait(asker, Waiting::Write(writing));
        if !settled {
            self.await_append(append, asker.whom);
        }
    }

    /// Fallbacks are asked too when owners are silent; where there are none, waiting is all that can be done.
    fn stretch_later_where_needed(&mut self, now: Now, whom: Whom) {
        if self.view.layout.rows().len() > usize::from(self.copies.n) {
            self.stretch_later(now, whom);
        }
    }

    fn writing_mut(&mut self, whom: Whom) -> Option<&mut Writing> {
        match self.waiting_mut(whom) {
            Some(Waiting::Write(writing)) => Some(writing),
            _ => None,
        }
    }

    fn ask_for_copy(&mut self, now: Now, whom: Whom, owner: NodeId, to: NodeId, ask: Ask, effects: &mut Effects) {
        let Some(writing) = self.writing_mut(whom) else { return };
        let partition = writing.partition;
        if let Some(leg) = writing.leg(owner) {
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
        match self.waiting.get(&whom) {
            Some((_, Waiting::Write(writing))) => Some(self.whole_of(writing, stands_for)),
            _ => None,
        }
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
        let found = std::iter::from_fn(|| left.pop_front()).find(|node| *node != view.me && self.is_reachable(*node));
        if let Some(writing) = self.writing_mut(whom) {
            writing.fallbacks = Some(left);
        }
        found
    }

    fn leave_owed(&mut self, whom: Whom, owner: NodeId, effects: &mut Effects) {
        let Some(writing) = self.writing_mut(whom) else { return };
        let key = writing.key.clone();
        let Some(leg) = writing.leg(owner).filter(|leg| leg.under_way == 0 && leg.state == LegState::Open) else {
            return;
        };
        leg.state = LegState::Owed;
        writing.quorum.on_failed();
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
        let Some(leg) = writing.leg(owner) else { return };
        leg.under_way -= 1;
        match told {
            Ok(Told::Stored) if leg.state == LegState::Open => {
                leg.state = LegState::Done(from);
                // Nodes count once, also where a newer layout made an owner of a fallback.
                let copies = writing.legs.iter().filter(|leg| leg.state == LegState::Done(from)).count();
                match (copies, from == owner) {
                    (1, true) => writing.quorum.on_owner(),
                    (1, false) => writing.quorum.on_fallback(),
                    _ => {}
                }
            }
            Ok(Told::Stored) => {}
            // What it was sent was named before the round, which this node has drained for: so the copy is not from before.
            Ok(Told::Behind | Told::Refused(Refused::Round(_))) => {
                let stands_for = (from != owner).then_some(owner);
                let Some(whole) = self.whole_for(whom, stands_for) else { return };
                self.ask_for_copy(now, whom, owner, from, whole, effects);
            }
            Ok(Told::Refused(Refused::Layout(_))) => self.outdated.push(whom),
            _ if leg.state == LegState::Open => self.stand_in(now, whom, owner, effects),
            _ => {}
        }
        self.judge_write(whom, effects);
    }

    /// It has waited for long: fallbacks are asked beside the owners that are silent.
    pub(in crate::protocol) fn stretch_write(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let Some(writing) = self.writing_mut(whom) else { return };
        let is_silent = |leg: &&Leg| leg.state == LegState::Open && 0 < leg.under_way;
        let silent: SmallVec<[NodeId; 3]> = writing.legs.iter().filter(is_silent).map(|leg| leg.owner).collect();
        for owner in silent {
            self.peers.on_silence(owner, now.instant);
            self.stand_in(now, whom, owner, effects);
        }
    }

    /// A newer layout: owners that it names and that do not have the write yet are asked.
    pub(in crate::protocol) fn spread_anew(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let view = Arc::clone(&self.view);
        let Some(writing) = self.writing_mut(whom) else { return };
        let owners = view.layout.owners(writing.partition).filter(|owner| *owner != view.me);
        let mut lacking = SmallVec::<[NodeId; 3]>::new();
        for owner in owners {
            match writing.leg(owner) {
                Some(leg) if leg.state != LegState::Open || 0 < leg.under_way => continue,
                Some(_) => {}
                None => writing.legs.push(Leg { owner, under_way: 0, state: LegState::Open }),
            }
            lacking.push(owner);
        }
        let Some(whole) = self.whole_for(whom, None) else { return };
        for owner in lacking {
            self.ask_for_copy(now, whom, owner, owner, whole.clone(), effects);
        }
    }

    /// This node's own copy is durable.
    pub(in crate::protocol) fn on_own_copy(&mut self, whom: Whom, effects: &mut Effects) {
        if let Some(writing) = self.writing_mut(whom) {
            writing.count_own();
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
        let open = writing.legs.iter_mut().filter(|leg| leg.state == LegState::Open && leg.under_way == 0);
        for leg in open {
            leg.state = LegState::Owed;
            self.owe(leg.owner, writing.key.clone(), false, effects);
        }
    }

    fn judge_write(&mut self, whom: Whom, effects: &mut Effects) {
        let Some(writing) = self.writing_mut(whom) else { return };
        let (quorum, verdict) = (writing.quorum, writing.quorum.verdict());
        let written = if verdict == Verdict::Wait { None } else { writing.written.take() };
        let is_done = writing.is_answered() && writing.own_settled && !writing.is_spreading();
        let is_done = is_done && writing.legs.iter().all(|leg| leg.state != LegState::Open);
        if let Some(mut written) = written {
            let outcome = if verdict == Verdict::Enough {
                written.level = quorum.level();
                self.stats.remembered_writes += u64::from(written.remembered);
                match written.level.fallbacks {
                    0 => self.stats.writes_by_owners += 1,
                    _ => self.stats.writes_with_fallbacks += 1,
                }
                Ok(Reply::Written(written))
            } else {
                self.stats.quorum_failures += 1;
                Err(quorum.not_met())
            };
            self.finish(whom, outcome, effects);
        }
        if is_done {
            self.take(whom);
        }
    }
}
