//! A node's trees are those of the sets that it holds durably, at its start and at all times.

use super::Invariant;
use crate::protocol::antientropy::{Forest, Shift, Sum};
use crate::protocol::io::{Survey, Surveyed};
use crate::protocol::ring::{Partition, Ring};
use crate::protocol::types::{CoreId, Instant};
use crate::sim::truth::{NodeTruth, Truth};
use crate::sim::watch::{Found, Seen, Verdict, complain};
use crate::sim::world::At;
use crate::store::Engine;

/// One look at a core in so many is one at a tree of it.
const ONE_IN: u64 = 16;

/// See the module.
#[derive(Default)]
pub(super) struct Trees {
    looks: u64,
}

impl Invariant for Trees {
    fn name(&self) -> &'static str {
        "trees"
    }

    fn source(&self) -> &'static str {
        "DESIGN 9: a tree is that of the sets of its partition; nothing is read to maintain it"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Restarted { node, found } => restarted(truth.ring, *node, found),
            Seen::Core { node, core, engine, .. } => self.look(truth, *node, *core, engine),
            _ => Ok(()),
        }
    }
}

impl Trees {
    fn look(&mut self, truth: &Truth, node: At, core: CoreId, engine: &Engine) -> Verdict {
        self.looks += 1;
        if !self.looks.is_multiple_of(ONE_IN) {
            return Ok(());
        }
        let (of_node, partitions) = (&truth.nodes[node], u64::from(truth.ring.partitions()));
        let first = self.looks / ONE_IN % partitions;
        let all = (first..partitions).chain(0..first).map(|n| Partition(u16::try_from(n).expect("a partition")));
        let Some(partition) = all.into_iter().find(|partition| of_node.cores.of(*partition) == core) else {
            return Ok(());
        };
        let Surveyed::Sums(sums) = engine.survey(&Survey::Sums([partition].into())) else {
            return complain("who asks for sums gets digests");
        };
        let held = held(truth.ring, of_node, partition);
        match sums[0] == held {
            true => Ok(()),
            false => complain(format!("n{node} has {:?} for {partition:?}, and holds {held:?}", sums[0])),
        }
    }
}

/// What a node holds durably of a partition.
fn held(ring: Ring, of_node: &NodeTruth, partition: Partition) -> Sum {
    let mut forest = Forest::default();
    for (key, set) in of_node.sets.iter().filter(|(key, _)| ring.partition(key) == partition) {
        forest.grow(ring, key, Shift::between(key, None, Some(set)));
    }
    forest.sum(partition)
}

fn restarted(ring: Ring, node: At, found: &Found<'_>) -> Verdict {
    let mut forest = Forest::default();
    for (key, set) in found.sets {
        forest.grow(ring, key, Shift::between(key, None, Some(set)));
    }
    for partition in (0..ring.partitions()).map(Partition) {
        let (kept, held) = (found.forest.tree(partition), forest.tree(partition));
        let is_empty = |tree: Option<&_>| tree.is_none_or(crate::protocol::antientropy::PartitionTree::is_empty);
        if kept != held && !(is_empty(kept) && is_empty(held)) {
            let (kept, held) = (found.forest.sum(partition), forest.sum(partition));
            return complain(format!("n{node} finds {kept:?} for {partition:?}, and holds {held:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, dot, key, set};
    use super::*;

    #[test]
    fn a_start_finds_the_trees_of_what_it_finds() {
        let mut made = MadeUp::new(1);
        let version = made.mint(dot(1, 1), &[], Some("a"));
        let whole = set(&[(1, 1)], &[&version]);
        let (sets, ring) = ([(key(), whole.clone())].into(), made.truth.ring);
        let mut forest = Forest::default();
        let judge = |forest: &Forest| {
            let found = Found { sets: &sets, forest, hints: &[] };
            Trees::default().see(&made.truth, Instant(1), &Seen::Restarted { node: 0, found })
        };
        assert!(judge(&forest).is_err());
        forest.grow(ring, &key(), Shift::between(&key(), None, Some(&whole)));
        assert_eq!(judge(&forest), Ok(()));
        forest.grow(ring, &key(), Shift::between(&key(), None, Some(&whole)));
        assert!(judge(&forest).is_err(), "a leaf was shifted twice");
    }

    #[test]
    fn what_a_core_says_of_a_partition_is_what_it_holds() {
        let mut made = MadeUp::new(1);
        let engine = made.engine();
        let look = |made: &MadeUp| {
            let mut trees = Trees::default();
            (0..ONE_IN * 64).try_for_each(|_| trees.look(&made.truth, 0, CoreId(0), &engine))
        };
        assert_eq!(look(&made), Ok(()));
        let version = made.mint(dot(1, 1), &[], Some("a"));
        made.hold(0, &set(&[(1, 1)], &[&version]));
        assert!(look(&made).is_err());
    }
}
