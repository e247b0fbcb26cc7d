//! What is done next. All that decides about order and pace stands here.

use super::sync::{Job, Why};
use super::work::AntiEntropy;
use crate::protocol::config::{LEFTOVERS_MAX, SYNC_PAUSE, SYNCS_MAX};
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

    /// What a change waits for comes first; then partitions that differ, one at a time, then what nobody misses.
    fn next_job(&self, now: Instant) -> Option<Next> {
        let AntiEntropy { fetching, comparing, leftovers, .. } = &self.trees;
        let single = |why| move |(partition, peer)| Next { why, partition, peers: vec![peer] };
        let fetched = || fetching.as_ref()?.due(now).find(|pair| self.is_free(*pair)).map(single(Why::Fetch));
        let repaired = || {
            let mut due = comparing.due(self.view.me, now).filter(|_| self.at_work_for(Why::Repair) == 0);
            due.find(|pair| self.is_free(*pair)).map(single(Why::Repair))
        };
        let left_over = || {
            let mut due = leftovers.due().filter(|_| self.at_work_for(Why::Leftover) < LEFTOVERS_MAX);
            let next = |partition| Some(Next { why: Why::Leftover, partition, peers: self.all_owners(partition)? });
            due.find_map(next)
        };
        fetched().or_else(repaired).or_else(left_over)
    }

    fn at_work_for(&self, why: Why) -> usize {
        self.trees.jobs.values().filter(|job| job.why() == why).count()
    }

    /// Whether a node is in reach, and no job is at work on the partition: what two would send at once comes twice.
    fn is_free(&self, (partition, node): (Partition, NodeId)) -> bool {
        self.is_reachable(node) && self.trees.jobs.values().all(|job| job.partition() != partition)
    }

    /// All owners of a partition, if each holds what it should and is free, and there is no change.
    fn all_owners(&self, partition: Partition) -> Option<Vec<NodeId>> {
        let layout = self.may_clean_up().then_some(&self.view.layout)?;
        let is_fit = |node: NodeId| self.view.is_whole(layout, node) && self.is_free((partition, node));
        layout.owners(partition).all(is_fit).then(|| layout.owners(partition).collect())
    }

    /// The view has changed: what is of no use any more is left, and what it was for is tried anew where it still is.
    pub(super) fn end_outdated_jobs(&mut self) {
        let may_clean_up = self.may_clean_up();
        let (view, fetching) = (&self.view, &self.trees.fetching);
        self.trees.jobs.retain(|_, job| {
            let (partition, peers) = (job.partition(), job.peers());
            match job.why() {
                Why::Fetch => fetching.as_ref().is_some_and(|fetching| fetching.needs((partition, job.peer()))),
                Why::Repair => view.layout.is_owner(view.me, partition) && view.layout.is_owner(job.peer(), partition),
                Why::Leftover => may_clean_up && view.layout.owners(partition).eq(peers.iter().copied()),
            }
        });
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
