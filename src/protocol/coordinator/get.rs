//! Reading one key: ask the R best owners, count, answer, and repair those that were behind.
//!
//! A blind delete and a retry read before they write: what R owners hold, or what N - W + 1 of them remember.

use std::sync::Arc;

use smallvec::SmallVec;

use super::put::Minting;
use super::quorum::{Quorum, Verdict};
use crate::protocol::asks::About;
use crate::protocol::causality::{Siblings, Version};
use crate::protocol::config::READ_ALL_ONE_IN;
use crate::protocol::io::{Effects, Held, Unreadable};
use crate::protocol::message::{Copies, Copy, Failure, Found, Get, Outcome, Reply, Sibling};
use crate::protocol::peer::{Ask, Known, Recalled, Refused, Told, Unheard};
use crate::protocol::planted::Bug;
use crate::protocol::ring::{Partition, View};
use crate::protocol::shard::{Asker, Load, Shard, Waiting, Whom};
use crate::protocol::types::{Key, NodeId, Now};

/// A key's state; `None` when it was never written.
type State = Option<Arc<Siblings>>;

/// A read on its way.
#[derive(Debug)]
pub(in crate::protocol) struct Reading {
    pub(super) key: Key,
    pub(super) partition: Partition,
    then: Then,
    /// The R that it asks for, 0 for the layout's.
    asked: u8,
    quorum: Quorum,
    /// Counts how often it was begun: answers to what was asked before are of no use.
    attempt: u32,
    /// What was heard, of whom.
    pub(super) heard: SmallVec<[(NodeId, State); 3]>,
    /// Owners that were not asked yet, the best first.
    left: SmallVec<[NodeId; 3]>,
    /// Who was asked and has not answered yet.
    pub(super) under_way: SmallVec<[NodeId; 3]>,
    /// This node's own copy, by whose digest the others were asked.
    own: State,
    /// Why the own copy could not be read.
    unreadable: Option<Unreadable>,
}

/// What the reading is for.
#[derive(Debug)]
pub(super) enum Then {
    /// The live siblings are shown.
    Show,
    /// Every version of this node's own copy is, with its story.
    Tell,
    /// A blind delete is minted over all of it.
    Mint(Box<Minting>),
    /// A retry is answered as its first try was, if anybody remembers it.
    Recall(Box<Minting>, Option<Known>),
}

impl Reading {
    pub(in crate::protocol) fn quorum(&self) -> Quorum {
        self.quorum
    }

    pub(in crate::protocol) fn partition(&self) -> Partition {
        self.partition
    }

    pub(super) fn new(key: Key, partition: Partition, then: Then) -> Reading {
        Reading {
            key,
            partition,
            then,
            asked: 0,
            quorum: Quorum::default(),
            attempt: 0,
            heard: SmallVec::new(),
            left: SmallVec::new(),
            under_way: SmallVec::new(),
            own: None,
            unreadable: None,
        }
    }

    /// Bytes of the write that waits for it.
    pub(in crate::protocol) fn minting_bytes(&self) -> usize {
        match &self.then {
            Then::Mint(minting) | Then::Recall(minting, _) => minting.bytes(),
            Then::Show | Then::Tell => 0,
        }
    }

    fn hear(&mut self, node: NodeId, set: State) {
        self.quorum.on_owner();
        self.heard.push((node, set));
    }

    /// All that was heard, as one set.
    pub(super) fn joined(&self) -> State {
        let mut sets = self.heard.iter().filter_map(|(_, set)| set.as_ref());
        let first = Arc::clone(sets.next()?);
        Some(sets.fold(
            first,
            |joined, set| {
                if joined.digest() == set.digest() { joined } else { Arc::new(joined.join(set)) }
            },
        ))
    }
}

impl Shard {
    pub(in crate::protocol) fn on_get(&mut self, now: Now, asker: Asker, get: Get, held: Held, effects: &mut Effects) {
        let partition = self.ring.partition(&get.key);
        match self.copies.read(get.terms.quorum) {
            Ok(_) => {
                let mut reading = Reading::new(get.key, partition, Then::Show);
                reading.asked = get.terms.quorum;
                self.read(now, asker, reading, held, effects);
            }
            Err(failure) => self.finish(asker.whom, Err(failure), effects),
        }
    }

    pub(in crate::protocol) fn on_siblings(
        &mut self,
        now: Now,
        asker: Asker,
        key: Key,
        held: Held,
        effects: &mut Effects,
    ) {
        let partition = self.ring.partition(&key);
        self.read(now, asker, Reading::new(key, partition, Then::Tell), held, effects);
    }

