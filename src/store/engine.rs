//! The store of one core, as a pure state machine: what is read from where, what is written when, and what is kept
//! until when. The runtime drives it and does the reading and writing.
//!
//! ```text
//!           append            next_write, on_written         next_chunk            on_ingested
//!  shard ----------> queue -----------------------> overlay ------------> frozen ---------------> LSM tree
//!                    (log)                          `--------------- resident table -------------------'
//! ```
//!
//! Readers see the newest *durable* state of a key: the one in the resident table, which has all that the tree does not
//! have yet and what else there is room for, else the one in the tree. The newest *appended* state is the shard's
//! business.
//!
//! The engine never serves a state that a durable one has replaced, not even when a fetch began before and ends behind
//! it; and never lets the log be written over before the tree has what it held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::chunk::{Chunk, KeySet, Set};
use super::resident::Resident;
use super::wal::log::LogConfig;
use super::wal::{Life, Log, LogWrite, SegmentWish, SpareSegment};
use crate::protocol::antientropy::{BRANCHES, Forest, PartitionTree, Sum};
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Append, Arrived, Change, Held, Survey, Surveyed};
use crate::protocol::message::Failure;
use crate::protocol::peer::Refused;
use crate::protocol::planted::{Bug, Planted};
use crate::protocol::replica::Remembered;
use crate::protocol::ring::{Partition, Ring};
use crate::protocol::types::{AppendId, CoreId, Instant, Key, OperationId};

/// Writes are refused while so many times `log_bytes_max` wait to be in the tree. One or two do while it keeps up;
/// where it refuses, a few keys that are often overwritten would else fill the disk with log and never the overlay.
const LOGS_BEHIND_MAX: u64 = 4;

/// Before each write to the log where nearly all that may wait for the disk does.
const STRAIN_MAX: Duration = Duration::from_millis(20);

/// How the store of a core behaves. `memory` divides itself over the first three (docs/STORAGE.md).
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Writes are refused while overlay, frozen chunk and queue hold this much together.
    pub overlay_bytes_max: u64,
    /// Writes are refused while the queue of the log holds this much: a disk that does not keep up.
    pub queue_bytes_max: u64,
    /// What the table of sets in memory holds at most: those of overlay and frozen chunk, and beside them as many of
    /// those that the tree has too.
    pub cache_bytes: u64,
    /// The overlay is frozen when it holds this much.
    pub chunk_bytes: u64,
    /// The overlay is frozen when it is this old, so that an idle node has little to replay.
    pub chunk_age: Duration,
    /// The overlay is frozen when this much of the log was written since the last time: few keys, often overwritten.
    /// A restart replays a few times this much at most.
    pub log_bytes_max: u64,
    /// Time until another try after an ingestion failed.
    pub retry: Duration,
    /// The ring.
    pub ring: Ring,
    /// Random bits that no client knows, for the table of sets in memory.
    pub seed: u64,
    /// The log.
    pub log: LogConfig,
    /// The fault that it has: none but in a rehearsal.
    pub planted: Planted,
}

/// Where a key's newest durable state is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Here.
    Found(Arc<Siblings>),
    /// Nowhere: the key was never written.
    Absent,
    /// In the tree; a fetch is under way already. Its end answers this look-up too.
    Fetching,
    /// In the tree: fetch it, and end that with [`Engine::on_fetched`] or [`Engine::on_fetch_failed`].
    Fetch,
}

/// Why no write is taken now. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More was written than the disk has taken; try again in a little while.
    #[error("{held} bytes wait for the disk, allowed are {max}")]
    Overloaded {
        /// Bytes that wait.
        held: u64,
        /// The bound that they passed.
        max: u64,
    },
    /// The disk is full. Reads go on; writes go on by themselves once there is room.
    #[error("the disk is full")]
    DiskFull,
    /// A write to the log failed, and it is not written again; or a new segment cannot be made, which is tried again.
    /// Reads go on; a restart may help, another disk will.
    #[error("the log cannot be written: this core takes no writes")]
    Stopped,
}

impl Refusal {
    /// What a client is told by this core.
    pub fn failure(self, core: CoreId) -> Failure {
        match self {
            Refusal::Overloaded { .. } => Failure::overloaded(),
            Refusal::DiskFull => Failure::DiskFull,
            Refusal::Stopped => Failure::WritesStopped { core },
        }
    }
}

