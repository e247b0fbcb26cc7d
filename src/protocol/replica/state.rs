//! A key's newest state, and who waits for it.
//!
//! Reading, merging and writing a key is atomic because one shard does it: whatever comes next finds the newest
//! *appended* state and joins the next batch of the log at once, while readers still see the newest *durable* one
//! (DESIGN section 8). So a hot key is not limited to one write a sync.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::protocol::antientropy::{JobId, Shift};
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Append, Change, Effect, Effects, Held, Unreadable};
use crate::protocol::message::Failure;
use crate::protocol::peer::{Known, Pulled, Refused, Told};
use crate::protocol::planted::Bug;
use crate::protocol::replica::Remembered;
use crate::protocol::shard::{Asker, Load, Shard, Waiting, Whom};
use crate::protocol::types::{AppendId, Key, Now};

/// A key's state; `None` when it was never written.
pub(in crate::protocol) type State = Option<Arc<Siblings>>;

/// What is under way for one key. A key at rest has none.
#[derive(Debug)]
pub(in crate::protocol) enum Busy {
    /// Its state is being read for these, which follow each other upon it.
    Loading(VecDeque<Task>),
    /// Its newest appended state, and the append that makes it durable.
    Appended(State, AppendId),
}

/// What is done upon a key's newest state.
#[derive(Debug)]
pub(in crate::protocol) enum Task {
    /// A write, which waits in the table, is minted.
    Mint(Whom),
    /// A peer's question, which waits there too, is served.
    Serve(Whom),
    /// A set that a read has joined is taken in.
    TakeIn(Arc<Siblings>),
    /// A set that was pulled is taken in.
    Pulled(JobId, Box<Pulled>),
    /// The set is dropped if it has this digest still: its owners have it.
    Drop(JobId, u64),
    /// A set of this digest is forgotten in a round.
    Forget(u32, u64),
}

impl Task {
    /// Who waits for it.
    pub(in crate::protocol) fn whom(&self) -> Option<Whom> {
        match self {
            Task::Mint(whom) | Task::Serve(whom) => Some(*whom),
            Task::TakeIn(_) | Task::Pulled(..) | Task::Drop(..) | Task::Forget(..) => None,
        }
    }
}

impl Shard {
    /// The key's newest state, where that is known now.
    pub(in crate::protocol) fn newest(&self, key: &Key, held: Held) -> Held {
        match (self.busy.get(key), held) {
            (Some(Busy::Appended(newest, _)), _) => Held::Known(newest.clone()),
            (Some(Busy::Loading(_)), _) => Held::Unknown,
            (None, held) => held,
        }
    }

    /// Does a task once the key's newest state has come in.
    pub(in crate::protocol) fn queue(&mut self, key: &Key, task: Task, effects: &mut Effects) {
        if let Some(Busy::Loading(queue)) = self.busy.get_mut(key) {
            return queue.push_back(task);
        }
        self.busy.insert(key.clone(), Busy::Loading([task].into()));
        self.load(Load::State(key.clone()), key.clone(), effects);
    }

    /// The durable state of a key has come in for the tasks that wait for it, unless their time is over.
    pub(in crate::protocol) fn on_state(
        &mut self,
        now: Now,
        key: &Key,
        found: Result<State, Unreadable>,
        effects: &mut Effects,
    ) {
        let Some(Busy::Loading(queue)) = self.busy.remove(key) else {
            unreachable!("a key whose state is loaded stays in loading until then");
        };
        match found {
            Err(unreadable) => queue.into_iter().for_each(|task| self.fail(now, key, &task, &unreadable, effects)),
            Ok(mut newest) => {
                for task in queue {
                    newest = self.run(now, key, task, newest, effects);
                }
            }
        }
    }

    fn fail(&mut self, now: Now, key: &Key, task: &Task, unreadable: &Unreadable, effects: &mut Effects) {
        match task {
            Task::Mint(whom) => {
                let reason = unreadable.reason.clone();
                self.answer(*whom, Err(Failure::Unreadable { reason }), effects);
            }
            Task::Serve(whom) => {
                if self.take(*whom).is_some() {
                    self.tell(*whom, Told::Refused(Refused::Unreadable), effects);
                }
            }
            Task::Pulled(job, _) | Task::Drop(job, _) => self.fail_job(now, *job, effects),
            Task::TakeIn(_) => {}
            Task::Forget(round, _) => self.on_forgotten(now, self.ring.partition(key), *round, effects),
        }
    }

    /// Does a task upon the newest state of its key, and gives the one after it.
    fn run(&mut self, now: Now, key: &Key, task: Task, newest: State, effects: &mut Effects) -> State {
        let whom = match task {
            Task::TakeIn(set) => return self.merge_in(now, key, &set, Vec::new(), newest, effects).0,
            Task::Pulled(job, pulled) => return self.take_in_pulled(now, job, *pulled, newest, effects),
            Task::Drop(job, digest) => return self.drop_proven(now, job, key, digest, newest, effects),
            Task::Forget(round, digest) => {
                let newest = self.forget(key, round, digest, newest, effects);
                self.on_forgotten(now, self.ring.partition(key), round, effects);
                return newest;
            }
            Task::Mint(whom) | Task::Serve(whom) => whom,
        };
        match self.take(whom) {
            Some((deadline, Waiting::Mint(minting))) => {
                self.mint(now, Asker { whom, deadline }, *minting, newest, effects)
            }
            Some((deadline, Waiting::Serve(serving))) => {
                self.serve(now, Asker { whom, deadline }, *serving, newest, effects)
            }
            // Its time is over.
            _ => newest,
        }
    }

