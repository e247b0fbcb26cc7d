//! The main stories of a cluster, and random ones.

mod repairs;
mod shards;
mod storms;
mod stories;
mod changes;
mod tombstones;
mod trees;
