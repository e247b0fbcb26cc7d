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
use crate::protocol::io::{Append, Arrived, Change, Effect, Effects, Held, Unreadable};
use crate::protocol::message::{Causality, Delete, Failure, Level, Put, Reply, Terms, Written, operation};
use crate::protocol::replica::{Lookup, Remembered};
use crate::protocol::shard::{Asker, Load, Shard, Waiting};
use crate::protocol::types::{ActorId, AppendId, Dot, Key, Now, RequestId, Value, WallTime};

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
    /// The answer, but for its level.
    written: Written,
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

/// A key's state; `None` when it was never written.
type State = Option<Arc<Siblings>>;

/// A write on its way to the log, or one that was there before.
struct Begun {
    writing: Writing,
    append: AppendId,
    /// The key's newest state, if this changed it.
    state: State,
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
        let minting = match self.minting(asked) {
            Ok(minting) if self.has_room() => minting,
            Ok(_) => return Shard::refuse(asker.id, Failure::overloaded(), effects),
            Err(failure) => return Shard::refuse(asker.id, failure, effects),
        };
        match (self.busy.get_mut(&minting.key), held) {
            (Some(Busy::Appended(newest, _)), _) => {
                let newest = Arc::clone(newest);
                self.mint(now, asker, minting, Some(&newest), effects);
            }
            (Some(Busy::Loading(queue)), _) => {
                queue.push_back(asker.id);
                self.wait(asker, Waiting::Mint(Box::new(minting)));
            }
            (None, Held::Known(state)) => {
                self.mint(now, asker, minting, state.as_deref(), effects);
            }
            (None, Held::Unknown) => {
                let key = minting.key.clone();
                self.busy.insert(key.clone(), Busy::Loading([asker.id].into()));
                self.wait(asker, Waiting::Mint(Box::new(minting)));
                self.load(Load::Mint(key.clone()), key, effects);
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

    /// The durable state of a key has come in for those that wait to mint upon it, unless their time is over.
    pub(in crate::protocol) fn on_held(
        &mut self,
        now: Now,
        key: &Key,
        found: Result<State, Unreadable>,
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
            Ok(mut newest) => {
                for id in queue {
                    if let Some((deadline, Waiting::Mint(minting))) = self.take(id) {
                        let state = self.mint(now, Asker { id, deadline }, *minting, newest.as_deref(), effects);
                        newest = state.or(newest);
                    }
                }
            }
        }
    }

    /// Mints upon the key's newest state, and gives the one after it, if it is another.
    fn mint(
        &mut self,
        now: Now,
        asker: Asker,
        minting: Minting,
        newest: Option<&Siblings>,
        effects: &mut Effects,
    ) -> State {
        match self.begin(now, minting, newest, effects) {
            Err(failure) => {
                Shard::refuse(asker.id, failure, effects);
                None
            }
            Ok(Begun { writing, append, state }) => {
                self.await_append(asker, writing, append, effects);
                state
            }
        }
    }

    fn begin(
        &mut self,
        now: Now,
        minting: Minting,
        newest: Option<&Siblings>,
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
        let write = Write { value, supersedes, operation, written_at: now.wall };
        let minted = match newest {
            Some(newest) => newest.mint(dot, write)?,
            None => Siblings::default().mint(dot, write)?,
        };
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
                let written = Written {
                    dot: known.dot,
                    context: known.context.seal(self.cluster, &minting.key),
                    superseded: known.superseded.clone(),
                    written_at: known.written_at,
                    remembered: true,
                    level: Level::default(),
                };
                Ok(Some(Begun { writing: Writing { written, quorum: minting.quorum }, append, state: None }))
            }
        }
    }

    fn append(&mut self, now: Now, key: Key, minted: Minted, quorum: Quorum, effects: &mut Effects) -> Begun {
        let id = self.next_append();
        let remember = remember(&minted, now.wall);
        if let Some(remembered) = &remember {
            self.operations.remember(now.instant, key.clone(), Remembered::clone(remembered), id);
        }
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
        self.busy.insert(key.clone(), Busy::Appended(Arc::clone(&state), id));
        self.settling.push_back((id, key.clone()));
        let change = Change::Version(Arrived { state: Arc::clone(&state), dot, upon, supersedes, remember });
        effects.push(Effect::Append(Append { id, key, change }));
        Begun { writing: Writing { written, quorum }, append: id, state: Some(state) }
    }

    /// Appends ascend, so a write waits behind all others; only a retry may wait for an append before theirs.
    fn await_append(&mut self, asker: Asker, writing: Writing, append: AppendId, effects: &mut Effects) {
        if append <= self.durable {
            return self.on_durable(asker, writing, effects);
        }
        self.wait(asker, Waiting::Append(writing));
        let at = match self.awaiting.back() {
            Some((last, _)) if append < *last => self.awaiting.partition_point(|(other, _)| *other <= append),
            _ => self.awaiting.len(),
        };
        self.awaiting.insert(at, (append, asker.id));
    }

    /// Everything up to `through` is durable: keys come to rest, writes are answered.
    pub(in crate::protocol) fn on_appended(&mut self, through: AppendId, effects: &mut Effects) {
        self.durable = through;
        while let Some((append, key)) = self.settling.pop_front_if(|(append, _)| *append <= through) {
            self.busy.remove_if(&key, |busy| matches!(busy, Busy::Appended(_, newest) if *newest == append));
        }
        while let Some((_, id)) = self.awaiting.pop_front_if(|(append, _)| *append <= through) {
            if let Some((deadline, Waiting::Append(writing))) = self.take(id) {
                self.on_durable(Asker { id, deadline }, writing, effects);
            }
        }
    }

    /// This owner has the write for good; it is answered, or waits for others.
    fn on_durable(&mut self, asker: Asker, mut writing: Writing, effects: &mut Effects) {
        writing.quorum.on_owner();
        if writing.quorum.verdict() != Verdict::Enough {
            return self.wait(asker, Waiting::Append(writing));
        }
        let Writing { mut written, quorum } = writing;
        written.level = quorum.level();
        effects.push(Effect::Reply { id: asker.id, outcome: Ok(Reply::Written(written)) });
    }

    /// The log has failed: whatever was under way may be on disk or not, so the actor ends and writes stop for good.
    pub(in crate::protocol) fn on_appends_failed(&mut self, actor: ActorId, effects: &mut Effects) {
        self.stopped = true;
        (self.actor, self.counter) = (actor, 0);
        self.settling.clear();
        self.busy.retain(|busy| matches!(busy, Busy::Loading(_)));
        for (_, id) in std::mem::take(&mut self.awaiting) {
            self.answer(id, Err(Failure::WritesStopped { core: self.core }), effects);
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
