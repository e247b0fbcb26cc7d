//! A hash tree over the tokens of a range: equal contents give equal roots on every replica, whatever the order in
//! which they came.
//!
//! A leaf is the XOR of the digests of its keys, so a key can be taken out of it again without the others. A key's
//! digest covers its vector and its dots, not its values alone: two replicas that hold the same values and have not
//! seen the same are not equal (DESIGN section 5).

use crate::protocol::causality::Siblings;
use crate::protocol::ring;
use crate::protocol::types::{Dot, Key};

/// Most leaves of one tree: half a megabyte of digests.
pub const LEAVES_MAX: usize = 32_768;

/// Seeds of the second half of a digest, so that the halves say different things of the same bytes.
const SEEDS: [u64; 4] = [0x736c_6f6f_7020_3161, 0x736c_6f6f_7020_3262, 0x736c_6f6f_7020_3363, 0x736c_6f6f_7020_3464];

/// 128 bits that differ where what they cover differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Digest(pub u128);

impl Digest {
    fn of(bytes: &[u8]) -> Digest {
        let high = seahash::hash(bytes);
        let low = seahash::hash_seeded(bytes, SEEDS[0], SEEDS[1], SEEDS[2], SEEDS[3]);
        Digest((u128::from(high) << 64) | u128::from(low))
    }

    /// The digest of a key and its set.
    fn of_entry(key: &Key, set: &Siblings) -> Digest {
        let mut bytes = Vec::with_capacity(key.as_bytes().len() + 16 * (set.vector().len() + set.versions().len() + 1));
        let put = |bytes: &mut Vec<u8>, dot: Dot| {
            bytes.extend_from_slice(&dot.actor.0.to_le_bytes());
            bytes.extend_from_slice(&dot.counter.to_le_bytes());
        };
        bytes.extend_from_slice(&(key.as_bytes().len() as u64).to_le_bytes());
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(&(set.vector().len() as u64).to_le_bytes());
        set.vector().dots().for_each(|dot| put(&mut bytes, dot));
        set.versions().iter().for_each(|version| put(&mut bytes, version.dot));
        Digest::of(&bytes)
    }
}

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

    /// Takes a key in, or out again: twice the same is nothing. A key outside of the range changes nothing.
    pub fn toggle(&mut self, key: &Key, set: &Siblings) {
        let token = ring::hash(key).cast_signed();
        if let Some(leaf) = self.range.leaf_of(token) {
            self.leaves[leaf].0 ^= Digest::of_entry(key, set).0;
        }
    }

    /// Digest of all leaves, pair by pair up to the root.
    pub fn root(&self) -> Digest {
        let mut level = self.leaves.clone();
        while level.len() > 1 {
            let pair = |pair: &[Digest]| Digest::of(&[pair[0].0.to_le_bytes(), pair[1].0.to_le_bytes()].concat());
            level = level.chunks(2).map(pair).collect();
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
    use crate::protocol::types::{ActorId, Value, WallTime};

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
    fn ranges_that_make_no_tree_are_refused() {
        assert_eq!(Range::new(1, 0, 2), Err(RangeError::Backwards { start: 1, end: 0 }));
        for leaves in [0, 3, 65_536] {
            assert_eq!(Range::new(0, 9, leaves), Err(RangeError::Leaves { leaves }));
        }
    }

    #[test]
    fn the_digests_never_change() {
        let root = tree(whole(16), &[entry(1), entry(2)]).root();
        assert_eq!(format!("{:032x}", root.0), "5a7bf103b021839dcf5e7e4194d98164");
    }
}
