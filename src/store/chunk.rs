//! A chunk: sorted entries that enter the LSM tree together, or not at all.
//!
//! The overlay is a chunk in the making. What is durable in the log is put here, the newest state of a key replacing
//! the one before, until the chunk is frozen, handed to the store thread and ingested. Spelling the entries is left to
//! that thread: freezing costs nothing on the core.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::layout::{self, Place};
use crate::protocol::causality::Siblings;
use crate::protocol::replica::Remembered;
use crate::protocol::types::{AppendId, LogId, OperationId};
use crate::wire::sets;

/// What an entry takes beside its content: its part of the map's nodes, the pointers, their counts.
const ENTRY_BYTES: usize = 128;

/// Entries for the LSM tree, sorted as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    sets: BTreeMap<Place, Arc<Siblings>>,
    /// By the tree's key; `None` forgets.
    operations: BTreeMap<Vec<u8>, Option<Remembered>>,
    closed_below: Option<u64>,
    position: Option<(LogId, AppendId)>,
    bytes: u64,
}

/// One entry of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value; `None` deletes.
    pub value: Option<Bytes>,
}

impl Chunk {
    /// Puts the newest state of a key.
    pub fn put_set(&mut self, place: Place, set: Arc<Siblings>) {
        self.bytes += set_bytes(&place, &set);
        if let Some(old) = self.sets.insert(place.clone(), set) {
            self.bytes -= set_bytes(&place, &old);
        }
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

    /// Says that with this chunk the log is in the tree up to here.
    pub fn set_position(&mut self, log: LogId, position: AppendId) {
        self.position = Some((log, position));
    }

    /// Says that with this chunk all logs of earlier starts are in the tree for ever.
    pub fn close_below(&mut self, start: u64) {
        self.closed_below = Some(start);
    }

    /// The state of a key, if the chunk holds it.
    pub fn get(&self, place: &Place) -> Option<&Arc<Siblings>> {
        self.sets.get(place)
    }

    /// The sets, sorted.
    pub fn sets(&self) -> &BTreeMap<Place, Arc<Siblings>> {
        &self.sets
    }

    /// Takes out the first set.
    pub fn pop_set(&mut self) -> Option<(Place, Arc<Siblings>)> {
        let (place, set) = self.sets.pop_first()?;
        self.bytes -= set_bytes(&place, &set);
        Some((place, set))
    }

    /// Up to where the log is in the tree with this chunk.
    pub fn position(&self) -> Option<(LogId, AppendId)> {
        self.position
    }

    /// Whether it says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.operations.is_empty() && self.closed_below.is_none() && self.position.is_none()
    }

    /// Keys and operations in it.
    pub fn len(&self) -> usize {
        self.sets.len() + self.operations.len()
    }

    /// Bytes of memory that it holds, about as many as it spells.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entries as the tree takes them, in strictly ascending order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let entry = |(key, value)| Entry { key, value };
        let sets = self.sets.iter().map(|(place, set)| (place.set_key(), Some(sets::encode_set(set))));
        let operations = self
            .operations
            .iter()
            .map(|(key, remembered)| (key.clone(), remembered.as_ref().map(layout::encode_remembered)));
        let closed_below = self.closed_below.map(layout::closed_below_entry);
        let position = self.position.map(|(log, position)| layout::position_entry(log, position));
        let meta = [closed_below, position].into_iter().flatten().map(|(key, value)| (key, Some(Bytes::from(value))));
        sets.chain(meta).chain(operations).map(entry)
    }

    fn put_operation(&mut self, key: Vec<u8>, remembered: Option<Remembered>) {
        let bytes = operation_bytes(&key, remembered.as_ref());
        match self.operations.insert(key.clone(), remembered) {
            None => self.bytes += bytes,
            Some(old) => self.bytes = self.bytes + bytes - operation_bytes(&key, old.as_ref()),
        }
    }
}

fn set_bytes(place: &Place, set: &Siblings) -> u64 {
    (ENTRY_BYTES + place.key.as_bytes().len() + set.bytes()) as u64
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
    use crate::store::samples::{Shard, log_id, ring};

    #[test]
    fn entries_ascend_and_their_bytes_never_change() {
        let mut chunk = Chunk::default();
        let mut shard = Shard::new();
        for name in ["b", "a", "b"] {
            let append = shard.put_as(name, b"v", &Siblings::default(), "op");
            let place = Place::of(ring(), &append.key);
            chunk.remember(&place, *append.remember.unwrap());
            chunk.put_set(place, append.state);
        }
        chunk.set_position(log_id(2), AppendId(3));
        chunk.close_below(2);
        let a = Place::of(ring(), &crate::store::samples::key("a"));
        chunk.forget(&a, &OperationId::new("op").unwrap());

        let entries: Vec<Entry> = chunk.entries().collect();
        assert!(entries.windows(2).all(|pair| pair[0].key < pair[1].key));
        let shown = |entry: &Entry| match &entry.value {
            Some(value) => format!("{} = {}", entry.key.escape_ascii(), hex::encode(value)),
            None => format!("{} gone", entry.key.escape_ascii()),
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
        let mut put = |chunk: &mut Chunk, bytes: usize| {
            let append = shard.put("a", &vec![0; bytes], &Siblings::default());
            chunk.put_set(Place::of(ring(), &append.key), append.state.clone());
            append.state
        };
        put(&mut chunk, 1_000);
        let large = chunk.bytes();
        let newest = put(&mut chunk, 10);

        let place = Place::of(ring(), &crate::store::samples::key("a"));
        assert_eq!((chunk.get(&place), chunk.len()), (Some(&newest), 1));
        assert_eq!(large - chunk.bytes(), 990);
    }
}
