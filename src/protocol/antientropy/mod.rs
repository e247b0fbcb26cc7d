//! Whether two copies of a range of keys hold the same, said in a few bytes, and what is done where they do not.
//!
//! ```text
//!   compare.rs    every few seconds: one digest of all partitions shared ──▶ those that differ, twice ──┐
//!   handoff.rs    a change of owners: every partition gained, from every old owner ─────────────────────┤
//!   leftovers.rs  keys of partitions that others own ───────────────────────────────────────────────────┤
//!   schedule.rs   what of it is done next ◀─────────────────────────────────────────────────────────────┘
//!        │
//!        ▼
//!   sync.rs       branches ─▶ leaves that differ ─▶ names, some thousand at a time ─▶ pages ─▶ durable, done
//!   exchange.rs                      what each lacks of them: sets that come, sets that go
//! ```
//! Whatever breaks off begins anew: what has come by then is named by 8 bytes, and is not sent again.

mod forest;
mod tree;
mod work;
mod serve;
mod schedule;
mod sync;
mod exchange;
mod compare;
mod handoff;
mod leftovers;

pub use forest::{
    BRANCHES, Forest, LEAVES, Leaf as PartitionLeaf, LeafSet, PartitionTree, Shift, Sum, digest, digest_of_roots,
    is_buried,
};
pub(in crate::protocol) use handoff::Gains;
pub use tree::{Digest, LEAVES_MAX, Leaf, Range, RangeError, Tree};
pub(super) use work::{AntiEntropy, JobId, LookId};
pub(in crate::protocol) use work::{Scanning, Surveying, Tuning};
