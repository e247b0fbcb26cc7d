//! What of a node outlives its process.

use std::time::Duration;

use super::stage::Stage;
use crate::store::memory::{Disk, Tree};
use crate::store::wal::{SegmentId, SpareSegment};

/// The log's files and the tree of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    /// Segments.
    pub disk: Disk,
    /// What was ingested.
    pub tree: Tree,
    /// Nothing new finds room.
    pub is_full: bool,
    /// Each sync takes so much longer.
    pub lag: Duration,
    segments: u32,
}

impl Store {
    /// Begins to prepare a segment; `None` where there is no room.
    pub(crate) fn prepare(&mut self, bytes: u64) -> Option<SpareSegment> {
        if self.is_full {
            return None;
        }
        self.segments += 1;
        let spare = SpareSegment::new(SegmentId(self.segments), bytes)?;
        self.disk.prepare(spare);
        Some(spare)
    }

    /// How long a sync takes.
    pub(crate) fn sync_time(&self, stage: &mut Stage) -> Duration {
        let sync = stage.shape.sync;
        let lag = self.lag;
        stage.chance.time(sync, 2 * sync) + stage.chance.time(lag / 2, lag)
    }

    /// The power fails.
    pub(crate) fn crash(&mut self, stage: &mut Stage) {
        self.disk.crash(stage.chance.rng());
        self.tree.crash(stage.chance.rng());
    }

    /// The process ends, and the disk goes on: everything that was begun ends.
    pub(crate) fn settle(&mut self) {
        self.disk.sync();
        self.tree.ingest();
    }
}
