//! Keys of partitions that this node does not own: what an owner handed on when it ceased to be one, and what a
//! fallback kept until it was delivered. All owners are offered each of them; what they all have is dropped.
//!
//! Only without a change, and only where all owners hold what they should and are in reach. What is owed to somebody is
//! kept until it was delivered. A write that comes in meanwhile changes the digest, and keeps its key.

use std::collections::VecDeque;
use std::sync::Arc;

use super::forest::{Sum, digest};
use super::work::{JobId, Surveying};
use crate::protocol::config::LEFTOVERS_PERIOD;
use crate::protocol::io::{Effects, Held, Survey};
use crate::protocol::planted::Bug;
use crate::protocol::replica::{State, Task};
use crate::protocol::ring::{Partition, View};
use crate::protocol::shard::Shard;
use crate::protocol::types::{Instant, Key, Now};

/// Partitions that others own.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// All partitions of this core that this node does not own.
    foreign: Arc<[Partition]>,
    /// When they are looked at next.
    due: Instant,
    is_looking: bool,
    /// How many of them held keys in the last look, and which of these were not synced since.
    found: u64,
    left: VecDeque<Partition>,
}

impl Leftovers {
    pub(super) fn found(&self) -> u64 {
        self.found
    }

    pub(super) fn due(&self) -> impl Iterator<Item = Partition> {
        self.left.iter().copied()
    }

    /// It was tried: what is still there is found by the next look.
    pub(super) fn on_ended(&mut self, partition: Partition) {
        self.left.retain(|other| *other != partition);
    }
}

impl Shard {
    /// Whether nobody counts on what this node holds of the partition.
    fn is_foreign(&self, partition: Partition) -> bool {
        let View { me, change, .. } = &*self.view;
        match change {
            Some(change) if self.planted.is(Bug::EarlyCleanup) => !change.pending.is_owner(*me, partition),
            _ => !self.view.is_written(*me, partition),
        }
    }

    /// Whether what is left over may go: without a change, owners hold what they should.
    pub(super) fn may_clean_up(&self) -> bool {
        self.view.change.is_none() || self.planted.is(Bug::EarlyCleanup)
    }

    pub(super) fn plan_leftovers(&mut self, now: Now) {
        let is_foreign = |partition: &Partition| self.is_foreign(*partition);
        let foreign: Arc<[Partition]> = self.partitions_of_core().filter(is_foreign).collect();
        let leftovers = &mut self.trees.leftovers;
        if self.view.epoch == 0 || *leftovers.foreign != *foreign {
            leftovers.left.clear();
            leftovers.due = now.instant;
        }
        leftovers.found = if foreign.is_empty() { 0 } else { leftovers.found };
        leftovers.foreign = foreign;
    }

    /// Every so often the trees say which of them hold keys.
    pub(super) fn look_for_leftovers(&mut self, now: Now, effects: &mut Effects) {
        let is_settled = 0 < self.view.epoch && self.may_clean_up();
        let leftovers = &mut self.trees.leftovers;
        let is_due = !leftovers.is_looking && leftovers.due <= now.instant && !leftovers.foreign.is_empty();
        if is_settled && is_due {
            leftovers.is_looking = true;
            leftovers.due = now.instant + LEFTOVERS_PERIOD;
            let of = Survey::Sums(Arc::clone(&leftovers.foreign));
            self.survey(Surveying::Leftovers, of, effects);
        }
    }

    pub(super) fn on_leftovers_found(&mut self, now: Now, sums: &[Sum]) {
        let at_work: Vec<Partition> = self.trees.jobs.values().map(|job| job.partition()).collect();
        let leftovers = &mut self.trees.leftovers;
        leftovers.is_looking = false;
        if sums.len() != leftovers.foreign.len() {
            leftovers.due = now.instant;
            return;
        }
        let held = leftovers.foreign.iter().zip(sums).filter(|(_, sum)| 0 < sum.keys).map(|(partition, _)| *partition);
        let held: Vec<Partition> = held.collect();
        leftovers.found = held.len() as u64;
        leftovers.left = held.into_iter().filter(|partition| !at_work.contains(partition)).collect();
    }

    /// All owners have the key as it was here.
    pub(super) fn begin_drop(&mut self, id: JobId, key: Key, digest: u64, effects: &mut Effects) {
        match self.newest(&key, Held::Unknown) {
            Held::Known(newest) => {
                self.drop_if_proven(id, &key, digest, newest, effects);
            }
            Held::Unknown => self.queue(&key, Task::Drop(id, digest), effects),
        }
    }

    /// The newest state of such a key has come in.
    pub(in crate::protocol) fn drop_proven(
        &mut self,
        now: Now,
        id: JobId,
        key: &Key,
        digest: u64,
        newest: State,
        effects: &mut Effects,
    ) -> State {
        let newest = self.drop_if_proven(id, key, digest, newest, effects);
        self.drop_more(now, id, effects);
        newest
    }

    /// Drops it if it is so still, and nobody here is owed it, and others own it.
    fn drop_if_proven(&mut self, id: JobId, key: &Key, proven: u64, newest: State, effects: &mut Effects) -> State {
        let is_foreign = self.is_foreign(self.ring.partition(key)) && self.may_clean_up();
        let is_free = is_foreign && !self.stopped && !self.hints.is_owed(key);
        let Some(job) = self.trees.jobs.get_mut(&id) else { return newest };
        job.exchange.taking -= 1;
        match newest {
            Some(set) if is_free && digest(key, &set) == proven => {
                let append = self.append_drop(key.clone(), &set, effects);
                if let Some(job) = self.trees.jobs.get_mut(&id) {
                    job.append = append;
                }
                self.stats.leftovers_dropped += 1;
                None
            }
            newest => newest,
        }
    }
}
