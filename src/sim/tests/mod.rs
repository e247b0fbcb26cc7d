//! The main stories of a cluster, and random ones.

mod storms;
mod stories;
mod tombstones;
mod changes;
