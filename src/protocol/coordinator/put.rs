//! Writing one key: read what is held, mint upon it, append and send at once, count, answer.

use std::sync::Arc;

use super::get::{Reading, Then};
use super::legs::Legs;
use super::spread::{Send, Writing};
use crate::protocol::antientropy::Shift;
use crate::protocol::causality::{Context, ContextError, Minted, Operation, Siblings, Supersedes, Write};
use crate::protocol::config::MINTING_BYTES_MAX;
use crate::protocol::io::{Arrived, Change, Effects, Held};
use crate::protocol::message::{Causality, Delete, Failure, Level, Put, Terms, Written, operation};
use crate::protocol::peer::{Known, Store};
use crate::protocol::planted::Bug;
use crate::protocol::replica::{Busy, Lookup, Remembered, State, Task};
use crate::protocol::ring::Partition;
use crate::protocol::shard::{Asker, Shard, Waiting};
use crate::protocol::types::{ActorId, AppendId, Dot, Key, Now, Value, WallTime};

/// A write that is not minted yet.
#[derive(Debug)]
pub(in crate::protocol) struct Minting {
    key: Key,
    partition: Partition,
    value: Option<Value>,
    supersedes: Supersedes,
    operation: Option<Box<Operation>>,
    /// The W that it asks for, 0 for the layout's; and the one that this meant when it came in.
    asked: u8,
    needed: u8,
    strict: bool,
    /// What other owners were found to hold; minted upon too.
    seen: State,
    /// What another owner remembers of it: it was minted before.
    remembered: Option<Box<Remembered>>,
}

impl Minting {
    /// The failure of one that was not minted in time.
    pub(in crate::protocol) fn not_met(&self) -> Failure {
        Failure::QuorumNotMet { needed: self.needed, got: 0 }
    }

    /// The W that it asks for, 0 for the layout's.
    pub(super) fn asked(&self) -> u8 {
        self.asked
    }

    pub(in crate::protocol) fn partition(&self) -> Partition {
        self.partition
    }

    /// Bytes of memory that it holds, but for a fixed part.
    pub(in crate::protocol) fn bytes(&self) -> usize {
        let context = match &self.supersedes {
            Supersedes::Held | Supersedes::Nothing => 0,
            Supersedes::Seen(context) => context.bytes(),
        };
        self.key.as_bytes().len() + self.value.as_ref().map_or(0, Value::len) + context
    }

    /// A delete without a context deletes what R owners hold.
    pub(super) fn is_blind_delete(&self) -> bool {
        self.value.is_none() && self.is_blind()
    }

    /// It replaces what its coordinator holds.
    fn is_blind(&self) -> bool {
        self.supersedes == Supersedes::Held
    }

    pub(super) fn is_strict(&self) -> bool {
        self.strict
    }

    pub(super) fn operation(&self) -> &Operation {
        self.operation.as_deref().expect("only a write with a name is asked for")
    }

    pub(super) fn set_seen(&mut self, seen: State) {
        self.seen = seen;
    }

    pub(super) fn set_remembered(&mut self, remembered: Box<Remembered>) {
        self.remembered = Some(remembered);
    }
}

/// What a write was begun as: minted now, or remembered.
struct Begun {
    /// The answer, but for its level.
    written: Written,
    /// The append after which this node's copy is durable.
    append: AppendId,
    /// The key's newest state, with the write in it.
    state: Arc<Siblings>,
    /// What the other owners are sent.
    send: Send,
}

/// What a client asks of a put or a delete.
struct Asked {
    key: Key,
    value: Option<Value>,
    causality: Causality,
    operation: Option<Box<Operation>>,
    terms: Terms,
}

impl Shard {
    pub(in crate::protocol) fn on_put(&mut self, now: Now, asker: Asker, put: Put, held: Held, effects: &mut Effects) {
        let Put { key, value, causality, operation: name, terms } = put;
        let operation = operation(name, Some(&value), &causality);
        self.write(now, asker, Asked { key, value: Some(value), causality, operation, terms }, held, effects);
    }

    pub(in crate::protocol) fn on_delete(
        &mut self,
        now: Now,
        asker: Asker,
        delete: Delete,
        held: Held,
        effects: &mut Effects,
    ) {
        let Delete { key, causality, operation: name, terms } = delete;
        let operation = operation(name, None, &causality);
        self.write(now, asker, Asked { key, value: None, causality, operation, terms }, held, effects);
    }

