//! The main stories of a cluster.

mod repairs;
mod shards;
mod stories;
mod changes;
mod tombstones;
mod trees;
