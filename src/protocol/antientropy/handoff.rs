//! What a change of owners gives this core: every partition that its node gains, from every owner in the stored layout
//! that the change does not remove (DESIGN section 7).
//!
//! Each pair of partition and source is one whole sync that began after all members were known to write by both
//! layouts. Progress is kept in memory only: what has come is known by its digest, and does not come twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::protocol::ring::{Change, LayoutStamp, Partition, Step, View};
use crate::protocol::shard::Shard;
use crate::protocol::stats::Stats;
use crate::protocol::types::{Instant, NodeId, Now};

/// A partition, and an owner that it is fetched from.
type Source = (Partition, NodeId);

/// What is fetched for a change.
#[derive(Debug)]
pub(super) struct Fetching {
    /// The pending layout.
    stamp: LayoutStamp,
    all: u64,
    /// What is not done yet, and when it may be tried.
    left: BTreeMap<Source, Instant>,
}

impl Fetching {
    pub(super) fn count(&self, stats: Stats) -> Stats {
        Stats { transfers: self.all, transfers_left: self.left.len() as u64, ..stats }
    }

    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = Source> {
        self.left.iter().filter(move |(_, not_before)| **not_before <= now).map(|(source, _)| *source)
    }

    pub(super) fn needs(&self, source: Source) -> bool {
        self.left.contains_key(&source)
    }

    pub(super) fn on_ended(&mut self, source: Source, is_done: bool, again: Instant) {
        if is_done {
            self.left.remove(&source);
        } else if let Some(not_before) = self.left.get_mut(&source) {
            *not_before = again;
        }
    }
}

impl Shard {
    /// Whether all that the change under way gives this core is here, durably. True where there is none.
    pub(in crate::protocol) fn has_fetched_all(&self) -> bool {
        match (&self.view.change, &self.trees.fetching) {
            (Some(change), Some(fetching)) if fetching.stamp == change.pending.stamp() => fetching.left.is_empty(),
            (Some(change), _) => change.step == Step::Read,
            (None, _) => true,
        }
    }

    /// The view has changed: what is to be fetched, from whom?
    pub(super) fn plan_fetching(&mut self, now: Now) {
        let view = Arc::clone(&self.view);
        let Some(change) = view.change.as_ref().filter(|change| change.step == Step::Hold) else {
            self.trees.fetching = None;
            return;
        };
        let stamp = change.pending.stamp();
        let wanted: Vec<Source> =
            self.partitions_of_core().flat_map(|partition| sources(&view, change, partition)).collect();
        match &mut self.trees.fetching {
            // Whoever is removed meanwhile is waited for no more.
            Some(fetching) if fetching.stamp == stamp => {
                fetching.left.retain(|source, _| wanted.binary_search(source).is_ok());
            }
            fetching => {
                let left: BTreeMap<Source, Instant> = wanted.into_iter().map(|source| (source, now.instant)).collect();
                *fetching = Some(Fetching { stamp, all: left.len() as u64, left });
            }
        }
    }
}

/// From whom this node fetches a partition for a change.
fn sources(view: &View, change: &Change, partition: Partition) -> Vec<Source> {
    let Change { stored, pending, .. } = change;
    let me = view.me;
    let has_it = stored.is_owner(me, partition) && view.is_whole(stored, me);
    if has_it || !pending.is_owner(me, partition) {
        return Vec::new();
    }
    let is_source = |owner: &NodeId| {
        // Also one that has lost its disk: what it took since counts.
        *owner != me && view.member(*owner).is_some_and(|member| !member.is_removed)
    };
    let mut sources: Vec<Source> = stored.owners(partition).filter(is_source).map(|owner| (partition, owner)).collect();
    sources.sort_unstable();
    sources
}
