//! What is done next. All that decides about order and pace stands here.

use super::sync::{Job, Why};
use crate::protocol::config::{SYNC_PAUSE, SYNCS_MAX};
use crate::protocol::io::Effects;
use crate::protocol::ring::Partition;
use crate::protocol::shard::Shard;
use crate::protocol::types::{Instant, NodeId, Now};

/// A partition to be synced.
#[derive(Debug)]
struct Next {
    why: Why,
    partition: Partition,
    peers: Vec<NodeId>,
}

impl Shard {
    /// Starts what is due, as far as there is room.
    pub(super) fn start_jobs(&mut self, now: Now, effects: &mut Effects) {
        while !self.stopped && self.trees.jobs.len() < SYNCS_MAX && self.has_room() {
            let Some(Next { why, partition, peers }) = self.next_job(now.instant) else {
                return;
            };
            self.start_job(now, why, partition, peers, effects);
        }
    }

    /// What a change waits for comes first; then partitions that differ, one at a time; then what nobody misses.
    fn next_job(&self, now: Instant) -> Option<Next> {
        let fetched = self.trees.fetching.as_ref().and_then(|fetching| {
            fetching.due(now).find(|(_, from)| self.is_free(*from)).map(|(partition, from)| (partition, vec![from]))
        });
        let repaired = || {
            let mut due = self.trees.comparing.due(now).filter(|_| !self.is_at_work_for(Why::Repair));
            due.find(|(_, with)| self.is_free(*with)).map(|(partition, with)| (partition, vec![with]))
        };
        let left_over = || match self.is_at_work_for(Why::Leftover) || self.view.change.is_some() {
            true => None,
            false => self.trees.leftovers.due().find_map(|partition| Some((partition, self.all_owners(partition)?))),
        };
        let next = |why| move |(partition, peers)| Next { why, partition, peers };
        fetched
            .map(next(Why::Fetch))
            .or_else(|| repaired().map(next(Why::Repair)))
            .or_else(|| left_over().map(next(Why::Leftover)))
    }

    fn is_at_work_for(&self, why: Why) -> bool {
        self.trees.jobs.values().any(|job| job.why() == why)
    }

    /// Whether a node is in reach, and has no sync with this core under way.
    fn is_free(&self, node: NodeId) -> bool {
        self.is_reachable(node) && self.trees.jobs.values().all(|job| !job.peers().contains(&node))
    }

    /// All owners of a partition, if each holds what it should and is free.
    fn all_owners(&self, partition: Partition) -> Option<Vec<NodeId>> {
        let layout = &self.view.layout;
        let is_fit = |node: NodeId| self.view.is_whole(layout, node) && self.is_free(node);
        layout.owners(partition).all(is_fit).then(|| layout.owners(partition).collect())
    }

    /// A sync has ended: what is due next?
    pub(super) fn on_job_ended(&mut self, now: Now, job: &Job, is_done: bool, effects: &mut Effects) {
        let (partition, again) = (job.partition(), now.instant + SYNC_PAUSE);
        match (job.why(), job.peers()) {
            (Why::Fetch, [from]) => {
                if let Some(fetching) = &mut self.trees.fetching {
                    fetching.on_ended((partition, *from), is_done, again);
                }
            }
            (Why::Repair, [with]) => {
                let is_clean = self.trees.comparing.on_ended((partition, *with), is_done, job.begun(), again);
                self.on_suspect_ended(partition, is_clean);
            }
            _ => {
                self.trees.leftovers.on_ended(partition);
                if is_done && job.is_emptied() {
                    self.marked.remove(&partition);
                }
            }
        }
        self.start_jobs(now, effects);
    }
}
