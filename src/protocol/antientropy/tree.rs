//! A hash tree over the tokens of a range: equal contents give equal roots on every replica, whatever the order in
//! which they came.
//!
//! A leaf is the XOR of the digests of its keys ([`digest`]), so a key can be taken out of it again without the others,
//! and leaves of the [`Forest`] that a node maintains make larger ones.

use super::forest::{Forest, Leaf as PartitionLeaf, digest, digest_of_roots};
use crate::protocol::causality::Siblings;
use crate::protocol::ring::{self, Ring};
use crate::protocol::types::Key;

/// Most leaves of one tree: a quarter of a megabyte of digests.
pub const LEAVES_MAX: usize = 32_768;

/// 64 bits that differ where what they cover differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Digest(pub u64);

/// Tokens from `start` to `end`, both in it, cut into equal leaves. A token is a key's place on the ring, read as a
/// signed number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    start: i64,
    end: i64,
    leaves: usize,
}

/// A range that cannot be cut like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// It ends before it starts.
    #[error("the range ends at token {end}, before it starts at {start}")]
    Backwards {
        /// Its first token.
        start: i64,
        /// Its last token.
        end: i64,
    },
    /// A number of leaves that makes no tree.
    #[error("{leaves} leaves make no tree: a power of two from 1 to {LEAVES_MAX} does")]
    Leaves {
        /// The number asked for.
        leaves: usize,
    },
}

impl Range {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn new(start: i64, end: i64, leaves: usize) -> Result<Range, RangeError> {
        match () {
            () if end < start => Err(RangeError::Backwards { start, end }),
            () if !leaves.is_power_of_two() || leaves > LEAVES_MAX => Err(RangeError::Leaves { leaves }),
            () => Ok(Range { start, end, leaves }),
        }
    }

    /// Tokens of the range: up to 2^64.
    fn width(self) -> u128 {
        u128::from(self.end.abs_diff(self.start)) + 1
    }

    fn leaf_of(self, token: i64) -> Option<usize> {
        let within = (self.start..=self.end).contains(&token);
        let leaf = u128::from(token.abs_diff(self.start)) * self.leaves as u128 / self.width();
        within.then(|| usize::try_from(leaf).expect("less than the number of leaves"))
    }

    /// The first token of a leaf.
    fn first_of(self, leaf: usize) -> i64 {
        let from_start = (leaf as u128 * self.width()).div_ceil(self.leaves as u128);
        let first = i128::from(self.start) + i128::try_from(from_start).expect("at most 2^64");
        i64::try_from(first).unwrap_or(self.end)
    }
}

/// One leaf that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its first token.
    pub token: i64,
    /// The XOR of its keys.
    pub digest: Digest,
}

/// The tree of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    range: Range,
    leaves: Vec<Digest>,
}

impl Tree {
    /// A tree of no keys.
    pub fn new(range: Range) -> Tree {
        Tree { range, leaves: vec![Digest::default(); range.leaves] }
    }

    /// The tree of what a forest holds, where the range's leaves are made of whole ones of the forest's: the whole
    /// ring, in no more leaves than all partitions have.
    pub fn of_forest(range: Range, ring: Ring, forest: &Forest) -> Option<Tree> {
        let finest = usize::from(ring.partitions()) * super::LEAVES;
        if (range.start, range.end) != (i64::MIN, i64::MAX) || range.leaves > finest {
            return None;
        }
        let mut tree = Tree::new(range);
        for (partition, of_partition) in forest.trees() {
            for (leaf, digest) in (0..=u8::MAX).map(PartitionLeaf).zip(of_partition.leaves()) {
                tree.toggle_digest(leaf.first_hash(ring, partition), *digest);
            }
        }
        Some(tree)
    }

    /// Takes a key in, or out again: twice the same is nothing. A key outside of the range changes nothing.
    pub fn toggle(&mut self, key: &Key, set: &Siblings) {
        self.toggle_digest(ring::hash(key), digest(key, set));
    }

    fn toggle_digest(&mut self, hash: u64, digest: u64) {
        if let Some(leaf) = self.range.leaf_of(hash.cast_signed()) {
            self.leaves[leaf].0 ^= digest;
        }
    }

    /// Digest of all leaves, pair by pair up to the root.
    pub fn root(&self) -> Digest {
        let mut level = self.leaves.clone();
        while level.len() > 1 {
            let of_pair = |pair: &[Digest]| digest_of_roots(pair.iter().map(|digest| digest.0));
            level = level.chunks(2).map(of_pair).map(Digest).collect();
        }
        level[0]
    }

    /// How many leaves the range is cut into.
    pub fn leaf_count(&self) -> usize {
        self.leaves.len()
    }

