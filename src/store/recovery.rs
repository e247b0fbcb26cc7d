//! From what was replayed to one chunk for the LSM tree.
//!
//! A start puts everything that the logs of earlier starts still held into the tree, as one chunk that also closes
//! those logs, and serves only then. So no log is ever read together with a newer one, a tail that was dropped can
//! never come back, all files are free again at once, and a crash in the middle just repeats it.

use std::sync::Arc;

use super::chunk::Chunk;
use super::resident::Resident;
use super::wal::record::Record;
use super::wal::{Replay, ReplayError};
use crate::protocol::antientropy::{Forest, PartitionTree, Shift};
use crate::protocol::causality::{Siblings, Update};
use crate::protocol::io::Unreadable;
use crate::protocol::ring::{Partition, Ring};
use crate::protocol::types::{Key, LogId};

/// What was replayed cannot be put together. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The tree could not be read.
    #[error("the store cannot be read: {0}")]
    Unreadable(#[from] Unreadable),
    /// A record says nothing that this version knows.
    #[error(transparent)]
    Unknown(#[from] ReplayError),
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
/// does not tell their whole set), into the chunk that closes all logs below `start`. The hash trees of their
/// partitions (`tree`) are moved on by what each record says that it did to them, and go with it. `seed` is drawn as
/// for [`Resident::new`].
///
/// # Errors
/// [`RecoveryError`].
pub fn recover(
    replay: &Replay,
    ring: Ring,
    start: u64,
    seed: u64,
    base: impl FnMut(&Key) -> Result<Option<Arc<Siblings>>, Unreadable>,
    tree: impl FnMut(Partition) -> Result<Option<PartitionTree>, Unreadable>,
) -> Result<Chunk, RecoveryError> {
    let bytes: usize = replay.logs.values().flatten().map(|logged| logged.frame.bytes()).sum();
    let sets = Resident::new(ring, bytes as u64, seed);
    let mut recovery = Recovery { base, tree, ring, sets, forest: Forest::default() };
    for (log, records) in &replay.logs {
        records.iter().try_for_each(|logged| recovery.take(*log, logged.decode(*log)?))?;
    }
    let mut chunk = recovery.sets.into_overlay();
    recovery.forest.trees().for_each(|(partition, tree)| chunk.put_tree(partition, tree));
    chunk.close_below(start);
    Ok(chunk)
}

struct Recovery<B, T> {
    base: B,
    tree: T,
    ring: Ring,
    /// Nothing of it is in the tree, so nothing goes.
    sets: Resident,
    forest: Forest,
}

impl<B, T> Recovery<B, T>
where
    B: FnMut(&Key) -> Result<Option<Arc<Siblings>>, Unreadable>,
    T: FnMut(Partition) -> Result<Option<PartitionTree>, Unreadable>,
{
    fn take(&mut self, log: LogId, record: Record) -> Result<(), RecoveryError> {
        match record {
            Record::Set { key, set, remember, shift } => {
                self.grow(&key, shift)?;
                let merged = self.before(&key)?.join(&set);
                remember.into_iter().for_each(|remembered| self.sets.remember(&key, remembered));
                self.sets.put(key, Some(Arc::new(merged)));
            }
            Record::Update { key, update, remember, whole, shift } => {
                self.grow(&key, shift)?;
                let set = if whole { self.whole(log, &key, &update)? } else { self.applied(log, &key, &update)? };
                if let Some(remembered) = remember {
                    self.sets.remember(&key, remembered);
                }
                self.sets.put(key, Some(Arc::new(set)));
            }
            Record::Drop { key, shift } => {
                self.grow(&key, shift)?;
                self.sets.put(key, None);
            }
            Record::Hint { key, hint } => self.sets.hint(&key, hint),
            Record::Delivered { key, target } => self.sets.deliver(&key, target),
        }
        Ok(())
    }

    fn whole(&self, log: LogId, key: &Key, update: &Update) -> Result<Siblings, RecoveryError> {
        update.whole().ok_or_else(|| RecoveryError::Contradiction { log, key: key.clone() })
    }

    fn applied(&mut self, log: LogId, key: &Key, update: &Update) -> Result<Siblings, RecoveryError> {
        let before = self.before(key)?;
        before.apply(update).map_err(|_| RecoveryError::Behind { log, key: key.clone() })
    }

    /// The state that the next record of a key comes upon.
    fn before(&mut self, key: &Key) -> Result<Arc<Siblings>, RecoveryError> {
        match self.sets.get(key) {
            Some(set) => Ok(set.clone().unwrap_or_default()),
            None => Ok((self.base)(key)?.unwrap_or_default()),
        }
    }

    fn grow(&mut self, key: &Key, shift: Shift) -> Result<(), RecoveryError> {
        let partition = self.ring.partition(key);
        if self.forest.tree(partition).is_none() {
            self.forest.put(partition, (self.tree)(partition)?.unwrap_or_default());
        }
        self.forest.grow(self.ring, key, shift);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::io::{Append, Change, Hint};
    use crate::protocol::types::NodeId;
    use crate::store::layout::{self, Place};
    use crate::store::samples::{Shard, entries, key, log_id, remembered, ring, state};
    use crate::store::wal::record::{Frame, put_append};
    use crate::store::wal::segment::Life;
    use crate::store::wal::{Logged, SegmentId};

    fn replayed(append: &Append) -> Logged {
        let mut bytes = Vec::new();
        put_append(&mut bytes, Life(7), append);
        Logged { frame: Frame::read(&bytes.into(), 0, Life(7)).unwrap(), file: SegmentId(0), offset: 0 }
    }

    fn recovered(
        records: Vec<Logged>,
        base: Option<&Arc<Siblings>>,
    ) -> Result<(Option<Arc<Siblings>>, usize), RecoveryError> {
        let replay = Replay { logs: [(log_id(1), records)].into(), tails: vec![] };
        let mut asked = 0;
        let base = |_: &Key| {
            asked += 1;
            Ok(base.cloned())
        };
        let chunk = recover(&replay, ring(), 2, 7, base, |_| Ok(None))?;
        let of_a = chunk.sets_of(ring().partition(&key("a")));
        Ok((of_a.first().and_then(|(_, set)| set.clone()), asked))
    }

    #[test]
    fn the_tree_is_asked_only_where_the_log_does_not_tell_the_whole_set() {
        let mut shard = Shard::new();
        let first = shard.put("a", b"1", &Siblings::default());
        let beside = shard.put_beside("a", b"2", &state(&first));
        let (one, two) = (replayed(&first), replayed(&beside));

        assert_eq!(recovered(vec![one, two.clone()], None), Ok((Some(state(&beside)), 0)));
        assert_eq!(recovered(vec![two.clone()], Some(&state(&first))), Ok((Some(state(&beside)), 1)));
        let gone = recovered(vec![two], None).unwrap_err().to_string();
        assert_eq!(gone, "log of start 1 core 0: key \"a\" was written upon a state that the store does not hold");
    }

    #[test]
    fn a_set_joins_what_the_tree_holds() {
        let mut shard = Shard::new();
        let stored = state(&shard.put("a", b"1", &Siblings::default()));
        let came = state(&shard.put("a", b"2", &Siblings::default()));
        let merged = Arc::new(stored.join(&came));
        let (state, remember, shift) = (merged.clone(), vec![], Shift::default());
        let record = replayed(&shard.append("a", Change::Set { state, came, remember, shift }));
        assert_eq!(recovered(vec![record], Some(&stored)), Ok((Some(merged), 1)));
    }

    #[test]
    fn of_hints_and_deliveries_the_last_of_the_log_counts() {
        let mut shard = Shard::new();
        let [one, two] = [1, 2].map(NodeId);
        let hint = |target, counted| Change::Hint(Hint { target, counted });
        let delivered = |target| Change::Delivered { target };
        let log = [hint(one, false), hint(two, true), delivered(one), hint(one, true), delivered(two)];
        let records = log.into_iter().map(|change| replayed(&shard.append("a", change))).collect();
        let replay = Replay { logs: [(log_id(1), records)].into(), tails: vec![] };

        let chunk =
            recover(&replay, ring(), 2, 7, |_| panic!("a hint is no set"), |_| panic!("nor in a tree")).unwrap();
        let hints: Vec<_> = entries(&chunk).into_iter().filter(|(key, _)| key.starts_with(b"h")).collect();
        let key = |target| layout::hint_key(&Place::of(ring(), &key("a")), target);
        assert_eq!(hints, [(key(one), Some(vec![1])), (key(two), None)]);
    }

    #[test]
    fn what_came_with_a_set_is_remembered() {
        let mut shard = Shard::new();
        let came = shard.put_as("a", b"1", &Siblings::default(), "op");
        let (came, remember) = (state(&came), vec![remembered(&came)]);
        let (state, kept, shift) = (came.clone(), remember.clone(), Shift::default());
        let record = replayed(&shard.append("a", Change::Set { state, came, remember: kept, shift }));
        let replay = Replay { logs: [(log_id(1), vec![record])].into(), tails: vec![] };

        let chunk = recover(&replay, ring(), 2, 7, |_| Ok(None), |_| Ok(None)).unwrap();
        let operations = entries(&chunk).into_iter().filter(|(key, _)| key.starts_with(b"o"));
        let found = operations.map(|(key, value)| layout::decode_operation(&key, &value.unwrap()).unwrap().1);
        assert_eq!(found.collect::<Vec<_>>(), remember);
    }

    #[test]
    fn a_tree_that_cannot_be_read_ends_the_recovery() {
        let mut shard = Shard::new();
        let first = shard.put("a", b"1", &Siblings::default());
        let beside = replayed(&shard.put_beside("a", b"2", &state(&first)));
        let replay = Replay { logs: [(log_id(1), vec![beside])].into(), tails: vec![] };
        let unreadable = Unreadable { reason: "no luck".to_owned() };
        let ended = recover(&replay, ring(), 2, 7, |_| Err(unreadable.clone()), |_| Ok(None));
        assert_eq!(ended, Err(RecoveryError::Unreadable(unreadable.clone())));
        let ended = recover(&replay, ring(), 2, 7, |_| Ok(None), |_| Err(unreadable.clone()));
        assert_eq!(ended, Err(RecoveryError::Unreadable(unreadable)));
    }

    #[test]
    fn what_was_dropped_is_deleted_and_a_later_write_comes_upon_nothing() {
        let mut shard = Shard::new();
        let first = shard.put("a", b"1", &Siblings::default());
        let stored = state(&first);
        let gone = |before| Change::Drop { shift: Shift::between(&key("a"), Some(before), None) };
        let dropped = replayed(&shard.append("a", gone(&stored)));
        assert_eq!(recovered(vec![dropped.clone()], Some(&stored)), Ok((None, 0)));

        let again = shard.put_beside("a", b"2", &Siblings::default());
        assert_eq!(recovered(vec![dropped, replayed(&again)], Some(&stored)), Ok((Some(state(&again)), 0)));
    }

    #[test]
    fn trees_are_moved_on_from_those_of_the_store() {
        let mut shard = Shard::new();
        let (a, b) = (shard.put("a", b"1", &Siblings::default()), shard.put("b", b"1", &Siblings::default()));
        let over = shard.put("a", b"2", &state(&a));
        let (mut stored, mut expected) = (Forest::default(), Forest::default());
        let grow = |forest: &mut Forest, append: &Append| {
            let shift = Shift::between(&append.key, None, append.state().map(|set| &**set));
            forest.grow(ring(), &append.key, shift);
        };
        grow(&mut stored, &a);
        grow(&mut expected, &over);
        grow(&mut expected, &b);

        let replay = Replay { logs: [(log_id(1), vec![replayed(&b), replayed(&over)])].into(), tails: vec![] };
        let tree = |partition| Ok(stored.tree(partition).cloned());
        let chunk = recover(&replay, ring(), 2, 7, |_| Ok(None), tree).unwrap();
        let trees = entries(&chunk).into_iter().filter(|(key, _)| key.starts_with(b"t"));
        let trees: Vec<_> = trees.map(|(key, value)| layout::decode_tree(&key, &value.unwrap()).unwrap()).collect();
        let expected: Vec<_> = expected.trees().map(|(partition, tree)| (partition, tree.clone())).collect();
        assert_eq!(trees, expected);
    }

    #[test]
    fn a_recovery_of_nothing_still_closes_the_logs() {
        let chunk = recover(&Replay::default(), ring(), 2, 7, |_| Ok(None), |_| Ok(None)).unwrap();
        let keys: Vec<_> = entries(&chunk).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [b"mclosed-below".to_vec()]);
    }
}
