//! DOES. One pinned glommio executor a core, its store thread, and what leads to them.
//!
//! The core decides nothing: [`protocol`](crate::protocol) does, and [`core`] carries its effects out. A shard owns its
//! state; between cores there are messages, and no lock is taken on a request's path.

pub mod clock;
pub mod connection;
pub mod core;
pub mod door;
pub mod entropy;
pub mod executor;
pub mod gather;
pub mod heartbeat;
pub mod mail;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod pages;
pub mod probe;
pub mod signal;
pub mod slots;
pub mod snapshots;
pub mod storekeeper;