    /// The leaves that hold something, by token.
    pub fn leaves(&self) -> impl Iterator<Item = Leaf> {
        let held = self.leaves.iter().enumerate().filter(|(_, digest)| **digest != Digest::default());
        held.map(|(at, digest)| Leaf { token: self.range.first_of(at), digest: *digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::causality::{Supersedes, Write};
    use crate::protocol::types::{ActorId, Dot, Value, WallTime};

    fn entry(n: u64) -> (Key, Siblings) {
        let write = Write {
            value: Some(Value::new("x").unwrap()),
            supersedes: Supersedes::Held,
            operation: None,
            written_at: WallTime(0),
        };
        let dot = Dot { actor: ActorId(1), counter: n + 1 };
        (Key::new(format!("key {n}")).unwrap(), Siblings::default().mint(dot, write).unwrap().set)
    }

    fn tree(range: Range, entries: &[(Key, Siblings)]) -> Tree {
        let mut tree = Tree::new(range);
        entries.iter().for_each(|(key, set)| tree.toggle(key, set));
        tree
    }

    fn whole(leaves: usize) -> Range {
        Range::new(i64::MIN, i64::MAX, leaves).unwrap()
    }

    #[test]
    fn equal_contents_give_equal_roots_in_any_order_and_any_difference_shows() {
        let mut entries: Vec<_> = (0..100).map(entry).collect();
        let all = tree(whole(64), &entries);
        entries.reverse();
        assert_eq!(tree(whole(64), &entries).root(), all.root());

        let without_one = tree(whole(64), &entries[1..]);
        assert_ne!(without_one.root(), all.root());
        let differing = all.leaves().zip(without_one.leaves()).filter(|(one, other)| one != other).count();
        assert_eq!(differing, 1, "one leaf tells where");

        entries[0].1 = entry(1_000).1;
        assert_ne!(tree(whole(64), &entries).root(), all.root(), "the same value under another dot is another set");
    }

    #[test]
    fn a_key_that_is_taken_out_leaves_no_trace() {
        let entries: Vec<_> = (0..10).map(entry).collect();
        let mut all = tree(whole(8), &entries);
        entries.iter().for_each(|(key, set)| all.toggle(key, set));
        assert_eq!(all, Tree::new(whole(8)));
    }

    #[test]
    fn every_token_of_a_range_has_its_leaf_and_none_beyond() {
        for (start, end, leaves) in [(-8, 7, 4), (0, 0, 1), (0, 2, 4), (i64::MIN, i64::MAX, 1_024), (-3, 9, 8)] {
            let range = Range::new(start, end, leaves).unwrap();
            assert_eq!(range.leaf_of(start), Some(0));
            assert!(range.leaf_of(end).unwrap() < leaves);
            for token in (start..=end).take(16) {
                let leaf = range.leaf_of(token).unwrap();
                assert!(range.first_of(leaf) <= token, "{start} {end} {leaves}: token {token} in leaf {leaf}");
            }
            assert!(start == i64::MIN || range.leaf_of(start - 1).is_none());
            assert!(end == i64::MAX || range.leaf_of(end + 1).is_none());
        }
    }

    #[test]
    fn leaves_of_a_forest_make_the_tree_of_its_keys() {
        let entries: Vec<_> = (0..500).map(entry).collect();
        for partitions in [1, 16, 1_024] {
            let ring = Ring::new(partitions);
            let mut forest = Forest::default();
            for (key, set) in &entries {
                let shift = super::super::Shift::between(key, None, Some(set));
                forest.grow(ring, key, shift);
            }
            for leaves in [1, 2, 16, 64] {
                let grown = Tree::of_forest(whole(leaves), ring, &forest);
                assert_eq!(grown, Some(tree(whole(leaves), &entries)), "{partitions} partitions, {leaves} leaves");
            }
            let finest = tree(whole(LEAVES_MAX), &entries);
            let grown = Tree::of_forest(whole(LEAVES_MAX), ring, &forest);
            assert_eq!(grown, (partitions == 1_024).then_some(finest));
            let half = Range::new(0, i64::MAX, 2).unwrap();
            assert_eq!(Tree::of_forest(half, ring, &forest), None);
        }
    }

    #[test]
    fn ranges_that_make_no_tree_are_refused() {
        assert_eq!(Range::new(1, 0, 2), Err(RangeError::Backwards { start: 1, end: 0 }));
        for leaves in [0, 3, 65_536] {
            assert_eq!(Range::new(0, 9, leaves), Err(RangeError::Leaves { leaves }));
        }
    }

    #[test]
    fn the_digests_never_change() {
        let root = tree(whole(16), &[entry(1), entry(2)]).root();
        assert_eq!(format!("{:016x}", root.0), "f58429a888f0c6ac");
    }
}
