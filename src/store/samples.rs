//! Appends for the tests of the store.

use std::convert::Infallible;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::protocol::causality::{Operation, Siblings, Supersedes, Write};
use crate::protocol::io::{Append, Arrived, Change};
use crate::protocol::replica::Remembered;
use crate::protocol::ring::Ring;
use crate::protocol::types::{ActorId, AppendId, CoreId, Dot, Key, LogId, OperationId, Value, WallTime};
use crate::store::Chunk;

pub(super) fn ring() -> Ring {
    Ring::new(8)
}

pub(super) fn log_id(start: u64) -> LogId {
    let core = CoreId(0);
    LogId { start, core }
}

pub(super) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// The version that came in with an append of one.
pub(super) fn arrived(append: &Append) -> &Arrived {
    match &append.change {
        Change::Version(arrived) => arrived,
        other => panic!("{other:?}"),
    }
}

/// What readers see after an append.
pub(super) fn state(append: &Append) -> Arc<Siblings> {
    append.state().unwrap().clone()
}

/// What an append of one version wants to be remembered.
pub(super) fn remembered(append: &Append) -> Remembered {
    arrived(append).remember.as_deref().unwrap().clone()
}

/// Key and value of an entry.
pub(super) type Spelled = (Vec<u8>, Option<Vec<u8>>);

/// What a chunk spells.
pub(super) fn entries(chunk: &Chunk) -> Vec<Spelled> {
    let mut entries = Vec::new();
    let put = |key: &[u8], value: Option<&[u8]>| {
        entries.push((key.to_vec(), value.map(<[u8]>::to_vec)));
        Ok::<_, Infallible>(())
    };
    let Ok(()) = chunk.spell(put);
    entries
}

/// Mints one append after the other, as a shard does.
pub(super) struct Shard {
    appended: u64,
}

impl Shard {
    pub(super) fn new() -> Shard {
        Shard { appended: 0 }
    }

    /// Writes over what `before` holds.
    pub(super) fn put(&mut self, name: &str, value: &[u8], before: &Siblings) -> Append {
        self.write(name, value, before, Supersedes::Held)
    }

    /// Writes a sibling beside what `before` holds.
    pub(super) fn put_beside(&mut self, name: &str, value: &[u8], before: &Siblings) -> Append {
        self.write(name, value, before, Supersedes::Nothing)
    }

    /// Writes over what `before` holds, under a name.
    pub(super) fn put_as(&mut self, name: &str, value: &[u8], before: &Siblings, operation: &str) -> Append {
        let mut append = self.put(name, value, before);
        if let Change::Version(arrived) = &mut append.change {
            arrived.remember = Some(Box::new(Remembered {
                operation: Operation { id: OperationId::new(operation).unwrap(), digest: 7 },
                dot: arrived.dot,
                written_at: WallTime(9),
                superseded: SmallVec::new(),
                context: arrived.state.context(),
            }));
        }
        append
    }

    fn write(&mut self, name: &str, value: &[u8], before: &Siblings, supersedes: Supersedes) -> Append {
        let dot = Dot { actor: ActorId(1), counter: self.appended + 1 };
        let write = Write {
            value: Some(Value::new(value.to_vec()).unwrap()),
            supersedes,
            operation: None,
            written_at: WallTime(9),
        };
        let minted = before.mint(dot, write).unwrap();
        let (state, upon, supersedes) = (Arc::new(minted.set), minted.upon, minted.supersedes);
        self.append(
            name,
            Change::Version(Arrived { state, dot, upon, supersedes, remember: None, shift: Default::default() }),
        )
    }

    /// Does this to a key.
    pub(super) fn append(&mut self, name: &str, change: Change) -> Append {
        self.appended += 1;
        Append { id: AppendId(self.appended), key: key(name), change }
    }
}
