//! fjall behind the log: sorted chunks go in by ingestion, sets come out by key or in order.
//!
//! Everything here blocks and is called on store threads, at start and at stop only. Ingestion is atomic and durable
//! when it returns, and goes round fjall's own journal and memtables (docs/STORAGE.md).

mod manifest;

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable};

use super::chunk::{Chunk, KeySet, Set};
use super::layout::{self, Known, LayoutError, Place};
use super::scan::Scanner;
use crate::protocol::antientropy::{Forest, PartitionLeaf, PartitionTree, Shift};
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Hint, Scan, ScanPage};
use crate::protocol::message::{Keys, Page};
use crate::protocol::replica::Remembered;
use crate::protocol::ring::{Partition, Ring};
use crate::protocol::types::Key;
use crate::wire::{WireError, sets};

/// Values of sets from this size on stand in files of their own, so that compaction does not copy them.
const SEPARATED_BYTES_MIN: u32 = 32 * 1024;

/// Tables of level 0 that are merged into the next level together, all of which is written again for them: with 12
/// that costs 260 ns of CPU a key, with fjall's 4 it costs 610 ns (250,000 of 1,000,000 keys of 100 bytes a chunk), for
/// 350 MB of disk and a sixth more CPU for a cold read. A chunk makes one table of each 64 MiB.
const LEVEL_0_TABLES: u8 = 12;

/// Tables of level 0 beyond which a chunk waits for compaction: each costs every read a look at its filter.
const LEVEL_0_TABLES_MAX: usize = 2 * LEVEL_0_TABLES as usize;

/// Entries that are written or read between two looks for other work.
const SLICE: usize = 512;

/// Keys of the tree that are looked at for one page of a scan, at most: a few hundredths of a second, for which chunks
/// may wait.
const SCANNED_MAX: usize = 32_768;

/// Deletions that are not yet compacted away, from which on the tree may be written again for them. A tree of so few
/// entries that these matter is written in a moment.
const DELETIONS_MIN: u64 = 10_000;

/// Bytes that a tree may take beside twice its contents: journal, tables that were not merged yet.
const WASTE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// The LSM tree failed.
#[derive(Debug, thiserror::Error)]
pub enum LsmError {
    /// fjall says so.
    #[error("{doing} the store in {path}: {cause}{hint}")]
    Fjall {
        /// What was tried.
        doing: &'static str,
        /// The tree's folder.
        path: PathBuf,
        /// What fjall says.
        cause: fjall::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A file is not as it was written.
    #[error("{path} is damaged; restore the data directory from a snapshot")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unread {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// An entry that we did not write.
    #[error("{path}: {cause}; restore the data directory from a snapshot")]
    Layout {
        /// The tree's folder.
        path: PathBuf,
        /// Which entry.
        cause: LayoutError,
    },
}

impl LsmError {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            LsmError::Fjall { cause, .. } => is_full(cause),
            LsmError::Damaged { .. } | LsmError::Unread { .. } | LsmError::Layout { .. } => false,
        }
    }
}

fn is_full(cause: &(dyn std::error::Error + 'static)) -> bool {
    let here = cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull);
    here || cause.source().is_some_and(is_full)
}

/// How much a tree has, as its tables say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TreeSize {
    /// Entries of all tables. That is more than there are keys, never less: states that were replaced count until
    /// they are compacted away, and so do hints, remembered operations and entries that were deleted.
    pub keys_approximately: u64,
    /// Bytes of its tables and of the files of large values, as they stand on the disk.
    pub bytes_on_disk: u64,
}

/// The tree of a node. Clones share it.
#[derive(Clone)]
pub struct Lsm {
    path: PathBuf,
    database: Database,
    data: Keyspace,
}

