//! DECIDES. The protocol core: `handle(now, input) -> effects`.
//!
//! Nothing in here can touch the world: no clock, no socket, no disk, no thread, no chance. What comes in is an
//! [`io::Input`], what goes out is an [`io::Effect`]; the same inputs give the same effects, on every machine.
//! `runtime` carries the effects out and hands their ends back as inputs; so does `sim`, on virtual time.
//! What one core decides is [`shard`], what a node decides about its cluster is [`membership`].

pub mod types;
pub mod config;
pub mod planted;
mod table;
mod asks;
mod peers;
mod stats;
mod hints;
mod marking;
pub mod causality;
pub mod ring;
pub mod message;
pub mod peer;
pub mod io;
pub mod shard;
pub mod coordinator;
pub mod replica;
pub mod antientropy;
mod tombstones;
pub mod membership;

pub use stats::Stats;
