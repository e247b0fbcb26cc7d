//! Writing one key: read what is held, mint upon it, append, count, answer.
//!
//! Reading, merging and writing a key is atomic because one shard does it: a second write of a key finds the newest
//! *appended* state and joins the next batch of the log at once, while readers still see the newest *durable* one
//! (DESIGN section 8). So a hot key is not limited to one write a sync.

use std::collections::VecDeque;
use std::sync::Arc;

use super::quorum::{Quorum, Verdict};
use crate::protocol::causality::{Context, ContextError, Minted, Operation, Siblings, Supersedes, Write};
use crate::protocol::config::MINTING_BYTES_MAX;
use crate::protocol::io::{Append, Effect, Effects, Unreadable};
use crate::protocol::message::{Causality, Delete, Failure, Put, Reply, Terms, Written, operation};
use crate::protocol::replica::{Lookup, Remembered};
use crate::protocol::shard::{Load, Shard, Waiting};
use crate::protocol::types::{ActorId, AppendId, Dot, Instant, Key, Now, RequestId, Value, WallTime};

/// A write that is not minted yet.
#[derive(Debug)]
pub(in crate::protocol) struct Minting {
    key: Key,
    value: Option<Value>,
    supersedes: Supersedes,
    operation: Option<Box<Operation>>,
    quorum: Quorum,
}

/// A write that is minted and waits for its appends.
#[derive(Debug)]
pub(in crate::protocol) struct Writing {
    key: Key,
    dot: Dot,
    context: Context,
    superseded: Vec<Dot>,
    written_at: WallTime,
    remembered: bool,
    quorum: Quorum,
}

impl Minting {
    pub(in crate::protocol) fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// Bytes of memory that it holds, but for a fixed part.
    pub(in crate::protocol) fn bytes(&self) -> usize {
        let context = match &self.supersedes {
            Supersedes::Held | Supersedes::Nothing => 0,
            Supersedes::Seen(context) => context.bytes(),
        };
        self.key.as_bytes().len() + self.value.as_ref().map_or(0, Value::len) + context
    }
}

impl Writing {
    pub(in crate::protocol) fn quorum(&self) -> Quorum {
        self.quorum
    }
}

/// What is under way for one key. A key at rest has none.
#[derive(Debug)]
pub(in crate::protocol) enum Busy {
    /// Its state is being read so that these may be minted upon it, in order.
    Loading(VecDeque<RequestId>),
    /// Its newest appended state, and the append that makes it durable.
    Appended(Arc<Siblings>, AppendId),
}

/// A write on its way to the log, or one that was there before.
struct Begun {
    writing: Writing,
    append: AppendId,
    /// The key's newest state, if this changed it.
    state: Option<Arc<Siblings>>,
}

/// What PUT and DELETE have in common.
struct Asked {
    key: Key,
    value: Option<Value>,
    causality: Causality,
    operation: Option<Box<Operation>>,
    terms: Terms,
}

impl Shard {
    pub(in crate::protocol) fn on_put(
        &mut self,
        now: Now,
        id: RequestId,
        put: Put,
        deadline: Instant,
        effects: &mut Effects,
    ) {
        let Put { key, value, causality, operation: name, terms } = put;
        let operation = operation(name, Some(&value), &causality);
        self.write(now, id, Asked { key, value: Some(value), causality, operation, terms }, deadline, effects);
    }

    pub(in crate::protocol) fn on_delete(
        &mut self,
        now: Now,
        id: RequestId,
        delete: Delete,
        deadline: Instant,
        effects: &mut Effects,
    ) {
        let Delete { key, causality, operation: name, terms } = delete;
        let operation = operation(name, None, &causality);
        self.write(now, id, Asked { key, value: None, causality, operation, terms }, deadline, effects);
    }

    fn write(&mut self, now: Now, id: RequestId, asked: Asked, deadline: Instant, effects: &mut Effects) {
        match self.minting(asked) {
            Err(failure) => Shard::refuse(id, failure, effects),
            Ok(minting) => {
                let key = minting.key.clone();
                if self.wait(id, deadline, Waiting::Mint(minting), effects) {
                    self.mint_when_loaded(now, id, key, effects);
                }
            }
        }
    }

