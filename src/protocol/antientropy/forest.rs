//! The trees of a node's partitions: of each partition the XOR of the digests of its keys, leaf by leaf, and how much
//! it holds.
//!
//! ```text
//!   root ── 8 branches ── 8 leaves each           a key's leaf: the 6 bits of its hash below those of its partition
//! ```
//! Each write shifts one leaf by what its key was and what it is now ([`Shift`]), so nothing is ever read to maintain
//! a tree, and shifts may come in any order. A root is the XOR of its leaves. Peers compare one digest of many roots
//! first (DESIGN section 9).

use std::hash::Hasher;

use seahash::SeaHasher;

use crate::protocol::causality::Siblings;
use crate::protocol::ring::{self, Partition, Ring};
use crate::protocol::types::Key;

/// Leaves of one partition's tree. 1,024 trees of so many take 512 KiB, which stay in a core's cache and make a small
/// part of a chunk; of 10,000,000 keys a leaf holds 150.
pub const LEAVES: usize = 64;

/// Branches of a tree, and leaves of a branch.
pub const BRANCHES: usize = 8;

/// Bits of a hash behind those of its partition and its leaf, when the partition's are shifted out.
const BEHIND_LEAF: u32 = u64::BITS - LEAVES.trailing_zeros();

/// One leaf of a partition's tree, below [`LEAVES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leaf(pub u8);

/// Some leaves of a partition's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LeafSet(pub u64);

/// What a write does to its leaf, and to what its partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shift {
    /// What the key was XOR what it is: 64 bits that differ where dots or vectors do.
    pub digest: u64,
    /// Keys more: -1, 0 or 1.
    pub keys: i8,
    /// Keys more that hold nothing but tombstones: -1, 0 or 1.
    pub buried: i8,
    /// Bytes more, as sets count them.
    pub bytes: i64,
}

/// How much a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sum {
    /// The tree's root.
    pub root: u64,
    /// Keys, buried ones too.
    pub keys: u64,
    /// Keys that hold nothing but tombstones.
    pub buried: u64,
    /// Bytes of keys and sets.
    pub bytes: u64,
}

/// The tree of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTree {
    sum: Sum,
    leaves: [u64; LEAVES],
}

/// The trees of all partitions of which anything was ever held.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Forest {
    trees: Vec<Option<Box<PartitionTree>>>,
    /// Of all of them.
    total: Sum,
}

impl Sum {
    fn shift(&mut self, shift: Shift) {
        self.root ^= shift.digest;
        self.keys = self.keys.wrapping_add_signed(shift.keys.into());
        self.buried = self.buried.wrapping_add_signed(shift.buried.into());
        self.bytes = self.bytes.wrapping_add_signed(shift.bytes);
    }