    /// Begins a read. What is held counts as this owner's answer, and may be all that is needed.
    pub(super) fn read(&mut self, now: Now, asker: Asker, mut reading: Reading, held: Held, effects: &mut Effects) {
        if !self.has_room() {
            return self.finish(asker.whom, Err(Failure::overloaded()), effects);
        }
        let is_local = matches!(reading.then, Then::Tell);
        let is_read_here = is_local || self.coordinates(reading.partition);
        reading.quorum = self.count_of(&reading);
        let mut more = usize::from(reading.quorum.needed()) - usize::from(is_read_here);
        let is_all_here = is_read_here && (is_local || self.copies.n == 1);
        if !is_all_here {
            self.reads += 1;
            reading.left = self.other_owners(now, reading.partition);
            // Who is known to be down or to have lost what it held is not waited for: where too few are left, that is
            // said at once.
            let others = usize::from(reading.quorum.copies()) - usize::from(is_read_here);
            (reading.left.len()..others).for_each(|_| reading.quorum.on_failed());
            if self.reads.is_multiple_of(READ_ALL_ONE_IN) {
                more = reading.left.len();
            }
        }
        let mut is_known = !is_read_here;
        if let Held::Known(set) = &held
            && is_read_here
        {
            is_known = true;
            reading.own = self.shown(&reading.key, set.clone());
            let own = reading.own.clone();
            reading.hear(self.view.me, own);
            if more == 0 && reading.quorum.verdict() == Verdict::Enough {
                return self.end_read(now, asker, reading, effects);
            }
        }
        let (key, attempt) = (reading.key.clone(), reading.attempt);
        self.wait(asker, Waiting::Read(Box::new(reading)));
        if !is_known {
            self.load(Load::Copy(asker.whom, attempt), key, effects);
        }
        if 0 < more {
            self.stretch_later(now, asker.whom);
            (0..more).for_each(|_| self.ask_next_owner(now, asker.whom, effects));
        }
        self.judge_read(now, asker.whom, effects);
    }

    /// Reads go by another layout, or an owner knows a newer one: nothing that was heard counts any more.
    pub(in crate::protocol) fn read_anew(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let is_local = |reading: &Reading| matches!(reading.then, Then::Tell);
        if !matches!(self.waiting_mut(whom), Some(Waiting::Read(reading)) if !is_local(reading)) {
            return;
        }
        let Some((deadline, Waiting::Read(reading))) = self.take(whom) else { unreachable!("it was there a line ago") };
        let Reading { key, partition, then, asked, attempt, .. } = *reading;
        let anew = Reading { asked, attempt: attempt + 1, ..Reading::new(key, partition, then) };
        self.read(now, Asker { whom, deadline }, anew, Held::Unknown, effects);
    }

    /// How many owners are to be heard, in the layout that reads go by.
    fn count_of(&self, reading: &Reading) -> Quorum {
        match &reading.then {
            Then::Show => self.copies.read_at_most(reading.asked),
            Then::Tell => self.copies.read_at_most(1),
            Then::Mint(_) => self.copies.read_at_most(0),
            Then::Recall(minting, _) => {
                // So many owners have one in common with any W.
                let enough = self.copies.n - self.copies.write_at_most(minting.asked()).needed() + 1;
                let is_delete = minting.is_blind_delete();
                self.copies.read_at_most(if is_delete { enough.max(self.copies.r) } else { enough })
            }
        }
    }

    /// The owners beside this one that answer and have what they held: those in reach first, the quickest of them
    /// first.
    fn other_owners(&self, now: Now, partition: Partition) -> SmallVec<[NodeId; 3]> {
        let View { me, layout, .. } = &*self.view;
        let is_good = |owner: &NodeId| owner != me && self.view.is_up(*owner) && self.view.is_whole(layout, *owner);
        let mut others: SmallVec<[NodeId; 3]> = layout.owners(partition).filter(is_good).collect();
        others.sort_by_cached_key(|owner| (!self.is_reachable(*owner), self.peers.rank(*owner, now.instant)));
        if self.planted.is(Bug::DeadReader) {
            others.sort_by_key(|owner| !self.peers.rank(*owner, now.instant).0);
        }
        others
    }