    fn minting(&self, asked: Asked) -> Result<Minting, Failure> {
        if self.stopped {
            return Err(Failure::WritesStopped { core: self.core });
        }
        if self.minting_bytes >= MINTING_BYTES_MAX {
            return Err(Failure::overloaded());
        }
        let Asked { key, value, causality, operation, terms } = asked;
        let quorum = self.copies.write(terms.quorum)?;
        let supersedes = match causality {
            Causality::Blind => Supersedes::Held,
            Causality::Sibling => Supersedes::Nothing,
            Causality::Context(token) => Supersedes::Seen(self.open(&token, &key)?),
        };
        Ok(Minting { key, value, supersedes, operation, quorum })
    }

    /// A context that has seen what this actor will only mint later was made up, or comes from a life that an old image
    /// has undone. Taken into a set it would cover a dot before its use.
    fn open(&self, token: &[u8], key: &Key) -> Result<Context, ContextError> {
        let context = Context::open(token, self.cluster, key)?;
        if self.counter < context.newest_of(self.actor) {
            return Err(ContextError::Damaged { bytes: token.len() });
        }
        Ok(context)
    }

    fn mint_when_loaded(&mut self, now: Now, id: RequestId, key: Key, effects: &mut Effects) {
        match self.busy.get_mut(&key) {
            Some(Busy::Appended(newest, _)) => {
                let newest = Arc::clone(newest);
                self.mint(now, id, newest, effects);
            }
            Some(Busy::Loading(queue)) => queue.push_back(id),
            None => {
                self.busy.insert(key.clone(), Busy::Loading([id].into()));
                self.load(Load::Mint(key.clone()), key, effects);
            }
        }
    }

    /// The durable state of a key has come in for those that wait to mint upon it.
    pub(in crate::protocol) fn on_held(
        &mut self,
        now: Now,
        key: &Key,
        found: Result<Option<Arc<Siblings>>, Unreadable>,
        effects: &mut Effects,
    ) {
        let Some(Busy::Loading(queue)) = self.busy.remove(key) else {
            unreachable!("a key that is loaded for minting stays in loading until then");
        };
        match found {
            Err(Unreadable { reason }) => {
                for id in queue {
                    self.answer(id, Err(Failure::Unreadable { reason: reason.clone() }), effects);
                }
            }
            Ok(set) => {
                let mut newest = set.unwrap_or_default();
                for id in queue {
                    newest = self.mint(now, id, newest, effects);
                }
            }
        }
    }

    /// Mints the write that waits under `id`, unless its time is over, and gives the key's newest state.
    fn mint(&mut self, now: Now, id: RequestId, newest: Arc<Siblings>, effects: &mut Effects) -> Arc<Siblings> {
        let Some((deadline, Waiting::Mint(minting))) = self.take(id) else {
            return newest;
        };
        match self.begin(now, minting, &newest, effects) {
            Err(failure) => {
                Shard::refuse(id, failure, effects);
                newest
            }
            Ok(Begun { writing, append, state }) => {
                self.put_back(id, deadline, Waiting::Append(writing));
                self.await_append(id, append, effects);
                state.unwrap_or(newest)
            }
        }
    }

    fn begin(
        &mut self,
        now: Now,
        minting: Minting,
        newest: &Siblings,
        effects: &mut Effects,
    ) -> Result<Begun, Failure> {
        if self.stopped {
            return Err(Failure::WritesStopped { core: self.core });
        }
        if let Some(begun) = self.remembered(&minting)? {
            return Ok(begun);
        }
        let Minting { key, value, supersedes, operation, quorum } = minting;
        let dot = Dot { actor: self.actor, counter: self.counter + 1 };
        let minted = newest.mint(dot, Write { value, supersedes, operation, written_at: now.wall })?;
        self.counter = dot.counter;
        Ok(self.append(now, key, minted, quorum, effects))
    }

