//! A chunk: entries that enter the LSM tree together, or not at all.
//!
//! The overlay is a chunk in the making. What is durable in the log is put here, the newest state of a key in the place
//! of the one before, until the chunk is frozen, handed to the store thread and ingested. Sets stand by partition, in
//! the order in which they came; sorting and spelling them is left to that thread: freezing costs nothing on the core.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::layout::{self, Place};
use crate::protocol::antientropy::PartitionTree;
use crate::protocol::causality::Siblings;
use crate::protocol::io::Hint;
use crate::protocol::replica::Remembered;
use crate::protocol::ring::Partition;
use crate::protocol::types::{AppendId, Key, LogId, NodeId, OperationId};
use crate::wire::sets;

/// What an entry takes beside its content: its place in a list that grows by doubling, its part of the table that
/// finds it, the pointers, their counts.
const ENTRY_BYTES: usize = 192;

/// What is held of a key: `None` when it is known to have no set.
pub type Set = Option<Arc<Siblings>>;

/// A key and its newest durable state.
pub type KeySet = (Key, Set);

/// Entries for the LSM tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// By partition; no key twice. A key without a set is deleted.
    sets: Vec<Vec<KeySet>>,
    keys: usize,
    /// Of the partitions whose sets it changes, as they are with all of them.
    trees: BTreeMap<Partition, Box<PartitionTree>>,
    /// By the tree's key; `None` forgets.
    operations: BTreeMap<Vec<u8>, Option<Remembered>>,
    /// By the tree's key, whether it counted; `None` deletes.
    hints: BTreeMap<Vec<u8>, Option<bool>>,
    closed_below: Option<u64>,
    position: Option<(LogId, AppendId)>,
    bytes: u64,
}

impl Chunk {
    /// Adds a key that the chunk does not hold. Returns where it stands among those of its partition.
    pub fn add_set(&mut self, place: Place, set: Set) -> u32 {
        let partition = usize::from(place.partition.0);
        if self.sets.len() <= partition {
            self.sets.resize_with(partition + 1, Vec::new);
        }
        self.bytes += set_bytes(&place.key, set.as_deref());
        self.keys += 1;
        let sets = &mut self.sets[partition];
        sets.push((place.key, set));
        u32::try_from(sets.len() - 1).expect("a chunk that is bounded by bytes has fewer keys")
    }

    /// Puts the newest state of a key that stands `at` that place of its partition.
    pub fn replace_set(&mut self, partition: Partition, at: u32, set: Set) {
        let (_, held) = &mut self.sets[usize::from(partition.0)][at as usize];
        let bytes = |set: &Set| set.as_ref().map_or(0, |set| set.bytes()) as u64;
        self.bytes = self.bytes + bytes(&set) - bytes(held);
        *held = set;
    }

    /// Puts the tree of a partition, as it is with all that the chunk holds of it.
    pub fn put_tree(&mut self, partition: Partition, tree: &PartitionTree) {
        self.trees.insert(partition, Box::new(tree.clone()));
    }

    /// The partitions of which it holds keys.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> {
        (0..).map(Partition).zip(&self.sets).filter(|(_, sets)| !sets.is_empty()).map(|(partition, _)| partition)
    }

    /// Remembers what came of an operation.
    pub fn remember(&mut self, place: &Place, remembered: Remembered) {
        let key = layout::operation_key(place, &remembered.operation.id);
        self.put_operation(key, Some(remembered));
    }

    /// Forgets an operation.
    pub fn forget(&mut self, place: &Place, operation: &OperationId) {
        self.put_operation(layout::operation_key(place, operation), None);
    }

    /// Keeps a hint.
    pub fn hint(&mut self, place: &Place, hint: Hint) {
        self.put_hint(layout::hint_key(place, hint.target), Some(hint.counted));
    }

    /// Deletes the hint for a node.
    pub fn deliver(&mut self, place: &Place, target: NodeId) {
        self.put_hint(layout::hint_key(place, target), None);
    }

    /// Says that with this chunk the log is in the tree up to here.
    pub fn set_position(&mut self, log: LogId, position: AppendId) {
        self.position = Some((log, position));
    }

    /// Says that with this chunk all logs of earlier starts are in the tree for ever.
    pub fn close_below(&mut self, start: u64) {
        self.closed_below = Some(start);
    }

    /// The sets of a partition, in no order.
    pub fn sets_of(&self, partition: Partition) -> &[KeySet] {
        self.sets.get(usize::from(partition.0)).map_or(&[], Vec::as_slice)
    }

    /// Up to where the log is in the tree with this chunk.
    pub fn position(&self) -> Option<(LogId, AppendId)> {
        self.position
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.closed_below.is_none() && self.position.is_none()
    }

    /// Keys in it.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Keys, operations and hints in it.
    pub fn len(&self) -> usize {
        self.keys + self.operations.len() + self.hints.len()
    }

    /// Bytes of memory that it holds, at least as many as it spells.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Spells its entries as the tree takes them, in strictly ascending order of their keys: key and value, which is
    /// `None` where the entry is to be deleted.
    ///
    /// # Errors
    /// The first of `put`; the rest is not spelled.
    pub fn spell<E>(&self, mut put: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>) -> Result<(), E> {
        self.hints.iter().try_for_each(|(key, counted)| {
            let value = counted.map(|counted| [u8::from(counted)]);
            put(key, value.as_ref().map(|value| &value[..]))
        })?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for (partition, unsorted) in (0..).map(Partition).zip(&self.sets) {
            let mut sorted: Vec<&KeySet> = unsorted.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| key);
            for (name, set) in sorted {
                key.clear();
                layout::put_set_key(&mut key, partition, name.as_bytes());
                value.clear();
                set.iter().for_each(|set| sets::put_set(&mut value, set));
                put(&key, set.as_ref().map(|_| &value[..]))?;
            }
        }
        let closed_below = self.closed_below.map(layout::closed_below_entry);
        let position = self.position.map(|(log, position)| layout::position_entry(log, position));
        closed_below.into_iter().chain(position).try_for_each(|(key, value)| put(&key, Some(&value)))?;
        self.operations.iter().try_for_each(|(key, remembered)| {
            let value = remembered.as_ref().map(layout::encode_remembered);
            put(key, value.as_deref())
        })?;
        self.trees.iter().try_for_each(|(partition, tree)| {
            let (key, value) = layout::tree_entry(*partition, tree);
            put(&key, (!tree.is_empty()).then_some(&value))
        })
    }

    /// Frees it, some partitions at a time: the last to hold many states waits for memory with each. `between` is
    /// called now and then.
    pub fn free(self, mut between: impl FnMut()) {
        for sets in self.sets {
            drop(sets);
            between();
        }
    }

    fn put_operation(&mut self, key: Vec<u8>, remembered: Option<Remembered>) {
        let bytes = operation_bytes(&key, remembered.as_ref());
        match self.operations.insert(key.clone(), remembered) {
            None => self.bytes += bytes,
            Some(old) => self.bytes = self.bytes + bytes - operation_bytes(&key, old.as_ref()),
        }
    }

    fn put_hint(&mut self, key: Vec<u8>, counted: Option<bool>) {
        let bytes = (ENTRY_BYTES + key.len()) as u64;
        if self.hints.insert(key, counted).is_none() {
            self.bytes += bytes;
        }
    }
}

