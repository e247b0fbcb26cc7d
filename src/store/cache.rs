//! Sets that were read lately, bounded by bytes; also that a key has none.

use std::hash::BuildHasherDefault;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::unsync::{Cache as QuickCache, DefaultLifecycle};
use seahash::SeaHasher;

use crate::protocol::causality::Siblings;
use crate::protocol::types::Key;

/// What the cache itself takes for an entry, with the pointers to key and set.
const ENTRY_BYTES: usize = 128;

type Set = Option<Arc<Siblings>>;

/// A cache of one core. Its hash draws no random keys, so that equal inputs give equal evictions.
pub struct Cache {
    sets: QuickCache<Key, Set, Bytes, BuildHasherDefault<SeaHasher>>,
    hits: u64,
    misses: u64,
}

/// Weighs an entry by the memory that it holds.
#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Set> for Bytes {
    fn weight(&self, key: &Key, set: &Set) -> u64 {
        let set = set.as_ref().map_or(0, |set| set.bytes());
        (ENTRY_BYTES + key.as_bytes().len() + set) as u64
    }
}

impl Cache {
    /// A cache of at most so many bytes.
    pub fn new(bytes_max: u64) -> Cache {
        // The number of entries only sizes the memory of keys that were evicted lately.
        let entries = usize::try_from(bytes_max / (2 * ENTRY_BYTES as u64)).unwrap_or(usize::MAX);
        Cache {
            sets: QuickCache::with(
                entries,
                bytes_max,
                Bytes,
                BuildHasherDefault::default(),
                DefaultLifecycle::default(),
            ),
            hits: 0,
            misses: 0,
        }
    }

    /// What is known of a key: `Some(None)` when it is known to have no set.
    pub fn get(&mut self, key: &Key) -> Option<Set> {
        let found = self.sets.get(key).cloned();
        match found {
            Some(_) => self.hits += 1,
            None => self.misses += 1,
        }
        found
    }

    /// Takes in what is known of a key.
    pub fn insert(&mut self, key: Key, set: Set) {
        self.sets.insert(key, set);
    }

    /// Forgets a key, whose set has changed.
    pub fn remove(&mut self, key: &Key) {
        self.sets.remove(key);
    }

    /// Keys in the cache.
    pub fn keys(&self) -> usize {
        self.sets.len()
    }

    /// Bytes in the cache.
    pub fn bytes(&self) -> u64 {
        self.sets.weight()
    }

    /// Look-ups until now that found something, and that did not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        Key::new(n.to_be_bytes()).unwrap()
    }

    #[test]
    fn the_cache_is_bounded_by_bytes_and_knows_absence() {
        let mut cache = Cache::new(64 * 1024);
        (0..10_000).for_each(|n| cache.insert(key(n), None));
        assert!(cache.bytes() <= 64 * 1024, "{} bytes", cache.bytes());

        cache.insert(key(1), Some(Arc::new(Siblings::default())));
        cache.insert(key(2), None);
        assert_eq!(cache.get(&key(1)), Some(Some(Arc::new(Siblings::default()))));
        assert_eq!(cache.get(&key(2)), Some(None));
        cache.remove(&key(1));
        assert_eq!(cache.get(&key(1)), None);
        assert_eq!(cache.hits_and_misses(), (2, 1));
    }

    #[test]
    fn equal_inputs_give_equal_evictions() {
        let survivors = || {
            let mut cache = Cache::new(16 * 1024);
            (0..1_000).for_each(|n| cache.insert(key(n * 7 % 500), None));
            (0..500).map(|n| cache.get(&key(n)).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(survivors(), survivors());
    }
}