    /// What an earlier try of the same operation led to.
    fn remembered(&self, minting: &Minting) -> Result<Option<Begun>, Failure> {
        let Some(operation) = &minting.operation else {
            return Ok(None);
        };
        match self.operations.lookup(&minting.key, operation) {
            Lookup::Unknown => Ok(None),
            Lookup::Reused => Err(Failure::OperationReused),
            Lookup::Known(known, append) => {
                let writing = Writing {
                    key: minting.key.clone(),
                    dot: known.dot,
                    context: known.context.clone(),
                    superseded: known.superseded.clone(),
                    written_at: known.written_at,
                    remembered: true,
                    quorum: minting.quorum,
                };
                Ok(Some(Begun { writing, append, state: None }))
            }
        }
    }

    fn append(&mut self, now: Now, key: Key, minted: Minted, quorum: Quorum, effects: &mut Effects) -> Begun {
        let Minted { set, update, superseded, context } = minted;
        let append = self.next_append();
        let (dot, written_at) = (update.version.dot, update.version.written_at);
        let remember = update.version.operation.as_deref().map(|operation| Remembered {
            operation: operation.clone(),
            dot,
            written_at,
            superseded: superseded.clone(),
            context: context.clone(),
        });
        if let Some(remembered) = &remember {
            self.operations.remember(now.instant, key.clone(), remembered.clone(), append);
        }
        let state = Arc::new(set);
        self.busy.insert(key.clone(), Busy::Appended(Arc::clone(&state), append));
        self.settling.push_back((append, key.clone()));
        effects.push(Effect::Append(Append {
            id: append,
            key: key.clone(),
            update: Arc::new(update),
            state: Arc::clone(&state),
            remember,
        }));
        let writing = Writing { key, dot, context, superseded, written_at, remembered: false, quorum };
        Begun { writing, append, state: Some(state) }
    }

    fn await_append(&mut self, id: RequestId, append: AppendId, effects: &mut Effects) {
        if append <= self.durable {
            self.on_durable(id, effects);
        } else {
            self.awaiting.insert((append, id));
        }
    }

    /// Everything up to `through` is durable: keys come to rest, writes are answered.
    pub(in crate::protocol) fn on_appended(&mut self, through: AppendId, effects: &mut Effects) {
        self.durable = through;
        while let Some((append, key)) = self.settling.pop_front_if(|(append, _)| *append <= through) {
            if matches!(self.busy.get(&key), Some(Busy::Appended(_, newest)) if *newest == append) {
                self.busy.remove(&key);
            }
        }
        while let Some(&(append, id)) = self.awaiting.first()
            && append <= through
        {
            self.awaiting.pop_first();
            self.on_durable(id, effects);
        }
    }

    fn on_durable(&mut self, id: RequestId, effects: &mut Effects) {
        let Some(Waiting::Append(writing)) = self.waiting_mut(id) else {
            return;
        };
        writing.quorum.on_owner();
        if writing.quorum.verdict() != Verdict::Enough {
            return;
        }
        let Some((_, Waiting::Append(writing))) = self.take(id) else { unreachable!("it was there a line ago") };
        let written = Written {
            dot: writing.dot,
            context: writing.context.seal(self.cluster, &writing.key),
            superseded: writing.superseded,
            written_at: writing.written_at,
            remembered: writing.remembered,
            level: writing.quorum.level(),
        };
        effects.push(Effect::Reply { id, outcome: Ok(Reply::Written(written)) });
    }

    /// The log has failed: whatever was under way may be on disk or not, so the actor ends and writes stop for good.
    pub(in crate::protocol) fn on_appends_failed(&mut self, actor: ActorId, effects: &mut Effects) {
        self.stopped = true;
        (self.actor, self.counter) = (actor, 0);
        self.settling.clear();
        self.busy.retain(|_, busy| matches!(busy, Busy::Loading(_)));
        for (_, id) in std::mem::take(&mut self.awaiting) {
            self.answer(id, Err(Failure::WritesStopped { core: self.core }), effects);
        }
    }
}