/// What a peer is told.
impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        match refusal {
            Refusal::Overloaded { .. } => Refused::Overloaded,
            Refusal::DiskFull => Refused::DiskFull,
            Refusal::Stopped => Refused::WritesStopped,
        }
    }
}

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Records that wait for the log or are being written.
    pub queue_records: usize,
    /// Bytes of memory that they hold.
    pub queue_bytes: u64,
    /// Keys, operations and hints in the overlay.
    pub overlay_keys: usize,
    /// Bytes of them.
    pub overlay_bytes: u64,
    /// Bytes that are being ingested.
    pub frozen_bytes: u64,
    /// Keys that are kept in memory and not dirty.
    pub cache_keys: usize,
    /// Bytes of them.
    pub cache_bytes: u64,
    /// Look-ups that were answered from memory, since the start.
    pub cache_hits: u64,
    /// Look-ups that went on to the tree, since the start.
    pub cache_misses: u64,
    /// Bytes of log that a restart would replay.
    pub log_bytes: u64,
    /// Segments that hold records.
    pub segments_used: usize,
    /// Segments that stand ready.
    pub segments_spare: usize,
    /// Records in the last write.
    pub batch_records: usize,
    /// Bytes of the last write.
    pub batch_bytes: usize,
    /// Writes to the log that have ended, since the start.
    pub writes: u64,
    /// Fetches under way.
    pub fetches: usize,
}

/// The store of one core.
pub struct Engine {
    config: EngineConfig,
    log: Log,
    resident: Resident,
    /// The trees of all that is durable.
    forest: Forest,
    /// When the overlay was first seen to hold something.
    overlay_since: Option<Instant>,
    frozen: Option<Frozen>,
    hits: u64,
    misses: u64,
    /// Fetches under way; true when a newer state of the key has become durable meanwhile.
    fetches: BTreeMap<Key, bool>,
    /// Everything up to here is in the tree.
    position: AppendId,
    /// Freeze at the next chance while `position` is below this.
    checkpoint: AppendId,
    /// Log written since the overlay was begun, and while the frozen chunk was the overlay.
    log_bytes: u64,
    log_bytes_frozen: u64,
    batch_records: usize,
    batch_bytes: usize,
    writes: u64,
}

struct Frozen {
    chunk: Arc<Chunk>,
    ingestion: Ingestion,
}

#[derive(Clone, Copy)]
enum Ingestion {
    UnderWay,
    Failed { full: bool, until: Instant },
}

impl Engine {
    /// The store of a core that begins a new log. Whatever earlier logs held is in the tree, and `forest` has the hash
    /// trees of what it holds of the core's partitions.
    pub fn new(config: EngineConfig, spares: Vec<SpareSegment>, forest: Forest) -> Engine {
        assert!(config.chunk_bytes <= config.overlay_bytes_max, "a chunk fits into the overlay");
        Engine {
            log: Log::new(config.log, spares),
            resident: Resident::new(config.ring, config.cache_bytes, config.seed),
            forest,
            overlay_since: None,
            frozen: None,
            hits: 0,
            misses: 0,
            fetches: BTreeMap::new(),
            position: AppendId(0),
            checkpoint: AppendId(0),
            log_bytes: 0,
            log_bytes_frozen: 0,
            batch_records: 0,
            batch_bytes: 0,
            writes: 0,
            config,
        }
    }

