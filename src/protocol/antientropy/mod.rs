//! Whether two copies of a range of keys hold the same, said in a few bytes.

mod forest;
mod tree;

pub use forest::{
    BRANCHES, Forest, LEAVES, Leaf as PartitionLeaf, LeafSet, PartitionTree, Shift, Sum, digest, digest_of_roots,
    is_buried,
};
pub use tree::{Digest, LEAVES_MAX, Leaf, Range, RangeError, Tree};
