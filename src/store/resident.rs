//! The sets that a core holds in memory, in one table: those that are durable and not yet in the tree, and those that
//! are kept because they may be read again; also that a key has none.
//!
//! ```text
//!               put                 freeze               on_ingested
//!   (no entry) -----> dirty, in the ---------> dirty, in ------------> clean --make_room--> (no entry)
//!                     overlay         ^        the frozen                ^
//!                        ^            |        chunk                     | keep: read from the tree
//!                        +--put-------+--put----+------------put---------+
//! ```
//!
//! An entry says in which generation it became dirty; freezing and the end of an ingestion only step a counter. Both
//! lists of dirty keys ([`Chunk`]) hold the states themselves, so that a frozen one stays as it is while its keys are
//! written again.
//!
//! What the table never does: let a dirty entry go; go over all of its entries in one call (it is many small tables
//! over pages, so that growing moves few at a time); take chance from anywhere but the seed.
//!
//! Clean entries go by CLOCK with one bit (Corbató, 1968): the hand passes over what was touched since it came by last.

use std::hint::black_box;

use hashbrown::HashTable;
use smallvec::SmallVec;

use self::pages::Pages;
use super::chunk::{Chunk, KeySet, Set};
use super::layout::Place;
use crate::protocol::causality::Siblings;
use crate::protocol::io::Hint;
use crate::protocol::replica::Remembered;
use crate::protocol::ring::{Partition, Ring};
use crate::protocol::types::{AppendId, Key, LogId, NodeId, OperationId, Value};

mod pages;

/// What an entry takes beside its content: its place in a page, its part of the index, of the allocations behind it
/// their heads.
const ENTRY_BYTES: usize = 160;

/// So many entries in one table of the index, as a rule: it doubles in some 300 microseconds.
const TABLE_ENTRIES: u64 = 4_096;

/// Tables of the index at most; beyond 268 million entries each has more of them.
const TABLES_MAX: u64 = 65_536;

/// How far the hand goes for each call, and for so many bytes that came in. Each call touches one entry, which costs
/// the hand one step later, and dirty entries are the lesser part: so many steps find room, but for the time in which
/// the hand comes through a row of dirty entries.
const STEPS: usize = 32;
const STEP_BYTES: u64 = 64;

/// Look-ups that are worth foreseeing together: more would push each other out of the nearest caches.
pub const FORESEEN_MAX: usize = 32;

/// Entries in one state, and the bytes that they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Share {
    /// How many.
    pub keys: usize,
    /// Bytes of memory.
    pub bytes: u64,
}

/// The table of one core.
pub struct Resident {
    ring: Ring,
    seeds: [u64; 4],
    bytes_max: u64,
    pages: Pages<Entry>,
    /// Numbers of entries, by hash; the table is named by bits of the hash too.
    index: Vec<HashTable<u32>>,
    /// What became dirty in this generation.
    overlay: Chunk,
    /// The generation of the overlay, from 1. The one before it may be frozen.
    generation: u64,
    /// Generations up to this are in the tree.
    ingested: u64,
    /// Bytes of the frozen chunk, with the states that were replaced since.
    frozen_bytes: u64,
    dirty: Share,
    frozen: Share,
    clean: Share,
    hand: u32,
}

struct Entry {
    key: Key,
    set: Set,
    /// The generation in which it became dirty; 0 for what came from the tree.
    since: u64,
    /// Where it stands in its generation's chunk, while that is the overlay.
    at: u32,
    partition: Partition,
    /// Touched since the hand came by.
    touched: bool,
}

const _: () = assert!(size_of::<Option<Entry>>() <= 56);

impl Share {
    fn add(&mut self, bytes: u64) {
        self.keys += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, bytes: u64) {
        self.keys -= 1;
        self.bytes -= bytes;
    }
}

impl Resident {
    /// An empty table. All that it holds has `bytes_max` or soon will, unless dirty entries alone have more. Who knows
    /// `seed` can choose keys that are slow to find.
    pub fn new(ring: Ring, bytes_max: u64, seed: u64) -> Resident {
        let entries = bytes_max / ENTRY_BYTES as u64;
        let tables = (entries / TABLE_ENTRIES).clamp(1, TABLES_MAX).next_power_of_two();
        Resident {
            ring,
            seeds: [1, 2, 3, 4].map(|n: u8| seahash::hash_seeded(&[n], seed, !seed, seed.swap_bytes(), u64::MAX)),
            bytes_max,
            pages: Pages::default(),
            index: (0..tables).map(|_| HashTable::new()).collect(),
            overlay: Chunk::default(),
            generation: 1,
            ingested: 0,
            frozen_bytes: 0,
            dirty: Share::default(),
            frozen: Share::default(),
            clean: Share::default(),
            hand: 0,
        }
    }