    fn ask_next_owner(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let Some(Waiting::Read(reading)) = self.waiting_mut(whom) else {
            return;
        };
        if reading.left.is_empty() {
            return;
        }
        let next = reading.left.remove(0);
        reading.under_way.push(next);
        let (key, partition, attempt) = (reading.key.clone(), reading.partition, reading.attempt);
        let ask = match &reading.then {
            Then::Recall(minting, _) => Ask::Recall { key, operation: minting.operation().clone() },
            _ => Ask::Fetch { key, known: reading.own.as_ref().map(|own| own.digest()) },
        };
        self.ask(now, next, partition, ask, About::Read(whom, attempt), effects);
    }

    /// It has waited for long: the owners that were not asked yet are asked too.
    pub(in crate::protocol) fn stretch_read(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let Some(Waiting::Read(reading)) = self.waiting_mut(whom) else {
            return;
        };
        let (silent, left) = (reading.under_way.clone(), reading.left.len());
        silent.into_iter().for_each(|node| self.peers.on_silence(node, now.instant));
        if self.planted.is(Bug::DeadReader) {
            return;
        }
        (0..left).for_each(|_| self.ask_next_owner(now, whom, effects));
    }

    /// An owner has answered a read, or will not.
    pub(in crate::protocol) fn on_read_told(
        &mut self,
        now: Now,
        (whom, attempt): (Whom, u32),
        from: NodeId,
        told: Result<Told, Unheard>,
        effects: &mut Effects,
    ) {
        if let Some(reading) = self.late.get_mut(&whom) {
            if reading.attempt != attempt {
                return;
            }
            reading.take_in(from, told);
            if reading.under_way.is_empty() {
                let reading = self.late.remove(&whom).expect("it was there a line ago");
                self.repair(now, &reading, effects);
            }
            return;
        }
        let Some(Waiting::Read(reading)) = self.waiting_mut(whom) else {
            return;
        };
        if reading.attempt != attempt {
            return;
        }
        if let Ok(Told::Refused(Refused::Layout(newer))) = told {
            reading.under_way.retain(|node| *node != from);
            if newer == self.view.stamp() && !self.view.reads_newest() {
                // It reads by that layout already. So will this node in a moment, and then begin anew.
                return self.ask_next_owner(now, whom, effects);
            }
            return self.go_on_once_known(now, whom, newer, effects);
        }
        if !reading.take_in(from, told) {
            reading.quorum.on_failed();
            self.ask_next_owner(now, whom, effects);
        }
        self.judge_read(now, whom, effects);
    }

    /// The own copy of the key has come in for the request, unless its time is over already; or for a peer's.
    pub(in crate::protocol) fn on_copy(
        &mut self,
        now: Now,
        (whom, attempt): (Whom, u32),
        found: Result<State, Unreadable>,
        effects: &mut Effects,
    ) {
        let me = self.view.me;
        let found = match self.waiting.get(&whom) {
            Some((_, Waiting::Read(reading))) => found.map(|set| self.shown(&reading.key, set)),
            _ => found,
        };
        match self.waiting_mut(whom) {
            Some(Waiting::Read(reading)) if reading.attempt == attempt => match found {
                Ok(set) => {
                    reading.own.clone_from(&set);
                    reading.hear(me, set);
                }
                Err(unreadable) => {
                    reading.quorum.on_failed();
                    reading.unreadable = Some(unreadable);
                    self.ask_next_owner(now, whom, effects);
                }
            },
            Some(Waiting::Serve(_)) => return self.serve_copy(whom, found, effects),
            _ => return,
        }
        self.judge_read(now, whom, effects);
    }

    fn judge_read(&mut self, now: Now, whom: Whom, effects: &mut Effects) {
        let Some(Waiting::Read(reading)) = self.waiting_mut(whom) else {
            return;
        };
        let verdict = reading.verdict();
        if verdict == Verdict::Wait {
            return;
        }
        let Some((deadline, Waiting::Read(reading))) = self.take(whom) else { unreachable!("it was there a line ago") };
        if verdict == Verdict::Enough {
            return self.end_read(now, Asker { whom, deadline }, *reading, effects);
        }
        let joined = reading.joined();
        if let Then::Recall(mut minting, _) | Then::Mint(mut minting) = reading.then
            && !minting.is_strict()
        {
            // Too few are left to read from; it stays writable. Were it done before, readers are shown one of both.
            minting.set_seen(joined);
            return self.mint_upon(now, Asker { whom, deadline }, *minting, effects);
        }
        self.stats.quorum_failures += 1;
        let failure = match reading.unreadable {
            Some(Unreadable { reason }) => Failure::Unreadable { reason },
            None => reading.quorum.not_met(),
        };
        self.finish(whom, Err(failure), effects);
    }

