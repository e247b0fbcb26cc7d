//! A map by hash whose order never shows: what is asked of it is asked by key, and a list of its keys comes sorted.
//!
//! A shard looks a key up several times for each request. By order that is a walk of string comparisons; by hash it is
//! one. The seed is drawn once a start ([`Birth`](super::shard::Birth)), so that nobody outside can choose keys that
//! collide, and equal inputs still give equal outputs.

use std::fmt;
use std::hash::{Hash, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use hashbrown::HashTable;

/// Values by key.
pub(super) struct Table<K, V> {
    entries: HashTable<(K, V)>,
    hashes: Hashes,
}

/// Hashes by a seed. All that the hash mixes in comes from the seed: beside constants that everybody knows, keys can be
/// chosen that collide whatever its start.
struct Hashes {
    start: u64,
    mixed_in: SharedSeed,
}

impl Hashes {
    fn of(&self, key: &impl Hash) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.start, &self.mixed_in);
        key.hash(&mut hasher);
        hasher.finish()
    }
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// An empty one.
    pub(super) fn new(seed: u64) -> Table<K, V> {
        Table { entries: HashTable::new(), hashes: Hashes { start: seed, mixed_in: SharedSeed::from_u64(seed) } }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether `key` is in it.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.find(self.hashes.of(key), |(known, _)| known == key).map(|(_, value)| value)
    }

    /// The value of `key`, to be changed.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.find_mut(self.hashes.of(key), |(known, _)| known == key).map(|(_, value)| value)
    }

    /// Puts a value, and gives the one that it replaced.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.hashes.of(&key);
        match self.entries.find_mut(hash, |(known, _)| *known == key) {
            Some((_, before)) => Some(std::mem::replace(before, value)),
            None => {
                let hashes = &self.hashes;
                self.entries.insert_unique(hash, (key, value), |(known, _)| hashes.of(known));
                None
            }
        }
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.remove_if(key, |_| true)
    }

    /// Takes a value out if it is such a one.
    pub(super) fn remove_if(&mut self, key: &K, is_such: impl FnOnce(&V) -> bool) -> Option<V> {
        let hash = self.hashes.of(key);
        let entry = self.entries.find_entry(hash, |(known, _)| known == key).ok()?;
        is_such(&entry.get().1).then(|| entry.remove().0.1)
    }

    /// Keeps the entries that `keeps` wants, and may change their values. In no order: each is judged by itself.
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(&mut V) -> bool) {
        self.entries.retain(|(_, value)| keeps(value));
    }

    /// The keys of such entries, sorted.
    pub(super) fn keys_of(&self, is_such: impl Fn(&V) -> bool) -> Vec<K>
    where
        K: Clone + Ord,
    {
        let mut keys: Vec<K> =
            self.entries.iter().filter(|(_, value)| is_such(value)).map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// The least of what `part` finds in the values.
    pub(super) fn least<T: Ord>(&self, part: impl Fn(&V) -> T) -> Option<T> {
        self.entries.iter().map(|(_, value)| part(value)).min()
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} entries)", self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_does_what_a_sorted_map_does(
            seed in any::<u64>(),
            steps in prop::collection::vec((0..5_u8, 0..20_u8), 0..200),
        ) {
            let (mut table, mut map) = (Table::new(seed), BTreeMap::new());
            for (n, (step, key)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => prop_assert_eq!(table.insert(key, n), map.insert(key, n)),
                    2 => prop_assert_eq!(table.remove(&key), map.remove(&key)),
                    3 => {
                        let is_even = map.get(&key).is_some_and(|n| n % 2 == 0);
                        let expected = if is_even { map.remove(&key) } else { None };
                        prop_assert_eq!(table.remove_if(&key, |n| n % 2 == 0), expected);
                    }
                    _ => {
                        table.retain(|n| *n % 3 != 0);
                        map.retain(|_, n| *n % 3 != 0);
                    }
                }
                prop_assert_eq!((table.len(), table.contains(&key)), (map.len(), map.contains_key(&key)));
                prop_assert_eq!(table.get_mut(&key), map.get_mut(&key));
                prop_assert_eq!(table.keys_of(|_| true), map.keys().copied().collect::<Vec<_>>());
                prop_assert_eq!(table.least(|n| *n), map.values().copied().min());
            }
        }
    }
}