impl Lsm {
    /// Opens the tree, or makes it.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn open(path: &Path, blocks_bytes: u64) -> Result<Lsm, LsmError> {
        match manifest::find_damage(path) {
            Ok(None) => {}
            Ok(Some(path)) => return Err(LsmError::Damaged { path }),
            Err((path, cause)) => return Err(LsmError::Unread { path, cause }),
        }
        let open = || -> fjall::Result<(Database, Keyspace)> {
            let database = Database::builder(path).cache_size(blocks_bytes).worker_threads(1).open()?;
            let separated = KvSeparationOptions::default().separation_threshold(SEPARATED_BYTES_MIN);
            let levels = Leveled::default().with_l0_threshold(LEVEL_0_TABLES);
            let options = || {
                let options = KeyspaceCreateOptions::default().with_kv_separation(Some(separated.clone()));
                options.compaction_strategy(Arc::new(levels.clone()))
            };
            let data = database.keyspace("data", options)?;
            Ok((database, data))
        };
        let (database, data) = open().map_err(|cause| error("cannot open", path, cause))?;
        Ok(Lsm { path: path.to_owned(), database, data })
    }

    /// The set of a key.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn get(&self, place: &Place) -> Result<Option<Siblings>, LsmError> {
        let key = place.set_key();
        match self.data.get(&key).map_err(|cause| self.error("cannot read", cause))? {
            None => Ok(None),
            Some(value) => self.decode(&key, &value).map(Some),
        }
    }

    /// Takes in a chunk: all of it is durable when this returns, or nothing of it. `between` is called now and then.
    ///
    /// # Errors
    /// [`LsmError`]; nothing was taken in.
    pub fn ingest(&self, chunk: &Chunk, mut between: impl FnMut()) -> Result<(), LsmError> {
        let mut slice = 0;
        self.ingest_spelled(|put| {
            chunk.spell(|key, value| {
                slice = (slice + 1) % SLICE;
                if slice == 0 {
                    between();
                }
                put(key, value)
            })
        })
    }

    /// Takes in sets in strictly ascending order of their places, with their hash trees, all or none. The tree must
    /// hold nothing before.
    ///
    /// # Errors
    /// Those of the sets, and [`LsmError`]; nothing was taken in.
    pub fn ingest_sets<E: From<LsmError>>(
        &self,
        ring: Ring,
        mut placed: impl Iterator<Item = Result<(Place, Siblings), E>>,
    ) -> Result<(), E> {
        let mut forest = Forest::default();
        self.ingest_spelled(|put| {
            placed.try_for_each(|set| {
                let (place, set) = set?;
                let shift = Shift::between(&place.key, None, Some(&set));
                forest.grow(ring, &place.key, shift);
                Ok::<_, E>(put(&place.set_key(), Some(&sets::encode_set(&set)))?)
            })?;
            forest.trees().try_for_each(|(partition, tree)| {
                let (key, value) = layout::tree_entry(partition, tree);
                Ok(put(&key, Some(&value))?)
            })
        })
    }

    /// Takes in what `spell` puts, if it ends well.
    fn ingest_spelled<E: From<LsmError>>(&self, spell: impl FnOnce(Put) -> Result<(), E>) -> Result<(), E> {
        let failed = |cause| self.error("cannot ingest into", cause);
        let mut ingestion = self.data.start_ingestion().map_err(failed)?;
        spell(&mut |key, value| match value {
            Some(value) => ingestion.write(key, value).map_err(failed),
            None => ingestion.write_tombstone(key).map_err(failed),
        })?;
        Ok(ingestion.finish().map_err(failed)?)
    }

    /// Whether a chunk should wait for compaction.
    pub fn level_0_is_deep(&self) -> bool {
        self.data.l0_table_count() > LEVEL_0_TABLES_MAX && !self.compaction_has_ended()
    }

    /// Whether compaction has ended until the next start: fjall's worker ends at its first failure, such as a full
    /// disk. Reads and ingestion go on, and each chunk costs every read another look.
    pub fn compaction_has_ended(&self) -> bool {
        // Nothing was ever put into the journal that this would write.
        matches!(self.database.persist(PersistMode::Buffer), Err(fjall::Error::Poisoned))
    }

    /// What the tree knows of the logs.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn known(&self) -> Result<Known, LsmError> {
        let mut known = Known::default();
        for entry in self.data.prefix(layout::meta_prefix()) {
            let (key, value) = entry.into_inner().map_err(|cause| self.error("cannot read", cause))?;
            known.learn(&key, &value).map_err(|cause| self.foreign(cause))?;
        }
        Ok(known)
    }

    /// The hash tree of a partition, as the sets here make it; none where there are none.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn tree(&self, partition: Partition) -> Result<Option<PartitionTree>, LsmError> {
        let key = layout::tree_key(partition);
        let Some(value) = self.data.get(&key).map_err(|cause| self.error("cannot read", cause))? else {
            return Ok(None);
        };
        layout::decode_tree(&key, &value).map(|(_, tree)| Some(tree)).map_err(|cause| self.foreign(cause))
    }

    /// The hash trees of all partitions, as the sets here make them.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn forest(&self) -> Result<Forest, LsmError> {
        let mut forest = Forest::default();
        for (partition, tree) in self.all(layout::tree_prefix(), layout::decode_tree)? {
            forest.put(partition, tree);
        }
        Ok(forest)
    }

    /// The operations that are remembered, by key.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn remembered(&self) -> Result<Vec<(Place, Remembered)>, LsmError> {
        self.all(layout::operation_prefix(), layout::decode_operation)
    }

    /// All hints, with their keys: by node, then by place.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn hints(&self) -> Result<Vec<(Place, Hint)>, LsmError> {
        self.all(layout::hint_prefix(), layout::decode_hint)
    }

    /// Whether there is a set, even one that holds no value any more. What is in memory comes first: ask
    /// [`Engine::holds_data`](super::Engine::holds_data) of all cores, and then here.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn holds_data(&self) -> Result<bool, LsmError> {
        let first = self.data.prefix(layout::set_prefix()).next();
        let found = first.map(fjall::Guard::key).transpose().map_err(|cause| self.error("cannot read", cause))?;
        Ok(found.is_some())
    }

    /// How much is there, without reading any of it.
    pub fn size(&self) -> TreeSize {
        TreeSize { keys_approximately: self.data.approximate_len() as u64, bytes_on_disk: self.data.disk_space() }
    }

    /// Whether about half of the tree, in entries or in bytes, is what was deleted or replaced: a deletion stands
    /// beside what it deletes until both are compacted away, for which they must meet.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn is_wasteful(&self) -> Result<bool, LsmError> {
        let deletions = self.data.tree.tombstone_count();
        let held: u64 = self.forest()?.trees().map(|(_, tree)| tree.sum().bytes).sum();
        let TreeSize { keys_approximately, bytes_on_disk } = self.size();
        Ok(is_wasteful(deletions, keys_approximately, held, bytes_on_disk))
    }

    /// Writes the whole tree again, without what was deleted or replaced. Takes as long as that takes; reads and
    /// chunks go on meanwhile, compaction does not.
    ///
    /// # Errors
    /// [`LsmError`]; nothing was changed.
    pub fn reclaim(&self) -> Result<(), LsmError> {
        let failed = |cause| self.error("cannot compact", cause);
        self.move_on()?;
        self.data.major_compact().map_err(failed)?;
        // A file of large values goes with the compaction behind the one that found it dead.
        if self.size().bytes_on_disk <= 4 * self.data.fragmented_blob_bytes() {
            self.data.major_compact().map_err(failed)?;
        }
        // fjall keeps the files of what the tree was before until something makes it look.
        self.move_on()?;
        let unread = self.database.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
        let dropped = self.data.tree.get_version_history_lock().maintenance(self.data.path(), unread);
        dropped.map_err(|cause| failed(cause.into()))
    }

    /// With each ingestion fjall finds out anew what nobody reads any more: one that says nothing.
    fn move_on(&self) -> Result<(), LsmError> {
        self.ingest_spelled(|put| put(&layout::nothing_key(), None))
    }

    /// A page of the keys in partitions that are `mine`, as the tree and what is newer in memory hold them together:
    /// `newer` are places in order, and whether they hold a value, at least as many as make a page. `go_on` is asked in
    /// each partition and now and then; without it there is no page.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn list(
        &self,
        ring: Ring,
        mine: impl Fn(Partition) -> bool,
        keys: &Keys,
        newer: Vec<(Place, bool)>,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<Page>, LsmError> {
        let limit = usize::from(keys.limit);
        let after = keys.after.as_ref().map(|key| Place::of(ring, key));
        let first = after.as_ref().map_or(Partition(0), |after| after.partition);
        let mut newer: BTreeMap<Place, bool> = newer.into_iter().collect();
        let mut found = Vec::new();
        for partition in (first.0..ring.partitions()).map(Partition).filter(|partition| mine(*partition)) {
            if !go_on() {
                return Ok(None);
            }
            let Some(range) = page_range(partition, &keys.prefix, after.as_ref()) else {
                continue;
            };
            for (at, entry) in self.data.range(range).enumerate() {
                let (key, value) = entry.into_inner().map_err(|cause| self.error("cannot read", cause))?;
                let place = Place::from_set_key(&key).map_err(|cause| self.foreign(cause))?;
                while let Some(before) = newer.first_entry().filter(|before| *before.key() < place) {
                    found.extend(taken_if_live(before.remove_entry()));
                }
                match newer.remove_entry(&place) {
                    Some(known) => found.extend(taken_if_live(known)),
                    None if self.decode(&key, &value)?.live().next().is_some() => found.push(place.key),
                    None => {}
                }
                if found.len() > limit {
                    return Ok(Some(page(found, limit)));
                }
                if at % SLICE == SLICE - 1 && !go_on() {
                    return Ok(None);
                }
            }
            while let Some(rest) = newer.first_entry().filter(|rest| rest.key().partition == partition) {
                found.extend(taken_if_live(rest.remove_entry()));
            }
        }
        Ok(Some(page(found, limit)))
    }

    /// A page of the sets of a partition, as the tree and what is newer in memory hold them together: `newer` are those
    /// of the scan's keys that memory holds, in order. The page ends behind `SCANNED_MAX` keys at the latest. `go_on`
    /// is asked now and then; without it there is no page.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn scan(
        &self,
        ring: Ring,
        of: Scan,
        newer: Vec<KeySet>,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<ScanPage>, LsmError> {
        let mut scanner = Scanner::new(of.want);
        let mut newer = newer.into_iter().peekable();
        let after = of.after.map(|key| Place { partition: of.partition, key });
        let range = page_range(of.partition, b"", after.as_ref());
        for (at, entry) in range.into_iter().flat_map(|range| self.data.range(range)).enumerate() {
            if at % SLICE == SLICE - 1 && !go_on() {
                return Ok(None);
            }
            let (key, value) = entry.into_inner().map_err(|cause| self.error("cannot read", cause))?;
            let place = Place::from_set_key(&key).map_err(|cause| self.foreign(cause))?;
            while let Some((before, set)) = newer.next_if(|(before, _)| *before < place.key) {
                if take_set(&mut scanner, before, set).is_break() {
                    return Ok(Some(scanner.end()));
                }
            }
            let set = match newer.next_if(|(key, _)| *key == place.key) {
                Some((_, set)) => set,
                None if !of.leaves.contains(PartitionLeaf::of(ring, &place.key)) => None,
                None => Some(Arc::new(self.decode(&key, &value)?)),
            };
            if take_set(&mut scanner, place.key.clone(), set).is_break() {
                return Ok(Some(scanner.end()));
            }
            if at == SCANNED_MAX {
                return Ok(Some(scanner.end_behind(place.key)));
            }
        }
        let _full = newer.try_for_each(|(key, set)| take_set(&mut scanner, key, set));
        Ok(Some(scanner.end()))
    }

    /// All sets as they are now, by place, whatever is written meanwhile.
    pub fn snapshot(&self) -> impl Iterator<Item = Result<(Place, Bytes), LsmError>> + use<> {
        let lsm = self.clone();
        let snapshot = self.database.snapshot();
        snapshot.prefix(&self.data, layout::set_prefix()).map(move |entry| {
            let (key, value) = entry.into_inner().map_err(|cause| lsm.error("cannot read", cause))?;
            let place = Place::from_set_key(&key).map_err(|cause| lsm.foreign(cause))?;
            Ok((place, Bytes::copy_from_slice(&value)))
        })
    }

    /// Makes what fjall holds durable before the node ends.
    ///
    /// # Errors
    /// [`LsmError`].
    pub fn close(self) -> Result<(), LsmError> {
        match self.database.persist(PersistMode::SyncAll) {
            // What was ingested is durable, and nothing else is there.
            Ok(()) | Err(fjall::Error::Poisoned) => Ok(()),
            Err(cause) => Err(self.error("cannot close", cause)),
        }
    }

    /// The error of a set that cannot be read.
    pub fn unreadable(&self, place: &Place, cause: WireError) -> LsmError {
        self.foreign(LayoutError::Value { key: place.set_key(), cause })
    }

    fn all<T>(&self, prefix: [u8; 1], decode: Decode<T>) -> Result<Vec<T>, LsmError> {
        let read = |entry: fjall::Guard| {
            let (key, value) = entry.into_inner().map_err(|cause| self.error("cannot read", cause))?;
            decode(&key, &value).map_err(|cause| self.foreign(cause))
        };
        self.data.prefix(prefix).map(read).collect()
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<Siblings, LsmError> {
        let unreadable = |cause| self.foreign(LayoutError::Value { key: key.to_vec(), cause });
        sets::decode_set(value).map_err(unreadable)
    }

    fn error(&self, doing: &'static str, cause: fjall::Error) -> LsmError {
        error(doing, &self.path, cause)
    }

    fn foreign(&self, cause: LayoutError) -> LsmError {
        LsmError::Layout { path: self.path.clone(), cause }
    }
}