    fn write(&mut self, now: Now, asker: Asker, asked: Asked, held: Held, effects: &mut Effects) {
        let retry = asked.terms.retry;
        let partition = self.ring.partition(&asked.key);
        let is_owner = self.view.is_written(self.view.me, partition);
        let minting = match self.minting(asked) {
            // Every copy of it would be a hint that counts.
            Ok(minting) if !is_owner && !self.hints.has_room() => {
                self.stats.quorum_failures += 1;
                return self.finish(asker.whom, Err(minting.not_met()), effects);
            }
            Ok(minting) if self.has_room() => minting,
            Ok(_) => return self.finish(asker.whom, Err(Failure::overloaded()), effects),
            Err(failure) => return self.finish(asker.whom, Err(failure), effects),
        };
        let is_read_here = self.coordinates(partition);
        if is_owner && !(is_read_here && self.copies.n == 1) {
            if retry && minting.operation.is_some() && self.lookup(&minting) == Known::Unknown {
                return self.read_first(now, asker, |minting| Then::Recall(minting, None), minting, held, effects);
            }
            // What an owner holds that is not read from yet may be too little to mint upon.
            if (minting.is_blind_delete() && 1 < self.copies.r) || (minting.is_blind() && !is_read_here) {
                return self.read_first(now, asker, Then::Mint, minting, held, effects);
            }
        }
        match self.newest(&minting.key, held) {
            Held::Known(newest) => {
                self.mint(now, asker, minting, newest, effects);
            }
            Held::Unknown => self.mint_later(asker, minting, effects),
        }
    }

    fn read_first(
        &mut self,
        now: Now,
        asker: Asker,
        then: impl FnOnce(Box<Minting>) -> Then,
        minting: Minting,
        held: Held,
        effects: &mut Effects,
    ) {
        let (key, partition) = (minting.key.clone(), minting.partition);
        self.read(now, asker, Reading::new(key, partition, then(Box::new(minting))), held, effects);
    }

    /// Mints once the key's newest state is known.
    pub(super) fn mint_upon(&mut self, now: Now, asker: Asker, minting: Minting, effects: &mut Effects) {
        match self.newest(&minting.key, Held::Unknown) {
            Held::Known(newest) => {
                self.mint(now, asker, minting, newest, effects);
            }
            Held::Unknown => self.mint_later(asker, minting, effects),
        }
    }

    fn mint_later(&mut self, asker: Asker, minting: Minting, effects: &mut Effects) {
        let key = minting.key.clone();
        self.wait(asker, Waiting::Mint(Box::new(minting)));
        self.queue(&key, Task::Mint(asker.whom), effects);
    }

    fn minting(&self, asked: Asked) -> Result<Minting, Failure> {
        if self.stopped {
            return Err(Failure::WritesStopped { core: self.core });
        }
        if self.minting_bytes >= MINTING_BYTES_MAX {
            return Err(Failure::overloaded());
        }
        let Asked { key, value, causality, operation, terms } = asked;
        let needed = self.copies.write(terms.quorum)?.needed();
        let supersedes = match causality {
            Causality::Blind => Supersedes::Held,
            Causality::Sibling => Supersedes::Nothing,
            Causality::Context(token) => Supersedes::Seen(self.open(&token, &key)?),
        };
        let (partition, strict, asked) = (self.ring.partition(&key), terms.strict, terms.quorum);
        let (seen, remembered) = (None, None);
        Ok(Minting { key, partition, value, supersedes, operation, asked, needed, strict, seen, remembered })
    }

    /// A context that has seen what this actor will only mint later was made up, or comes from a life that an old image
    /// has undone. Taken into a set it would cover a dot before its use.
    fn open(&self, token: &[u8], key: &Key) -> Result<Context, ContextError> {
        let context = match self.planted.is(Bug::ForeignContext) {
            true => Context::open_of_any_key(token, self.cluster)?.0,
            false => Context::open(token, self.cluster, key)?,
        };
        if self.counter < context.newest_of(self.actor) {
            return Err(ContextError::Damaged { bytes: token.len() });
        }
        Ok(context)
    }

    /// Mints upon the key's newest state, and gives the one after it.
    pub(in crate::protocol) fn mint(
        &mut self,
        now: Now,
        asker: Asker,
        mut minting: Minting,
        mut newest: State,
        effects: &mut Effects,
    ) -> State {
        if let Some(seen) = minting.seen.take() {
            let told = minting.remembered.as_deref().filter(|known| seen.vector().covers(known.dot)).cloned();
            (newest, _) = self.merge_in(now, &minting.key, &seen, told.into_iter().collect(), newest, effects);
        }
        let (key, partition) = (minting.key.clone(), minting.partition);
        let (strict, asked) = (minting.strict, minting.asked);
        // Asked again, since the layout may be a newer one than when the request came in.
        if strict && !self.view.is_written(self.view.me, partition) {
            self.stats.quorum_failures += 1;
            self.finish(asker.whom, Err(minting.not_met()), effects);
            return newest;
        }
        match self.begin(now, minting, newest.as_ref(), effects) {
            Err(failure) => {
                self.finish(asker.whom, Err(failure), effects);
                newest
            }
            Ok(Begun { written, append, state, send }) => {
                let newest = Arc::clone(&state);
                let legs = Legs::new(&self.view, partition, asked, self.planted);
                let writing = Box::new(Writing::new(written, asked, legs, strict, key, partition, state));
                self.spread(now, asker, writing, append, send, effects);
                Some(newest)
            }
        }
    }