    /// These keys come next, [`FORESEEN_MAX`](super::resident::FORESEEN_MAX) of them at most. Changes nothing but what
    /// the processor has at hand.
    pub fn foresee<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        self.resident.foresee(keys);
    }

    /// What memory holds of a key; no fetch is begun where it holds nothing.
    pub fn held(&mut self, key: &Key) -> Held {
        match self.resident.get(key) {
            Some(set) => {
                self.hits += 1;
                Held::Known(set.clone())
            }
            None => Held::Unknown,
        }
    }

    /// Where the newest durable state of a key is.
    pub fn lookup(&mut self, key: &Key) -> Lookup {
        if let Held::Known(set) = self.held(key) {
            return known(set);
        }
        self.misses += 1;
        if self.fetches.contains_key(key) {
            return Lookup::Fetching;
        }
        self.fetches.insert(key.clone(), false);
        Lookup::Fetch
    }

    /// A fetch has ended: the tree had `found`. The answer is the newest durable state, which may be another one; where
    /// what was found is out of date and the newest state has gone on to the tree, it is to be fetched again.
    ///
    /// # Panics
    /// When no fetch of the key is under way.
    pub fn on_fetched(&mut self, key: Key, found: Option<Arc<Siblings>>) -> Lookup {
        let overtaken = self.fetches.remove(&key).expect("a fetch that ends was under way");
        if !overtaken {
            self.resident.keep(key, found.clone());
            return known(found);
        }
        self.lookup(&key)
    }

    /// A fetch has failed. The next look-up asks for another.
    pub fn on_fetch_failed(&mut self, key: &Key) {
        self.fetches.remove(key);
    }

    /// Whether a write to the log has failed. What is appended from then on is dropped, and has failed too.
    pub fn is_stopped(&self) -> bool {
        self.log.is_stopped()
    }

    /// Whether a write may be handed to the shard now.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self) -> Result<(), Refusal> {
        if self.log.is_stopped() || self.log.segment_failure() == Some(false) {
            return Err(Refusal::Stopped);
        }
        if self.log.segment_failure() == Some(true) || self.ingestion_failed_full() {
            return Err(Refusal::DiskFull);
        }
        match self.bounds().into_iter().find(|(held, max)| max <= held) {
            Some((held, max)) => Err(Refusal::Overloaded { held, max }),
            None => Ok(()),
        }
    }

    /// How long the log's next write had better wait: not at all until half of what may wait for the disk does, then
    /// more and more. Who falls behind is so felt as latency first, and as [`Refusal::Overloaded`] only when that does
    /// not help; and the time is there for what is behind, where it shares a processor with this core.
    pub fn strain(&self) -> Duration {
        let fullest = self.bounds().into_iter().map(|(held, max)| 100 * held / max.max(1)).max();
        let beyond_half = fullest.map_or(0, |percent| percent.clamp(50, 100) - 50);
        STRAIN_MAX * u32::try_from(beyond_half * beyond_half).unwrap_or(u32::MAX) / (50 * 50)
    }

    /// What may wait for the disk, and what does: in the queue of the log, in memory until it is in the tree, and as
    /// log.
    fn bounds(&self) -> [(u64, u64); 3] {
        let queued = self.log.queue_bytes();
        let unkept = queued + self.overlay().bytes() + self.resident.frozen_bytes();
        [
            (queued, self.config.queue_bytes_max),
            (unkept, self.config.overlay_bytes_max),
            (self.log_bytes_behind(), LOGS_BEHIND_MAX * self.config.log_bytes_max),
        ]
    }

    /// Queues a record for the log.
    pub fn append(&mut self, append: Append) {
        self.log.append(append);
    }

    /// Forgets an operation in the tree, with the next chunk.
    pub fn forget(&mut self, key: &Key, operation: &OperationId) {
        self.resident.forget(key, operation);
    }

    /// The next group commit; at most one at a time. `life` draws 64 random bits. Ended by [`Engine::on_written`] or
    /// [`Engine::on_write_failed`].
    pub fn next_write(&mut self, life: impl FnOnce() -> Life) -> Option<LogWrite> {
        let write = self.log.next_write(life)?;
        self.batch_records = write.records;
        self.batch_bytes = write.bytes.len();
        Some(write)
    }

    /// The write is durable: its records are, and readers see them. Returns the last of them. Takes the write back for
    /// its buffer.
    pub fn on_written(&mut self, write: LogWrite) -> AppendId {
        self.log_bytes += write.bytes.len() as u64;
        self.writes += 1;
        let (appends, through) = self.log.on_written(write);
        self.grow(&appends);
        appends.into_iter().for_each(|append| self.show(append));
        through
    }

    /// The write failed: everything appended has, and the log is not written again. What was durable stays readable
    /// and goes on into the tree.
    pub fn on_write_failed(&mut self) {
        self.log.on_write_failed();
    }

    /// A segment to be prepared now. Ended by [`Engine::on_segment_ready`] or [`Engine::on_segment_failed`].
    pub fn next_segment(&mut self, now: Instant) -> Option<SegmentWish> {
        self.log.next_segment(now)
    }

    /// The wished segment stands ready.
    pub fn on_segment_ready(&mut self, spare: SpareSegment) {
        self.log.on_segment_ready(spare);
    }

    /// The wished segment could not be prepared: writes are refused until a later try succeeds.
    pub fn on_segment_failed(&mut self, now: Instant, full: bool) {
        self.log.on_segment_failed(now, full);
    }

    /// The next chunk for the tree, when it is time; at most one at a time. Ended by [`Engine::on_ingested`] or
    /// [`Engine::on_ingest_failed`]. To be called at every turn.
    pub fn next_chunk(&mut self, now: Instant) -> Option<Arc<Chunk>> {
        self.resident.make_room(0);
        if self.overlay_since.is_none() && !self.overlay().is_empty() {
            self.overlay_since = Some(now);
        }
        let Some(frozen) = &mut self.frozen else {
            return self.is_chunk_due(now).then(|| self.freeze());
        };
        match frozen.ingestion {
            Ingestion::Failed { until, .. } if until <= now => {
                frozen.ingestion = Ingestion::UnderWay;
                Some(frozen.chunk.clone())
            }
            Ingestion::Failed { .. } | Ingestion::UnderWay => None,
        }
    }

    /// Wishes for everything that is durable now to be in the tree soon, whatever its size. That is so once
    /// [`Engine::position`] has reached what this returns.
    pub fn checkpoint(&mut self) -> AppendId {
        self.checkpoint = self.log.synced();
        self.checkpoint
    }

    /// Whether memory holds data that the tree may not have, on the way there or waiting for the log. After a failed
    /// write it always may: what was under way may be on the disk, and come back with the next start.
    pub fn holds_data(&self) -> bool {
        let dirty = self.resident.keys() - self.resident.clean().keys;
        dirty != 0 || self.log.queued() != 0 || self.log.is_stopped()
    }

    /// The last record that is durable.
    pub fn synced(&self) -> AppendId {
        self.log.synced()
    }

    /// Everything up to here is in the tree.
    pub fn position(&self) -> AppendId {
        self.position
    }

    /// The chunk is in the tree, durably. The store thread still holds it, and frees it once the engine does not: on
    /// the core that would hold up every request.
    ///
    /// # Panics
    /// When none is under way.
    pub fn on_ingested(&mut self) {
        let Frozen { chunk, .. } = self.frozen.take().expect("an ingestion that ends was under way");
        let (_, position) = chunk.position().expect("a frozen chunk says how far it goes");
        self.position = position;
        self.log_bytes_frozen = 0;
        self.log.recycle(position);
        self.resident.on_ingested();
    }

    /// The chunk could not be ingested; it is handed out again after a while.
    ///
    /// # Panics
    /// When none is under way.
    pub fn on_ingest_failed(&mut self, now: Instant, full: bool) {
        let frozen = self.frozen.as_mut().expect("an ingestion that ends was under way");
        let until = now + self.config.retry;
        frozen.ingestion = Ingestion::Failed { full, until };
    }

    /// The keys of a partition that are durable, not yet in the tree, and `wanted`, in order, with their states (`None`
    /// where the tree's is to be deleted): to be merged over a listing of the tree. All that a page needs is asked for
    /// first: what leaves the overlay while the tree is read is in both, else in neither.
    pub fn newer_than_tree(&self, partition: Partition, wanted: impl Fn(&Key) -> bool) -> Vec<&KeySet> {
        let frozen = self.frozen.as_ref().map(|frozen| &*frozen.chunk);
        self.resident.dirty_of(partition, frozen, wanted)
    }

    /// What the trees of all that is durable say.
    pub fn survey(&self, of: &Survey) -> Surveyed {
        let tree = |partition, digests: &dyn Fn(&PartitionTree) -> Vec<u64>| {
            Surveyed::Digests(self.forest.tree(partition).map_or(vec![0; BRANCHES], digests))
        };
        match of {
            Survey::Sums(partitions) => {
                Surveyed::Sums(partitions.iter().map(|partition| self.forest.sum(*partition)).collect())
            }
            Survey::Branches(partition) => tree(*partition, &|tree| tree.branches().to_vec()),
            Survey::Leaves(partition, branch) => tree(*partition, &|tree| tree.leaves_of(*branch).to_vec()),
        }
    }

    /// How much of what is durable the core holds, of all partitions together.
    pub fn sum(&self) -> Sum {
        self.forest.total()
    }

    /// Numbers for the metrics.
    pub fn stats(&self) -> EngineStats {
        let clean = self.resident.clean();
        let (segments_used, segments_spare) = self.log.segments();
        EngineStats {
            queue_records: self.log.queued(),
            queue_bytes: self.log.queue_bytes(),
            overlay_keys: self.overlay().len(),
            overlay_bytes: self.overlay().bytes(),
            frozen_bytes: self.resident.frozen_bytes(),
            cache_keys: clean.keys,
            cache_bytes: clean.bytes,
            cache_hits: self.hits,
            cache_misses: self.misses,
            log_bytes: self.log_bytes_behind(),
            segments_used,
            segments_spare,
            batch_records: self.batch_records,
            batch_bytes: self.batch_bytes,
            writes: self.writes,
            fetches: self.fetches.len(),
        }
    }

    fn overlay(&self) -> &Chunk {
        self.resident.overlay()
    }

    /// Takes what records do into the trees, all of them in a row: each waits for memory, and these waits overlap.
    fn grow(&mut self, appends: &[Append]) {
        for append in appends {
            if let Some(shift) = append.change.shift() {
                self.forest.grow(self.config.ring, &append.key, shift);
                // Not with every change: what is twice everywhere is the same everywhere.
                if self.config.planted.is(Bug::LeafTwice) && matches!(append.change, Change::Set { .. }) {
                    self.forest.grow(self.config.ring, &append.key, shift);
                }
            }
        }
    }

    /// Takes in a record that has become durable.
    fn show(&mut self, Append { key, change, .. }: Append) {
        match change {
            Change::Version(Arrived { state, remember, .. }) => {
                self.show_state(key, Some(state), remember.map(|remembered| *remembered));
            }
            Change::Set { state, remember, .. } => self.show_state(key, Some(state), remember),
            Change::Drop { .. } => self.show_state(key, None, None),
            Change::Hint(hint) => self.resident.hint(&key, hint),
            Change::Delivered { target } => self.resident.deliver(&key, target),
        }
    }

    /// Lets readers see a state that has become durable.
    fn show_state(&mut self, key: Key, state: Set, remember: impl IntoIterator<Item = Remembered>) {
        if let Some(overtaken) = self.fetches.get_mut(&key) {
            *overtaken = true;
        }
        remember.into_iter().for_each(|remembered| self.resident.remember(&key, remembered));
        self.resident.put(key, state);
    }

    fn is_chunk_due(&self, now: Instant) -> bool {
        let old = self.overlay_since.is_some_and(|since| self.config.chunk_age <= now.since(since));
        // Where no segment can be made any more, those behind the tree's position are the room that there is.
        let cramped = self.log.segment_failure() == Some(true) && !self.overlay().is_empty();
        old || cramped
            || self.config.chunk_bytes <= self.overlay().bytes()
            || self.config.log_bytes_max <= self.log_bytes
            || self.position < self.checkpoint
    }

    fn freeze(&mut self) -> Arc<Chunk> {
        let mut chunk = self.resident.freeze(self.config.log.id, self.log.synced());
        for partition in chunk.partitions().collect::<Vec<_>>() {
            chunk.put_tree(partition, self.forest.tree(partition).expect("what changed a set changed a tree"));
        }
        let chunk = Arc::new(chunk);
        self.overlay_since = None;
        self.log_bytes_frozen = std::mem::take(&mut self.log_bytes);
        self.frozen = Some(Frozen { chunk: chunk.clone(), ingestion: Ingestion::UnderWay });
        chunk
    }

    fn log_bytes_behind(&self) -> u64 {
        self.log_bytes + self.log_bytes_frozen
    }

    fn ingestion_failed_full(&self) -> bool {
        let ingestion = self.frozen.as_ref().map(|frozen| frozen.ingestion);
        matches!(ingestion, Some(Ingestion::Failed { full: true, .. }))
    }
}

fn known(set: Set) -> Lookup {
    set.map_or(Lookup::Absent, Lookup::Found)
}

#[cfg(test)]
mod tests;