    /// Reads what look-ups of these keys will read, each step of it for all of them. A look-up alone waits for four or
    /// five cache lines in turn, each of which says where the next one is; those of different keys come in together.
    pub fn foresee<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        let hashes: SmallVec<[u64; FORESEEN_MAX]> = keys.map(|key| self.hash(key)).collect();
        if hashes.len() < 2 {
            return;
        }
        let number = |hash: &u64| self.index[self.table(*hash)].iter_hash(*hash).next().copied();
        let numbers: SmallVec<[u32; FORESEEN_MAX]> = hashes.iter().filter_map(number).collect();
        let set = |number: &u32| self.pages.get(*number).set.as_deref();
        let sets: SmallVec<[&Siblings; FORESEEN_MAX]> = numbers.iter().filter_map(set).collect();
        let values: SmallVec<[&Value; FORESEEN_MAX]> =
            sets.iter().flat_map(|set| set.live()).map(|(_, value)| value).collect();
        let ends = |value: &&Value| Some((*value.as_bytes().first()?, *value.as_bytes().last()?));
        black_box(values.iter().filter_map(ends).fold(0, |sum, (first, last)| sum ^ first ^ last));
    }

    /// What is held of a key, if anything.
    pub fn get(&mut self, key: &Key) -> Option<&Set> {
        let number = self.find(self.hash(key), key)?;
        let entry = self.pages.get_mut(number);
        entry.touched = true;
        Some(&entry.set)
    }

    /// Takes in the newest durable state of a key, which the tree does not have yet: `None` where its set is to be
    /// deleted there.
    pub fn put(&mut self, key: Key, set: Set) {
        let hash = self.hash(&key);
        let bytes = entry_bytes(&key, set.as_deref());
        match self.find(hash, &key) {
            Some(number) => self.rewrite(number, set),
            None => {
                let partition = self.ring.partition(&key);
                let at = self.overlay.add_set(Place { partition, key: key.clone() }, set.clone());
                let entry = Entry { key, set, since: self.generation, at, partition, touched: false };
                self.enter(hash, entry);
            }
        }
        self.make_room(bytes);
    }

    /// Keeps what the tree holds of a key that is not in the table.
    pub fn keep(&mut self, key: Key, set: Set) {
        let (hash, partition) = (self.hash(&key), self.ring.partition(&key));
        let bytes = entry_bytes(&key, set.as_deref());
        self.enter(hash, Entry { key, set, since: 0, at: 0, partition, touched: false });
        self.make_room(bytes);
    }

    /// Remembers, with the next chunk, what came of an operation.
    pub fn remember(&mut self, key: &Key, remembered: Remembered) {
        self.overlay.remember(&Place::of(self.ring, key), remembered);
    }

    /// Forgets an operation, with the next chunk.
    pub fn forget(&mut self, key: &Key, operation: &OperationId) {
        self.overlay.forget(&Place::of(self.ring, key), operation);
    }

    /// Keeps a hint, with the next chunk. Nobody looks it up here.
    pub fn hint(&mut self, key: &Key, hint: Hint) {
        self.overlay.hint(&Place::of(self.ring, key), hint);
    }

    /// Deletes a key's hint for a node, with the next chunk.
    pub fn deliver(&mut self, key: &Key, target: NodeId) {
        self.overlay.deliver(&Place::of(self.ring, key), target);
    }

    /// What will be the next chunk.
    pub fn overlay(&self) -> &Chunk {
        &self.overlay
    }

    /// All dirty entries, as a chunk that nobody else has.
    pub fn into_overlay(self) -> Chunk {
        self.overlay
    }

    /// The overlay is a chunk now, which says how far it goes; another is begun. Ended by [`Resident::on_ingested`].
    ///
    /// # Panics
    /// When one is frozen already.
    pub fn freeze(&mut self, log: LogId, position: AppendId) -> Chunk {
        assert_eq!(self.ingested + 1, self.generation, "one chunk is frozen at a time");
        let mut chunk = std::mem::take(&mut self.overlay);
        chunk.set_position(log, position);
        self.generation += 1;
        self.frozen = std::mem::take(&mut self.dirty);
        self.frozen_bytes = chunk.bytes();
        chunk
    }

    /// The frozen chunk is in the tree, and let go.
    pub fn on_ingested(&mut self) {
        self.ingested = self.generation - 1;
        let Share { keys, bytes } = std::mem::take(&mut self.frozen);
        self.clean.keys += keys;
        self.clean.bytes += bytes;
        self.frozen_bytes = 0;
    }

    /// The newest states of a partition's dirty keys that are `wanted`, by key; `frozen` is the chunk that was frozen
    /// last.
    pub fn dirty_of<'a>(
        &'a self,
        partition: Partition,
        frozen: Option<&'a Chunk>,
        wanted: impl Fn(&Key) -> bool,
    ) -> Vec<&'a KeySet> {
        let older = frozen.map_or(&[][..], |chunk| chunk.sets_of(partition));
        let all = self.overlay.sets_of(partition).iter().chain(older);
        let mut found: Vec<&KeySet> = all.filter(|(key, _)| wanted(key)).collect();
        // The sort is stable: of a key's two states the newer one stays.
        found.sort_by_key(|(key, _)| key);
        found.dedup_by(|(older, _), (newer, _)| older == newer);
        found
    }

    /// Keys of which anything is held.
    pub fn keys(&self) -> usize {
        self.dirty.keys + self.frozen.keys + self.clean.keys
    }

    /// Bytes of all that is held.
    pub fn bytes(&self) -> u64 {
        self.overlay.bytes() + self.frozen_bytes + self.clean.bytes
    }

    /// Bytes of the chunk that is frozen.
    pub fn frozen_bytes(&self) -> u64 {
        self.frozen_bytes
    }

    /// Entries that could go.
    pub fn clean(&self) -> Share {
        self.clean
    }

    /// Lets clean entries go where too much is held: as many as so many bytes more make needful, and some.
    pub fn make_room(&mut self, bytes: u64) {
        let steps = STEPS + usize::try_from(bytes / STEP_BYTES).expect("a set is bounded");
        for _ in 0..steps {
            if self.bytes() <= self.bytes_max || self.clean.keys == 0 {
                return;
            }
            self.step();
        }
    }

    /// The hand goes on by one entry.
    fn step(&mut self) {
        let number = self.hand;
        self.hand = (number + 1) % self.pages.len();
        let ingested = self.ingested;
        match self.pages.try_get_mut(number) {
            Some(entry) if entry.since <= ingested && !entry.touched => self.evict(number),
            Some(entry) => entry.touched = false,
            None => {}
        }
    }

    fn evict(&mut self, number: u32) {
        let entry = self.pages.remove(number);
        let hash = self.hash(&entry.key);
        let table = self.table(hash);
        let indexed = self.index[table].find_entry(hash, |&other| other == number);
        indexed.expect("every entry is in the index").remove();
        self.clean.take(entry.bytes());
    }

    fn enter(&mut self, hash: u64, entry: Entry) {
        let bytes = entry.bytes();
        self.share(entry.since).add(bytes);
        let number = self.pages.insert(entry);
        let (table, pages, seeds) = (self.table(hash), &self.pages, self.seeds);
        self.index[table].insert_unique(hash, number, |&other| hash_of(seeds, &pages.get(other).key));
    }

    /// A key that has an entry becomes dirty, or has a newer state while it is.
    fn rewrite(&mut self, number: u32, set: Set) {
        let generation = self.generation;
        let entry = self.pages.get_mut(number);
        let (since, before) = (entry.since, entry.bytes());
        if since == generation {
            self.overlay.replace_set(entry.partition, entry.at, set.clone());
        } else {
            let place = Place { partition: entry.partition, key: entry.key.clone() };
            entry.at = self.overlay.add_set(place, set.clone());
            entry.since = generation;
        }
        entry.set = set;
        entry.touched = true;
        let after = entry.bytes();
        self.share(since).take(before);
        self.dirty.add(after);
    }

    fn share(&mut self, since: u64) -> &mut Share {
        if since == self.generation {
            &mut self.dirty
        } else if self.ingested < since {
            &mut self.frozen
        } else {
            &mut self.clean
        }
    }

    fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        self.index[self.table(hash)].find(hash, |&number| self.pages.get(number).key == *key).copied()
    }

    /// The table uses the highest and the lowest bits within itself.
    fn table(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.index.len() - 1)
    }

    fn hash(&self, key: &Key) -> u64 {
        hash_of(self.seeds, key)
    }
}

impl Entry {
    fn bytes(&self) -> u64 {
        entry_bytes(&self.key, self.set.as_deref())
    }
}

fn hash_of([a, b, c, d]: [u64; 4], key: &Key) -> u64 {
    seahash::hash_seeded(key.as_bytes(), a, b, c, d)
}

fn entry_bytes(key: &Key, set: Option<&Siblings>) -> u64 {
    (ENTRY_BYTES + key.as_bytes().len() + set.map_or(0, Siblings::bytes)) as u64
}

#[cfg(test)]
mod tests;
