//! A version vector: for each actor the highest counter that was seen, and with it every lower one on this key.

use std::fmt;

use smallvec::SmallVec;

use crate::protocol::types::{ActorId, Dot};

/// Every dot that was seen, as one counter for each actor. Sorted by actor; no entry is 0.
#[derive(PartialEq, Eq, Default, Hash)]
pub struct VersionVector {
    entries: SmallVec<[(ActorId, u64); 1]>,
}

/// By one copy of all entries; derived, it would push them one by one. Every write makes several.
impl Clone for VersionVector {
    fn clone(&self) -> VersionVector {
        VersionVector { entries: SmallVec::from_slice(&self.entries) }
    }
}

impl VersionVector {
    /// The highest counter seen of `actor`; 0 for none.
    pub fn get(&self, actor: ActorId) -> u64 {
        self.find(actor).map_or(0, |at| self.entries[at].1)
    }

    /// Whether `dot` was seen.
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.get(dot.actor)
    }

    /// Whether everything that `other` has seen was seen here too.
    pub fn descends(&self, other: &VersionVector) -> bool {
        other.dots().all(|dot| self.covers(dot))
    }

    /// Takes a dot, and every lower one of its actor, as seen.
    pub fn see(&mut self, dot: Dot) {
        match self.find(dot.actor) {
            Ok(at) => self.entries[at].1 = self.entries[at].1.max(dot.counter),
            Err(_) if dot.counter == 0 => {}
            Err(at) => self.entries.insert(at, (dot.actor, dot.counter)),
        }
    }

    /// Takes everything that `other` has seen as seen.
    pub fn join(&mut self, other: &VersionVector) {
        other.dots().for_each(|dot| self.see(dot));
    }

    /// The highest dot of each actor, by actor.
    pub fn dots(&self) -> impl ExactSizeIterator<Item = Dot> {
        self.entries.iter().map(|&(actor, counter)| Dot { actor, counter })
    }

    /// Number of actors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was ever seen.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, actor: ActorId) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&actor, |entry| entry.0)
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = VersionVector::default();
        dots.into_iter().for_each(|dot| vector.see(dot));
        vector
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.dots()).finish()
    }
}
