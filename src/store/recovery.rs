//! From what was replayed to one chunk for the LSM tree.
//!
//! A start puts everything that the logs of earlier starts still held into the tree, as one chunk that also closes
//! those logs, and serves only then. So no log is ever read together with a newer one, a tail that was dropped can
//! never come back, all files are free again at once, and a crash in the middle just repeats it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chunk::Chunk;
use super::layout::Place;
use super::wal::Replay;
use super::wal::record::Record;
use crate::protocol::causality::{Siblings, Update};
use crate::protocol::io::Unreadable;
use crate::protocol::ring::Ring;
use crate::protocol::types::{Key, LogId};

/// What was replayed cannot be put together. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The tree could not be read.
    #[error("the store cannot be read: {0}")]
    Unreadable(#[from] Unreadable),
    /// A record was written upon more than log and tree hold of its key: something durable is gone from the tree.
    #[error("log of {log}: key {key} was written upon a state that the store does not hold")]
    Behind {
        /// The log.
        log: LogId,
        /// The key.
        key: Key,
    },
    /// A record that was written as telling its whole set does not.
    #[error("log of {log}: a record of key {key} contradicts itself")]
    Contradiction {
        /// The log.
        log: LogId,
        /// The key.
        key: Key,
    },
}

/// Merges what was replayed, by key, over what the tree holds (`base`, which is asked only for keys whose first record
/// does not tell their whole set), into the chunk that closes all logs below `start`.
///
/// # Errors
/// [`RecoveryError`].
pub fn recover(
    replay: &Replay,
    ring: Ring,
    start: u64,
    base: impl FnMut(&Place) -> Result<Option<Arc<Siblings>>, Unreadable>,
) -> Result<Chunk, RecoveryError> {
    let mut recovery = Recovery { ring, base, sets: BTreeMap::new(), chunk: Chunk::default() };
    for (log, records) in &replay.logs {
        records.iter().try_for_each(|record| recovery.take(*log, record))?;
    }
    let Recovery { sets, mut chunk, .. } = recovery;
    sets.into_iter().for_each(|(place, set)| chunk.put_set(place, Arc::new(set)));
    chunk.close_below(start);
    Ok(chunk)
}

struct Recovery<F> {
    ring: Ring,
    base: F,
    sets: BTreeMap<Place, Siblings>,
    chunk: Chunk,
}

impl<F: FnMut(&Place) -> Result<Option<Arc<Siblings>>, Unreadable>> Recovery<F> {
    fn take(&mut self, log: LogId, record: &Record) -> Result<(), RecoveryError> {
        match record {
            Record::Set { key, set } => {
                let place = Place::of(self.ring, key);
                let merged = self.before(&place)?.merge(set);
                self.sets.insert(place, merged);
            }
            Record::Update { key, update, remember, whole } => {
                let place = Place::of(self.ring, key);
                let set = if *whole { self.whole(log, key, update)? } else { self.applied(log, &place, update)? };
                if let Some(remembered) = remember {
                    self.chunk.remember(&place, remembered.clone());
                }
                self.sets.insert(place, set);
            }
        }
        Ok(())
    }

    fn whole(&self, log: LogId, key: &Key, update: &Update) -> Result<Siblings, RecoveryError> {
        let key = key.clone();
        update.whole().ok_or(RecoveryError::Contradiction { log, key })
    }

    fn applied(&mut self, log: LogId, place: &Place, update: &Update) -> Result<Siblings, RecoveryError> {
        let key = place.key.clone();
        let before = self.before(place)?;
        before.apply(update).map_err(|_| RecoveryError::Behind { log, key })
    }

    /// The state that the next record of a key comes upon.
    fn before(&mut self, place: &Place) -> Result<Siblings, RecoveryError> {
        if let Some(set) = self.sets.get(place) {
            return Ok(set.clone());
        }
        let stored = (self.base)(place)?;
        Ok(stored.map_or_else(Siblings::default, |set| Siblings::clone(&set)))
    }
}