    fn plus(self, other: Sum) -> Sum {
        Sum {
            root: self.root ^ other.root,
            keys: self.keys.wrapping_add(other.keys),
            buried: self.buried.wrapping_add(other.buried),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }

    fn less(self, other: Sum) -> Sum {
        Sum {
            root: self.root ^ other.root,
            keys: self.keys.wrapping_sub(other.keys),
            buried: self.buried.wrapping_sub(other.buried),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }
}

impl Leaf {
    /// The leaf of a key: the bits of its hash below those of its partition.
    pub fn of(ring: Ring, key: &Key) -> Leaf {
        Leaf::at(ring, ring::hash(key))
    }

    fn at(ring: Ring, hash: u64) -> Leaf {
        let below = hash.checked_shl(ring.partitions().trailing_zeros()).unwrap_or(0);
        Leaf((below >> BEHIND_LEAF) as u8)
    }

    /// The first hash that is in this leaf of a partition.
    pub fn first_hash(self, ring: Ring, partition: Partition) -> u64 {
        let bits = ring.partitions().trailing_zeros();
        let begins = u64::from(partition.0).checked_shl(u64::BITS - bits).unwrap_or(0);
        begins | (u64::from(self.0) << BEHIND_LEAF) >> bits
    }
}

impl LeafSet {
    /// All leaves.
    pub const ALL: LeafSet = LeafSet(u64::MAX);

    /// Adds a leaf.
    pub fn insert(&mut self, leaf: Leaf) {
        self.0 |= 1 << leaf.0;
    }

    /// Whether a leaf is one of them.
    pub fn contains(&self, leaf: Leaf) -> bool {
        self.0 >> leaf.0 & 1 == 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// The leaves, ascending.
    pub fn iter(self) -> impl Iterator<Item = Leaf> {
        (0..LEAVES as u8).map(Leaf).filter(move |leaf| self.contains(*leaf))
    }
}

impl FromIterator<Leaf> for LeafSet {
    fn from_iter<I: IntoIterator<Item = Leaf>>(leaves: I) -> LeafSet {
        let mut set = LeafSet::default();
        leaves.into_iter().for_each(|leaf| set.insert(leaf));
        set
    }
}

/// The digest of a key and its set: equal sets of one key have equal ones, whatever is held of other keys.
pub fn digest(key: &Key, set: &Siblings) -> u64 {
    digest_under(ring::hash(key), set)
}

/// The digest of a key of this hash, and its set.
fn digest_under(hash: u64, set: &Siblings) -> u64 {
    let mut hasher = SeaHasher::new();
    hasher.write_u64(hash);
    hasher.write_u64(set.digest());
    hasher.finish()
}

/// One digest of the roots of several partitions.
pub fn digest_of_roots(roots: impl Iterator<Item = u64>) -> u64 {
    let bytes: Vec<u8> = roots.flat_map(u64::to_le_bytes).collect();
    seahash::hash(&bytes)
}

/// Whether a set holds nothing but tombstones.
pub fn is_buried(set: &Siblings) -> bool {
    set.live().next().is_none()
}

impl Shift {
    /// From what a key was to what it is.
    pub fn between(key: &Key, before: Option<&Siblings>, after: Option<&Siblings>) -> Shift {
        let hash = ring::hash(key);
        let measured = |set: Option<&Siblings>| match set {
            None => (0, 0, 0, 0),
            Some(set) => {
                let bytes = i64::try_from(key.as_bytes().len() + set.bytes()).expect("a set fits in memory");
                (digest_under(hash, set), 1, i8::from(is_buried(set)), bytes)
            }
        };
        let (was, is) = (measured(before), measured(after));
        Shift { digest: was.0 ^ is.0, keys: is.1 - was.1, buried: is.2 - was.2, bytes: is.3 - was.3 }
    }
}

impl Default for PartitionTree {
    fn default() -> PartitionTree {
        PartitionTree { sum: Sum::default(), leaves: [0; LEAVES] }
    }
}

impl PartitionTree {
    /// A tree from what was kept of it: the root is that of its leaves.
    pub fn from_parts(keys: u64, buried: u64, bytes: u64, leaves: [u64; LEAVES]) -> PartitionTree {
        let root = leaves.iter().fold(0, |root, leaf| root ^ leaf);
        PartitionTree { sum: Sum { root, keys, buried, bytes }, leaves }
    }

    /// Takes in what a write does to a leaf.
    pub fn apply(&mut self, leaf: Leaf, shift: Shift) {
        self.leaves[usize::from(leaf.0)] ^= shift.digest;
        self.sum.shift(shift);
    }

    /// Root, and how much the partition holds.
    pub fn sum(&self) -> Sum {
        self.sum
    }

    /// Whether it is the tree of a partition that holds nothing.
    pub fn is_empty(&self) -> bool {
        self.sum == Sum::default() && self.leaves == [0; LEAVES]
    }

    /// All leaves.
    pub fn leaves(&self) -> &[u64; LEAVES] {
        &self.leaves
    }

    /// The XOR of each branch's leaves.
    pub fn branches(&self) -> [u64; BRANCHES] {
        let mut branches = [0; BRANCHES];
        for (leaves, branch) in self.leaves.chunks(LEAVES / BRANCHES).zip(&mut branches) {
            *branch = leaves.iter().fold(0, |all, leaf| all ^ leaf);
        }
        branches
    }

    /// The leaves of a branch below [`BRANCHES`].
    pub fn leaves_of(&self, branch: u8) -> &[u64] {
        let width = LEAVES / BRANCHES;
        &self.leaves[usize::from(branch) * width..][..width]
    }
}

impl Forest {
    /// The tree of a partition, where anything was ever held of it.
    pub fn tree(&self, partition: Partition) -> Option<&PartitionTree> {
        self.trees.get(usize::from(partition.0))?.as_deref()
    }

    /// Root of a partition, and how much it holds.
    pub fn sum(&self, partition: Partition) -> Sum {
        self.tree(partition).map_or(Sum::default(), PartitionTree::sum)
    }

    /// How much all partitions hold together; the root is the XOR of theirs.
    pub fn total(&self) -> Sum {
        self.total
    }

    /// Takes in what a write does to its key.
    pub fn grow(&mut self, ring: Ring, key: &Key, shift: Shift) {
        let hash = ring::hash(key);
        self.apply(ring.partition_at(hash), Leaf::at(ring, hash), shift);
    }

    /// Takes in what a write does.
    pub fn apply(&mut self, partition: Partition, leaf: Leaf, shift: Shift) {
        self.place(partition).get_or_insert_default().apply(leaf, shift);
        self.total.shift(shift);
    }

    /// Puts a tree in its place.
    pub fn put(&mut self, partition: Partition, tree: PartitionTree) {
        self.total = self.total.less(self.sum(partition)).plus(tree.sum());
        *self.place(partition) = Some(Box::new(tree));
    }

    /// All trees, by partition.
    pub fn trees(&self) -> impl Iterator<Item = (Partition, &PartitionTree)> {
        (0..).map(Partition).zip(&self.trees).filter_map(|(partition, tree)| Some((partition, tree.as_deref()?)))
    }

    /// The trees of some partitions.
    pub fn part(&self, wanted: impl Fn(Partition) -> bool) -> Forest {
        let mut part = Forest::default();
        let wanted = self.trees().filter(|(partition, _)| wanted(*partition));
        wanted.for_each(|(partition, tree)| part.put(partition, tree.clone()));
        part
    }

    fn place(&mut self, partition: Partition) -> &mut Option<Box<PartitionTree>> {
        let at = usize::from(partition.0);
        if self.trees.len() <= at {
            self.trees.resize_with(at + 1, || None);
        }
        &mut self.trees[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::causality::{Supersedes, Write};
    use crate::protocol::types::{ActorId, Dot, Value, WallTime};

    fn set(counter: u64, value: Option<&'static str>) -> Siblings {
        let value = value.map(|value| Value::new(value).unwrap());
        let write = Write { value, supersedes: Supersedes::Held, operation: None, written_at: WallTime(0) };
        Siblings::default().mint(Dot { actor: ActorId(1), counter }, write).unwrap().set
    }

    fn key(n: u64) -> Key {
        Key::new(format!("key {n}")).unwrap()
    }

    #[test]
    fn shifts_lead_to_the_same_tree_in_any_order_and_back_to_nothing() {
        let ring = Ring::new(16);
        let steps: Vec<(Key, Shift)> = (1..50)
            .flat_map(|n| {
                let (first, second) = (set(n, Some("v")), set(n + 100, None));
                [
                    (key(n), Shift::between(&key(n), None, Some(&first))),
                    (key(n), Shift::between(&key(n), Some(&first), Some(&second))),
                ]
            })
            .collect();
        let grown = |steps: &mut dyn Iterator<Item = &(Key, Shift)>| {
            let mut forest = Forest::default();
            steps.for_each(|(key, shift)| forest.grow(ring, key, *shift));
            forest
        };
        let forest = grown(&mut steps.iter());
        let total = |what: fn(Sum) -> u64| (0..16).map(|n| what(forest.sum(Partition(n)))).sum::<u64>();
        assert_eq!((total(|sum| sum.keys), total(|sum| sum.buried)), (49, 49));
        assert_eq!((forest.total().keys, forest.total().bytes), (49, total(|sum| sum.bytes)));
        assert_eq!(forest.part(|_| true).total(), forest.total());
        assert_eq!(forest, grown(&mut steps.iter().rev()));
        for partition in (0..16).map(Partition) {
            let Some(tree) = forest.tree(partition) else { continue };
            let Sum { root, keys, buried, bytes } = tree.sum();
            assert_eq!(tree.branches().iter().fold(0, |all, branch| all ^ branch), root);
            assert_eq!(PartitionTree::from_parts(keys, buried, bytes, *tree.leaves()), *tree);
        }

        let mut emptied = forest;
        for n in 1..50 {
            let gone = Shift::between(&key(n), Some(&set(n + 100, None)), None);
            emptied.apply(ring.partition(&key(n)), Leaf::of(ring, &key(n)), gone);
        }
        assert!((0..16).all(|n| emptied.sum(Partition(n)) == Sum::default()));
    }

    #[test]
    fn leaves_and_digests_never_change() {
        let ring = Ring::new(1_024);
        let leaves: Vec<u8> = (0..4).map(|n| Leaf::of(ring, &key(n)).0).collect();
        assert_eq!((leaves, digest(&key(1), &set(1, Some("v")))), (vec![28, 1, 41, 48], 0xe179_4bd4_2517_d191));
    }

    #[test]
    fn a_set_of_leaves_holds_what_was_put_in() {
        let some: LeafSet = [3, 40, 63].map(Leaf).into_iter().collect();
        assert_eq!(some.iter().map(|leaf| leaf.0).collect::<Vec<_>>(), [3, 40, 63]);
        assert!(!some.contains(Leaf(4)) && LeafSet::ALL.iter().count() == LEAVES && LeafSet::default().is_empty());
    }
}
