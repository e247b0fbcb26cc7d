//! Whether two copies of a range of keys hold the same, said in a few bytes.

mod tree;

pub use tree::{Digest, LEAVES_MAX, Leaf, Range, RangeError, Tree};