    /// Enough was heard.
    fn end_read(&mut self, now: Now, asker: Asker, mut reading: Reading, effects: &mut Effects) {
        let joined = reading.joined();
        if let Some(joined) = &joined {
            self.look_for_a_past_of_ours(joined);
        }
        let then = std::mem::replace(&mut reading.then, Then::Show);
        match then {
            Then::Show => {
                self.stats.reads_by_owners += 1;
                self.stats.stale_reads += u64::from(reading.is_split());
                let outcome = self.show(joined.as_deref(), &reading);
                self.finish(asker.whom, outcome, effects);
                self.repair_later(now, asker.whom, reading, effects);
            }
            Then::Tell => {
                let outcome = self.tell_stories(joined.as_deref(), &reading.key);
                self.finish(asker.whom, outcome, effects);
            }
            Then::Mint(mut minting) => {
                minting.set_seen(joined);
                self.mint_upon(now, asker, *minting, effects);
            }
            Then::Recall(mut minting, known) => match known {
                None | Some(Known::Unknown) => {
                    if minting.is_blind_delete() {
                        minting.set_seen(joined);
                    }
                    self.mint_upon(now, asker, *minting, effects);
                }
                Some(Known::Reused) => self.finish(asker.whom, Err(Failure::OperationReused), effects),
                Some(Known::Minted(remembered)) => {
                    minting.set_seen(joined);
                    minting.set_remembered(remembered);
                    self.mint_upon(now, asker, *minting, effects);
                }
            },
        }
    }

    /// What a reader is shown of a key's set; a key that was never written has none.
    fn show(&mut self, set: Option<&Siblings>, reading: &Reading) -> Outcome {
        let empty = Siblings::default();
        let set = set.unwrap_or(&empty);
        let context = set.token(self.cluster, &reading.key);
        let siblings = set.shown().map(|(version, value)| Sibling {
            dot: version.dot,
            value: value.clone(),
            written_at: version.written_at,
        });
        let siblings: Vec<Sibling> = siblings.collect();
        self.stats.sibling_reads += u64::from(1 < siblings.len());
        Ok(Reply::Found(Found { siblings, context, level: reading.quorum.level() }))
    }

    fn tell_stories(&self, set: Option<&Siblings>, key: &Key) -> Outcome {
        let empty = Siblings::default();
        let set = set.unwrap_or(&empty);
        let copies = set.versions().iter().map(|version| self.story(version)).collect();
        Ok(Reply::Siblings(Copies { copies, context: set.token(self.cluster, key) }))
    }

    fn story(&self, version: &Version) -> Copy {
        let actor = version.dot.actor;
        Copy {
            dot: version.dot,
            node: self.directory.get(&actor).cloned().unwrap_or_else(|| actor.to_string()),
            value: version.value.clone(),
            written_at: version.written_at,
            operation: version.operation.as_ref().map(|operation| operation.id.clone()),
        }
    }
}

impl Reading {
    /// Takes in what an owner said; false when that was nothing to count.
    fn take_in(&mut self, from: NodeId, told: Result<Told, Unheard>) -> bool {
        self.under_way.retain(|node| *node != from);
        match told {
            Ok(Told::Set(set)) => self.hear(from, set),
            Ok(Told::Same) => {
                let same = self.own.clone();
                self.hear(from, same);
            }
            Ok(Told::Recalled(recalled)) => {
                let Recalled { known, set } = *recalled;
                self.recall(known);
                self.hear(from, set);
            }
            _ => return false,
        }
        true
    }

    /// What one owner remembers of the operation: that it was minted says more than that the id was used otherwise.
    pub(super) fn recall(&mut self, heard: Known) {
        if let Then::Recall(_, known) = &mut self.then
            && !matches!(known, Some(Known::Minted(_)))
            && heard != Known::Unknown
        {
            *known = Some(heard);
        }
    }

    /// Whether somebody lacks what another has.
    fn is_split(&self) -> bool {
        let digest = |set: &State| set.as_ref().map(|set| set.digest());
        self.heard.windows(2).any(|pair| digest(&pair[0].1) != digest(&pair[1].1))
    }

    fn verdict(&self) -> Verdict {
        match (&self.then, self.quorum.verdict()) {
            // Somebody remembers: the others need not be heard.
            (Then::Recall(_, Some(Known::Minted(_))), _) => Verdict::Enough,
            (_, verdict) => verdict,
        }
    }
}
