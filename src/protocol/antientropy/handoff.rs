//! What a change of owners gives this core: every partition that its node gains, from every owner in the stored layout
//! that the change does not remove (DESIGN section 7).
//!
//! Each pair of partition and source is one whole sync that began after all members were known to write by both
//! layouts. Progress is kept in memory only: what has come is known by its digest, and does not come twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compare::{question, roots_told};
use super::forest::Sum;
use super::work::{Peering, Surveying};
use crate::protocol::asks::About;
use crate::protocol::config::ASK_PATIENCE;
use crate::protocol::io::{Effects, Survey};
use crate::protocol::peer::{Told, Unheard};
use crate::protocol::planted::{Bug, Planted};
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
    /// What is to come from each core of a source that was not asked yet what is equal already.
    unasked: BTreeMap<Peering, Vec<Partition>>,
}

/// All that is to be fetched from one core of a source, with the roots that it has here.
#[derive(Clone, Debug)]
pub(in crate::protocol) struct Gains {
    stamp: LayoutStamp,
    from: Peering,
    partitions: Arc<[Partition]>,
    roots: Vec<u64>,
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
    /// Asks the cores of sources, one question each, what is equal already: partitions that hold nothing, and those
    /// that came before a restart, need no pass of their own.
    pub(super) fn look_at_sources(&mut self, effects: &mut Effects) {
        let Some(fetching) = &mut self.trees.fetching else { return };
        let (stamp, unasked) = (fetching.stamp, std::mem::take(&mut fetching.unasked));
        for (from, partitions) in unasked {
            let partitions: Arc<[Partition]> = partitions.into();
            let gains = Gains { stamp, from, partitions: Arc::clone(&partitions), roots: Vec::new() };
            self.survey(Surveying::Gains(Box::new(gains)), Survey::Sums(partitions), effects);
        }
    }

    pub(super) fn compare_gains(&mut self, now: Now, mut gains: Box<Gains>, sums: &[Sum], effects: &mut Effects) {
        gains.roots = sums.iter().map(|sum| sum.root).collect();
        let (ask, first) = question(&gains.partitions, &gains.roots);
        self.ask(now, gains.from.0, first, ask, About::Gains(gains), effects);
    }

    /// The source says what is equal: its copy held then what this node's held before.
    pub(in crate::protocol) fn on_gains_compared(&mut self, now: Now, gains: &Gains, told: Result<Told, Unheard>) {
        let Some(fetching) = self.trees.fetching.as_mut().filter(|fetching| fetching.stamp == gains.stamp) else {
            return;
        };
        let theirs = roots_told(told, &gains.roots);
        for (at, partition) in gains.partitions.iter().enumerate() {
            // Without an answer each is tried by itself.
            let is_equal = theirs.as_ref().is_some_and(|theirs| theirs[at] == gains.roots[at]);
            fetching.on_ended((*partition, gains.from.0), is_equal, now.instant);
        }
    }

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
            self.partitions_of_core().flat_map(|partition| sources(&view, change, partition, self.planted)).collect();
        match &mut self.trees.fetching {
            // Whoever is removed meanwhile is waited for no more.
            Some(fetching) if fetching.stamp == stamp => {
                fetching.left.retain(|source, _| wanted.binary_search(source).is_ok());
            }
            fetching => {
                // Each is tried by itself once its source has said what is equal already, or has not in time.
                let not_before = now.instant + ASK_PATIENCE;
                let mut unasked = BTreeMap::<Peering, Vec<Partition>>::new();
                for (partition, node) in &wanted {
                    if let Some(member) = view.member(*node) {
                        unasked.entry((*node, member.cores.of(*partition))).or_default().push(*partition);
                    }
                }
                let left: BTreeMap<Source, Instant> = wanted.into_iter().map(|source| (source, not_before)).collect();
                *fetching = Some(Fetching { stamp, all: left.len() as u64, left, unasked });
            }
        }
    }
}

/// From whom this node fetches a partition for a change. Where owners become fewer, those that stay fetch too: the
/// fewer that are read from now on may all have missed a write, which W of the more acknowledged.
fn sources(view: &View, change: &Change, partition: Partition, planted: Planted) -> Vec<Source> {
    let Change { stored, pending, .. } = change;
    let me = view.me;
    let has_it = stored.is_owner(me, partition) && view.is_whole(stored, me);
    let is_enough = stored.owners(partition).count() <= pending.owners(partition).count();
    if (has_it && is_enough) || !pending.is_owner(me, partition) {
        return Vec::new();
    }
    let is_source = |owner: &NodeId| {
        // Also one that has lost its disk: what it took since counts.
        *owner != me && view.member(*owner).is_some_and(|member| !member.is_removed)
    };
    let mut sources: Vec<Source> = stored.owners(partition).filter(is_source).map(|owner| (partition, owner)).collect();
    sources.sort_unstable();
    if planted.is(Bug::OneSource) {
        sources.truncate(1);
    }
    sources
}