    /// Takes in a set that nobody waits for.
    pub(in crate::protocol) fn take_in_set(&mut self, now: Now, key: Key, set: Arc<Siblings>, effects: &mut Effects) {
        match self.newest(&key, Held::Unknown) {
            Held::Known(newest) => {
                self.merge_in(now, &key, &set, Vec::new(), newest, effects);
            }
            Held::Unknown => self.queue(&key, Task::TakeIn(set), effects),
        }
    }

    /// Merges a set into the key's newest state, and appends that where it says more, with what its sender remembers of
    /// it. Gives the newest state, and the append after which all of it is durable.
    pub(in crate::protocol) fn merge_in(
        &mut self,
        now: Now,
        key: &Key,
        came: &Arc<Siblings>,
        remember: Vec<Remembered>,
        newest: State,
        effects: &mut Effects,
    ) -> (State, AppendId) {
        self.look_for_a_past_of_ours(came);
        let merged = match &newest {
            Some(newest) => Arc::new(self.joined(newest, came)),
            None => Arc::clone(came),
        };
        let is_known = newest.as_ref().is_some_and(|newest| newest.digest() == merged.digest());
        // An operation is kept also where its version was superseded before it came: its retry must find it here.
        let is_remembered = |told: &Remembered| self.recall(key, &told.operation) != Known::Unknown;
        if self.stopped || (is_known && remember.iter().all(is_remembered)) {
            let append = self.append_of(key);
            return (newest, append);
        }
        let remember = self.remember_of(now, key, came, remember);
        let shift = Shift::between(key, newest.as_deref(), Some(&merged));
        let change = Change::Set { state: Arc::clone(&merged), came: Arc::clone(came), remember, shift };
        let append = self.append_state(key.clone(), Some(Arc::clone(&merged)), change, effects);
        (Some(merged), append)
    }

    /// What holds all of both.
    fn joined(&self, newest: &Siblings, came: &Siblings) -> Siblings {
        let merged = newest.join(came);
        if !self.planted.is(Bug::SiblingDropped) || merged.versions().len() < 2 {
            return merged;
        }
        let lost = merged.live().map(|(version, _)| version.dot).find(|dot| !came.holds(*dot));
        let left = merged.versions().iter().filter(|version| Some(version.dot) != lost).cloned();
        Siblings::new(merged.vector().clone(), left).unwrap_or(merged)
    }

    /// The append after which the key's newest state is durable.
    pub(in crate::protocol) fn append_of(&self, key: &Key) -> AppendId {
        match self.busy.get(key) {
            Some(Busy::Appended(_, append)) => *append,
            _ => AppendId::default(),
        }
    }

    /// Appends a change that leads to a new state of the key; to none when its set is dropped.
    pub(in crate::protocol) fn append_state(
        &mut self,
        key: Key,
        state: State,
        change: Change,
        effects: &mut Effects,
    ) -> AppendId {
        self.note_append(&key);
        let id = self.next_append();
        self.busy.insert(key.clone(), Busy::Appended(state, id));
        self.settling.push_back((id, key.clone()));
        effects.push(Effect::Append(Append { id, key, change }));
        id
    }

    /// Appends that the key's set is gone. No actor claims dots of it from then on.
    pub(in crate::protocol) fn append_drop(&mut self, key: Key, newest: &Siblings, effects: &mut Effects) -> AppendId {
        self.dropped.insert(self.ring.partition(&key));
        let change = Change::Drop { shift: Shift::between(&key, Some(newest), None) };
        self.append_state(key, None, change, effects)
    }

    /// Appends what changes no state.
    pub(in crate::protocol) fn append_beside(&mut self, key: Key, change: Change, effects: &mut Effects) -> AppendId {
        self.note_append(&key);
        let id = self.next_append();
        effects.push(Effect::Append(Append { id, key, change }));
        id
    }

    /// Appends ascend, so what waits waits behind all others; only a retry may wait for an append before theirs.
    pub(in crate::protocol) fn await_append(&mut self, append: AppendId, whom: Whom) {
        let at = match self.awaiting.back() {
            Some((last, _)) if append < *last => self.awaiting.partition_point(|(other, _)| *other <= append),
            _ => self.awaiting.len(),
        };
        self.awaiting.insert(at, (append, whom));
    }

    /// Everything up to `through` is durable: keys come to rest, writes are counted, peers are told.
    pub(in crate::protocol) fn on_appended(&mut self, now: Now, through: AppendId, effects: &mut Effects) {
        self.durable = through;
        while let Some((append, key)) = self.settling.pop_front_if(|(append, _)| *append <= through) {
            self.busy.remove_if(&key, |busy| matches!(busy, Busy::Appended(_, newest) if *newest == append));
        }
        while let Some((_, whom)) = self.awaiting.pop_front_if(|(append, _)| *append <= through) {
            match self.waiting_mut(whom) {
                Some(Waiting::Write(_)) => self.on_own_copy(whom, effects),
                Some(Waiting::Durable(_)) => {
                    if let Some((_, Waiting::Durable(told))) = self.take(whom) {
                        self.tell(whom, told, effects);
                    }
                }
                _ => {}
            }
        }
        self.settle_jobs(now, effects);
    }

    /// Whether a copy counts that this append makes durable.
    pub(in crate::protocol) fn counts(&self, append: AppendId) -> bool {
        append <= self.durable || self.planted.is(Bug::AckBeforeSync)
    }

    fn next_append(&mut self) -> AppendId {
        self.appended = self.appended.next();
        self.appended
    }
}