    fn begin(
        &mut self,
        now: Now,
        minting: Minting,
        newest: Option<&Arc<Siblings>>,
        effects: &mut Effects,
    ) -> Result<Begun, Failure> {
        if self.stopped {
            return Err(Failure::WritesStopped { core: self.core });
        }
        if let Some(begun) = self.remembered(&minting, newest)? {
            return Ok(begun);
        }
        let Minting { key, partition, value, supersedes, operation, .. } = minting;
        self.let_forgotten_dots_be(partition);
        let dot = Dot { actor: self.actor, counter: self.counter + 1 };
        let write = Write { value, supersedes, operation, written_at: now.wall };
        let minted = match newest {
            Some(newest) => newest.mint(dot, write)?,
            None => Siblings::default().mint(dot, write)?,
        };
        self.counter = dot.counter;
        Ok(self.append(now, key, newest.map(|newest| &**newest), minted, effects))
    }

    /// What an earlier try of the same operation led to.
    fn remembered(&self, minting: &Minting, newest: Option<&Arc<Siblings>>) -> Result<Option<Begun>, Failure> {
        let known = match &minting.remembered {
            Some(remembered) => Known::Minted(remembered.clone()),
            None => self.lookup(minting),
        };
        match known {
            Known::Unknown => Ok(None),
            // Nobody has shown the version that is said to have come of it.
            Known::Minted(known) if newest.is_none_or(|set| !set.vector().covers(known.dot)) => Ok(None),
            Known::Reused => Err(Failure::OperationReused),
            Known::Minted(known) => {
                let written = Written {
                    dot: known.dot,
                    context: known.context.seal(self.cluster, &minting.key),
                    superseded: known.superseded.clone(),
                    written_at: known.written_at,
                    remembered: true,
                    level: Level::default(),
                };
                let state = newest.cloned().unwrap_or_default();
                Ok(Some(Begun { written, append: self.append_of(&minting.key), state, send: Send::Remembered(known) }))
            }
        }
    }

    /// What this node knows of the write by its name.
    fn lookup(&self, minting: &Minting) -> Known {
        let Some(operation) = &minting.operation else {
            return Known::Unknown;
        };
        self.recall(&minting.key, operation)
    }

    /// What this node knows of an operation.
    pub(in crate::protocol) fn recall(&self, key: &Key, operation: &Operation) -> Known {
        match self.operations.lookup(key, operation) {
            Lookup::Unknown => Known::Unknown,
            Lookup::Reused => Known::Reused,
            Lookup::Known(known, _) => Known::Minted(Box::new(known.clone())),
        }
    }

    fn append(
        &mut self,
        now: Now,
        key: Key,
        before: Option<&Siblings>,
        minted: Minted,
        effects: &mut Effects,
    ) -> Begun {
        let remember = remember(&minted, now.wall);
        if let Some(remembered) = &remember {
            let append = self.appended.next();
            self.operations.remember(now.instant, key.clone(), Remembered::clone(remembered), append);
        }
        let is_alone = self.copies.n == 1 && self.view.change.is_none();
        let send = if is_alone {
            Send::Whole
        } else {
            let update = minted.update().cloned();
            Send::Version(Arc::new(Store { key: key.clone(), update, remember: remember.clone(), stands_for: None }))
        };
        let Minted { set, dot, upon, supersedes, superseded, context } = minted;
        let written = Written {
            dot,
            context: context.seal(self.cluster, &key),
            superseded,
            written_at: now.wall,
            remembered: false,
            level: Level::default(),
        };
        let state = Arc::new(set);
        let shift = Shift::between(&key, before, Some(&state));
        let arrived = Arrived { state: Arc::clone(&state), dot, upon, supersedes, remember, shift };
        let append = self.append_state(key, Some(Arc::clone(&state)), Change::Version(arrived), effects);
        Begun { written, append, state, send }
    }

    /// The log has failed: whatever was under way may be on disk or not, so the actor ends and writes stop for good.
    pub(in crate::protocol) fn on_appends_failed(&mut self, actor: ActorId, effects: &mut Effects) {
        self.stopped = true;
        (self.actor, self.counter) = (actor, 0);
        self.operations.forget_after(self.durable);
        self.settling.clear();
        self.busy.retain(|busy| matches!(busy, Busy::Loading(_)));
        for (_, whom) in std::mem::take(&mut self.awaiting) {
            self.on_own_copy_failed(whom, effects);
        }
    }
}

/// What to remember of a write, if its client named it.
fn remember(minted: &Minted, written_at: WallTime) -> Option<Box<Remembered>> {
    let operation = minted.update().version.operation.as_deref()?;
    Some(Box::new(Remembered {
        operation: operation.clone(),
        dot: minted.dot,
        written_at,
        superseded: minted.superseded.clone(),
        context: minted.context.clone(),
    }))
}