fn error(doing: &'static str, path: &Path, cause: fjall::Error) -> LsmError {
    let hint = match &cause {
        cause if is_full(cause) => " (the disk is full: free some space)",
        fjall::Error::Locked => " (another process holds it)",
        fjall::Error::InvalidVersion(Some(_)) => {
            " (another version of sloop wrote it: start that one; where none did, a file is damaged: restore the data \
             directory from a snapshot)"
        }
        fjall::Error::Storage(_)
        | fjall::Error::JournalRecovery(_)
        | fjall::Error::Unrecoverable
        | fjall::Error::InvalidVersion(None) => " (a file is damaged: restore the data directory from a snapshot)",
        _ => "",
    };
    LsmError::Fjall { doing, path: path.to_owned(), cause, hint }
}

/// Takes the key and the value of an entry; without a value it is deleted.
type Put<'a> = &'a mut dyn FnMut(&[u8], Option<&[u8]>) -> Result<(), LsmError>;

/// Reads an entry's key and value.
type Decode<T> = fn(&[u8], &[u8]) -> Result<T, LayoutError>;

/// A range of the tree's keys.
type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Where the sets of a partition stand whose keys begin with `prefix` and come behind `after`.
fn page_range(partition: Partition, prefix: &[u8], after: Option<&Place>) -> Option<KeyRange> {
    let from = layout::set_keys_from(partition, prefix);
    let mut behind = from.clone();
    while behind.pop_if(|last| *last == u8::MAX).is_some() {}
    *behind.last_mut().expect("the first byte of a set's key is not the highest") += 1;
    let after = after.map(Place::set_key).filter(|after| from <= *after);
    let begin = match after {
        Some(after) if behind <= after => return None,
        Some(after) => Bound::Excluded(after),
        None => Bound::Included(from),
    };
    Some((begin, Bound::Excluded(behind)))
}

fn is_wasteful(deletions: u64, entries: u64, bytes_held: u64, bytes_on_disk: u64) -> bool {
    let by_entries = DELETIONS_MIN <= deletions && entries <= 4 * deletions;
    let by_bytes = 2 * bytes_held + WASTE_BYTES_MIN <= bytes_on_disk;
    by_entries || by_bytes
}

fn taken_if_live((place, live): (Place, bool)) -> Option<Key> {
    live.then_some(place.key)
}

fn take_set(scanner: &mut Scanner, key: Key, set: Set) -> ControlFlow<()> {
    match set {
        Some(set) => scanner.take(key, set),
        None => ControlFlow::Continue(()),
    }
}

fn page(mut found: Vec<Key>, limit: usize) -> Page {
    let more = found.len() > limit;
    found.truncate(limit);
    Page { keys: found, more }
}

#[cfg(test)]
mod tests;
