//! The memory of operations: which write a client's operation id already led to.
//!
//! Whoever stores a version that carries an operation id remembers (key, id) -> what came of it, for
//! `OPERATION_MEMORY` of running time and up to a bound, the oldest going first. A retry that finds its id mints
//! nothing; the same id with another operation is refused. Ids count by key: the same id on another key is another
//! operation (SEEDS fault 8).

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::protocol::causality::{Context, Operation};
use crate::protocol::config::{OPERATION_MEMORY, OPERATIONS_BYTES_MAX, OPERATIONS_MAX};
use crate::protocol::planted::{Bug, Planted};
use crate::protocol::table::Table;
use crate::protocol::types::{AppendId, Dot, Instant, Key, OperationId, WallTime};

const DOT_BYTES: usize = 16;

/// What came of an operation: enough to answer its retry as the first try was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The client's name for it, and a digest of what it said.
    pub operation: Operation,
    /// The version that it minted.
    pub dot: Dot,
    /// When its coordinator minted it.
    pub written_at: WallTime,
    /// The versions that it replaced.
    pub superseded: SmallVec<[Dot; 1]>,
    /// What its writer had seen afterwards.
    pub context: Context,
}

/// What is known of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// Nothing: mint.
    Unknown,
    /// The same operation was minted; it is durable once this append is.
    Known(&'a Remembered, AppendId),
    /// The id was used on this key for another operation: refuse.
    Reused,
}

/// The table. Bounded by count, bytes and time.
#[derive(Debug)]
pub struct Operations {
    known: Table<(Key, OperationId), (Remembered, AppendId)>,
    by_age: VecDeque<(Instant, Key, OperationId)>,
    bytes: usize,
    planted: Planted,
}

impl Operations {
    /// An empty one, whose table hashes by `seed`.
    pub fn new(seed: u64, planted: Planted) -> Operations {
        Operations { known: Table::new(seed), by_age: VecDeque::new(), bytes: 0, planted }
    }

    /// What is known of `operation` on `key`.
    pub fn lookup(&self, key: &Key, operation: &Operation) -> Lookup<'_> {
        match self.known.get(&place(self.planted, key, &operation.id)) {
            None => Lookup::Unknown,
            Some((known, _)) if known.operation.digest != operation.digest => Lookup::Reused,
            Some((known, append)) => Lookup::Known(known, *append),
        }
    }

    /// Remembers what came of an operation. One that is known already stays as it is.
    pub fn remember(&mut self, now: Instant, key: Key, remembered: Remembered, append: AppendId) {
        let id = remembered.operation.id.clone();
        let place = place(self.planted, &key, &id);
        if self.known.contains(&place) {
            return;
        }
        self.bytes += bytes(&key, &remembered);
        self.known.insert(place, (remembered, append));
        self.by_age.push_back((now, key, id));
    }

    /// Takes out the next operation that is too old, or one too many.
    pub fn next_forgotten(&mut self, now: Instant) -> Option<(Key, OperationId)> {
        let (since, ..) = self.by_age.front()?;
        let old = now.since(*since) >= OPERATION_MEMORY;
        let crowded = self.known.len() > OPERATIONS_MAX || self.bytes > OPERATIONS_BYTES_MAX;
        if !old && !crowded {
            return None;
        }
        let (_, key, id) = self.by_age.pop_front()?;
        if let Some((remembered, _)) = self.known.remove(&place(self.planted, &key, &id)) {
            self.bytes -= bytes(&key, &remembered);
        }
        Some((key, id))
    }

    /// Forgets what was to become durable after this append, and will not.
    pub fn forget_after(&mut self, durable: AppendId) {
        let Operations { known, by_age, bytes: held, planted } = self;
        by_age.retain(|(_, key, id)| {
            let gone = known.remove_if(&place(*planted, key, id), |(_, append)| durable < *append);
            *held -= gone.as_ref().map_or(0, |(remembered, _)| bytes(key, remembered));
            gone.is_none()
        });
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(in crate::protocol) fn len(&self) -> usize {
        self.known.len()
    }
}

/// Where an operation stands in the table.
fn place(planted: Planted, key: &Key, id: &OperationId) -> (Key, OperationId) {
    let alone = planted.is(Bug::IdAlone).then(|| Key::new(id.as_bytes()).ok()).flatten();
    (alone.unwrap_or_else(|| key.clone()), id.clone())
}

fn bytes(key: &Key, remembered: &Remembered) -> usize {
    let clocks = DOT_BYTES * remembered.superseded.len() + remembered.context.bytes();
    key.as_bytes().len() + remembered.operation.id.as_bytes().len() + clocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::ActorId;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn operation(id: &str, digest: u64) -> Operation {
        Operation { id: OperationId::new(id).unwrap(), digest }
    }

    fn remembered(operation: Operation) -> Remembered {
        let dot = Dot { actor: ActorId(1), counter: 1 };
        Remembered { operation, dot, written_at: WallTime(0), superseded: SmallVec::new(), context: Context::default() }
    }

    #[test]
    fn an_id_is_known_for_its_own_key_and_operation_only() {
        let mut operations = Operations::new(7, Planted::NONE);
        operations.remember(Instant(0), key("a"), remembered(operation("id", 7)), AppendId(1));

        assert!(matches!(operations.lookup(&key("a"), &operation("id", 7)), Lookup::Known(..)));
        assert_eq!(operations.lookup(&key("a"), &operation("id", 8)), Lookup::Reused);
        assert_eq!(operations.lookup(&key("b"), &operation("id", 7)), Lookup::Unknown);
    }

    #[test]
    fn the_memory_is_bounded_by_time_and_by_count() {
        let mut operations = Operations::new(7, Planted::NONE);
        for n in 0..=OPERATIONS_MAX {
            operations.remember(Instant(0), key("a"), remembered(operation(&n.to_string(), 0)), AppendId(1));
        }

        let forgotten = operations.next_forgotten(Instant(1)).unwrap();
        assert_eq!(forgotten.1, OperationId::new("0").unwrap(), "the oldest goes first");
        assert_eq!(operations.next_forgotten(Instant(1)), None, "the rest is within the bound");

        let later = Instant(0) + OPERATION_MEMORY;
        assert!(operations.next_forgotten(later).is_some(), "ten minutes later all go");
    }

    #[test]
    fn the_memory_is_bounded_by_the_clocks_that_it_holds() {
        let dot = |counter| Dot { actor: ActorId(counter), counter };
        let context = Context::of((1..=1_024).map(dot).collect());
        let superseded: SmallVec<[Dot; 1]> = (1..=1_024).map(dot).collect();
        let fit = OPERATIONS_BYTES_MAX / (2 * 16 * 1_024);
        let mut operations = Operations::new(7, Planted::NONE);
        for n in 0..=fit {
            let operation = operation(&n.to_string(), 0);
            let large =
                Remembered { context: context.clone(), superseded: superseded.clone(), ..remembered(operation) };
            operations.remember(Instant(0), key("a"), large, AppendId(1));
        }

        let forgotten = std::iter::from_fn(|| operations.next_forgotten(Instant(1)));
        assert_eq!(forgotten.count(), 2, "ids and keys take room as well");
    }
}
