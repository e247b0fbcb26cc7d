//! DOES. One pinned glommio executor a core, its store thread, and what leads to them.
//!
//! The core decides nothing: [`protocol`](crate::protocol) does, and [`core`] carries its effects out. A shard owns its
//! state; between cores there are messages, and no lock is taken on a request's path.

pub mod clock;
pub mod entropy;
pub mod memory;
pub mod probe;
pub mod mail;
pub mod slots;
pub mod heartbeat;
pub mod holdings;
pub mod metrics;
pub mod shard_metrics;
pub mod signal;
pub mod poller;
pub mod stream;
pub mod wanting;
pub mod connection;
pub mod link;
pub mod links;
pub mod gather;
pub mod pages;
pub mod pending;
pub mod core;
pub mod room;
pub mod connections;
pub mod priority;
pub mod storekeeper;
pub mod reclaim;
pub mod executor;
pub mod door;
pub mod start;
pub mod opening;
pub mod launch;
pub mod node;
pub mod snapshots;
pub mod trees;
#[cfg(test)]
mod samples;