fn set_bytes(key: &Key, set: Option<&Siblings>) -> u64 {
    (ENTRY_BYTES + key.as_bytes().len() + set.map_or(0, Siblings::bytes)) as u64
}

fn operation_bytes(key: &[u8], remembered: Option<&Remembered>) -> u64 {
    const DOT: usize = 16;
    let clocks = remembered.map_or(0, |kept| {
        kept.operation.id.as_bytes().len()
            + DOT * (kept.superseded.len() + kept.context.vector().len() + kept.context.dots().len())
    });
    (ENTRY_BYTES + key.len() + clocks) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::{Shard, Spelled, entries, log_id, remembered, ring, state};

    #[test]
    fn entries_ascend_and_their_bytes_never_change() {
        let mut chunk = Chunk::default();
        let mut shard = Shard::new();
        for name in ["b", "a", "b"] {
            let append = shard.put_as(name, b"v", &Siblings::default(), "op");
            let place = Place::of(ring(), &append.key);
            chunk.remember(&place, remembered(&append));
            match name {
                "b" if chunk.sets_of(place.partition).len() == 1 => {
                    chunk.replace_set(place.partition, 0, Some(state(&append)));
                }
                _ => assert_eq!(chunk.add_set(place, Some(state(&append))), 0),
            }
        }
        chunk.set_position(log_id(2), AppendId(3));
        chunk.close_below(2);
        let a = Place::of(ring(), &crate::store::samples::key("a"));
        chunk.forget(&a, &OperationId::new("op").unwrap());

        let entries = entries(&chunk);
        assert!(entries.is_sorted_by(|one, other| one.0 < other.0));
        let shown = |(key, value): &Spelled| match value {
            Some(value) => format!("{} = {}", key.escape_ascii(), hex::encode(value)),
            None => format!("{} gone", key.escape_ascii()),
        };
        let dot = |counter: u8| format!("0100000000000000 {counter:02x}00000000000000");
        let set = |counter| {
            let dot = dot(counter);
            format!("01000000 {dot} 01000000 {dot} 01 0900000000000000 01000000 76")
        };
        let (third, none, named) = (dot(3), "00000000", "0200 6f70 0700000000000000");
        let expected = [
            format!(r"k\x00\x01a = {}", set(2)),
            format!(r"k\x00\x03b = {}", set(3)),
            "mclosed-below = 0200000000000000".to_owned(),
            r"mposition\x00\x00 = 02000000000000000300000000000000".to_owned(),
            r"o\x00\x01\x00\x01aop gone".to_owned(),
            format!(r"o\x00\x03\x00\x01bop = {named} {third} 0900000000000000 {none} 01000000 {third} {none}"),
        ];
        let squeezed = |line: &str| line.replace(' ', "");
        let found: Vec<String> = entries.iter().map(|entry| squeezed(&shown(entry))).collect();
        assert_eq!(found, expected.map(|line| squeezed(&line)));
    }

    #[test]
    fn the_newest_state_of_a_key_replaces_the_one_before_and_its_bytes() {
        let mut chunk = Chunk::default();
        let mut shard = Shard::new();
        let mut put = |bytes: usize| shard.put("a", &vec![0; bytes], &Siblings::default());
        let (first, second) = (put(1_000), put(10));
        let place = Place::of(ring(), &first.key);
        let at = chunk.add_set(place.clone(), Some(state(&first)));
        let large = chunk.bytes();
        chunk.replace_set(place.partition, at, Some(state(&second)));

        assert_eq!(
            (chunk.sets_of(place.partition), chunk.len()),
            (&[(second.key.clone(), Some(state(&second)))][..], 1)
        );
        assert_eq!(large - chunk.bytes(), 990);
    }
}
