//! What a core has of the disk: group commits and segments of its log, what the store thread fetches and ingests.

use std::sync::Arc;
use std::time::Duration;

use super::Core;
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Input, Unreadable};
use crate::protocol::message::Failure;
use crate::protocol::types::{ActorId, Key, LoadId};
use crate::runtime::mail::{Finished, Job};
use crate::store::wal::{Life, LogWrite, SegmentWish, SpareSegment};
use crate::store::{Lookup, Refusal};

impl Core {
    /// How long the next group commit had better wait, because the disk is behind.
    pub fn strain(&self) -> Duration {
        self.parts.engine.strain()
    }

    /// The log's task asks for the next group commit, if there is one.
    pub fn next_write(&mut self, life: impl FnOnce() -> Life) -> Option<LogWrite> {
        self.parts.engine.next_write(life)
    }

    /// The group commit is durable.
    pub fn on_written(&mut self, write: LogWrite, took: Duration) {
        let metrics = &self.parts.metrics;
        metrics.wal_syncs.increment(1);
        metrics.wal_sync_seconds.record(took);
        metrics.wal_records.increment(write.records as u64);
        metrics.wal_batch_records.record(write.records as f64);
        metrics.wal_bytes.increment(write.bytes.len() as u64);
        let through = self.parts.engine.on_written(write);
        self.feed(Input::Appended { through });
        self.begin_chunk();
        self.segments.raise();
    }

    /// The group commit failed: this core writes no more.
    pub fn on_write_failed(&mut self, fresh: ActorId) {
        self.parts.metrics.wal_failures.increment(1);
        self.parts.engine.on_write_failed();
        self.feed(Input::AppendsFailed { actor: fresh });
    }

    /// A spare segment that should be prepared now, if one should.
    pub fn next_segment(&mut self) -> Option<SegmentWish> {
        self.parts.engine.next_segment(self.now.instant)
    }

    /// A spare segment is ready, or could not be made.
    pub fn on_segment(&mut self, made: Result<SpareSegment, bool>) {
        match made {
            Ok(spare) => self.parts.engine.on_segment_ready(spare),
            Err(full) => self.parts.engine.on_segment_failed(self.now.instant, full),
        }
        self.log.raise();
    }

    /// Whether writes are refused because the disk is full.
    pub fn is_out_of_room(&self) -> bool {
        self.parts.engine.admit() == Err(Refusal::DiskFull)
    }

    pub(super) fn load(&mut self, load: LoadId, key: Key) {
        match self.parts.engine.lookup(&key) {
            Lookup::Found(set) => self.inputs.push_back(Input::Loaded { load, found: Ok(Some(set)) }),
            Lookup::Absent => self.inputs.push_back(Input::Loaded { load, found: Ok(None) }),
            Lookup::Fetching => self.fetching.entry(key).or_default().push(load),
            Lookup::Fetch => {
                self.fetching.entry(key.clone()).or_default().push(load);
                self.fetches.push(key);
            }
        }
    }

    pub(super) fn on_finished(&mut self, finished: Finished) {
        match finished {
            Finished::Fetched { fetched, took } => {
                self.parts.metrics.cold_reads.increment(fetched.len() as u64);
                self.parts.metrics.cold_read_seconds.record(took);
                for (key, found) in fetched {
                    self.on_fetched(key, found);
                }
            }
            Finished::Scanned { scan, page } => self.feed(Input::Scanned { scan, page }),
            Finished::Listed { id, page } => self.feed(Input::Listed { id, page }),
            Finished::Ingested { outcome, took } => self.on_ingested(outcome, took),
        }
    }

    fn on_fetched(&mut self, key: Key, found: Result<Option<Arc<Siblings>>, Unreadable>) {
        let found = match found {
            Ok(found) => match self.parts.engine.on_fetched(key.clone(), found) {
                Lookup::Found(set) => Ok(Some(set)),
                Lookup::Absent => Ok(None),
                Lookup::Fetch | Lookup::Fetching => return self.fetches.push(key),
            },
            Err(unreadable) => {
                self.parts.engine.on_fetch_failed(&key);
                Err(unreadable)
            }
        };
        for load in self.fetching.remove(&key).unwrap_or_default() {
            self.feed(Input::Loaded { load, found: found.clone() });
        }
    }

    pub(super) fn begin_chunk(&mut self) {
        if let Some(chunk) = self.parts.engine.next_chunk(self.now.instant) {
            self.hand_over(Job::Ingest(chunk));
        }
        let position = self.parts.engine.position();
        for (_, done) in self.checkpoints.extract_if(.., |(goal, _)| *goal <= position) {
            // Whoever asked may have given up.
            let _ = done.send(Ok(()));
        }
    }

    fn on_ingested(&mut self, outcome: Result<(), bool>, took: Duration) {
        match outcome {
            Ok(()) => {
                self.parts.metrics.ingestions.increment(1);
                self.parts.metrics.ingestion_seconds.record(took);
                self.parts.engine.on_ingested();
                self.begin_chunk();
            }
            Err(full) => {
                self.parts.metrics.ingestion_failures.increment(1);
                self.parts.engine.on_ingest_failed(self.now.instant, full);
                for (_, done) in self.checkpoints.drain(..) {
                    let failure = if full { Failure::DiskFull } else { unreadable_store() };
                    // Whoever asked may have given up.
                    let _ = done.send(Err(failure));
                }
            }
        }
        self.segments.raise();
        self.log.raise();
    }

    pub(super) fn hand_over(&mut self, job: Job) {
        self.parts.store.send(job).expect("the store thread lives as long as its core");
    }
}

fn unreadable_store() -> Failure {
    Failure::Unreadable { reason: "the chunk could not be ingested: see the log of the node".to_owned() }
}
