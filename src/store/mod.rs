//! KEEPS. What was acknowledged, through every crash (docs/STORAGE.md).
//!
//! A write goes first to its core's log ([`wal`]), and is durable when that write ends. From then on it is served from
//! memory, until a sorted [`chunk`] of such writes has been ingested into the LSM tree (`lsm`). The [`engine`] decides
//! all of this for one core, and [`recovery`] puts it together again after a crash. They are pure state machines: the
//! runtime drives them with real files, and the tests drive them with the faulty disk of [`memory`].

pub mod cache;
pub mod chunk;
pub mod engine;
#[cfg(feature = "daemon")]
pub mod home;
pub mod layout;
#[cfg(feature = "daemon")]
pub mod lsm;
#[cfg(feature = "sim")]
pub mod memory;

pub mod recovery;
#[cfg(test)]
mod samples;
pub mod snapshot;
pub mod wal;

pub use chunk::Chunk;
pub use engine::{Engine, EngineConfig, EngineStats, Lookup, Refusal};
pub use layout::{Known, Place};
