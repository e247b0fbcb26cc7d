//! KEEPS. What was acknowledged, through every crash (docs/STORAGE.md).
//!
//! A write goes first to its core's log ([`wal`]), and is durable when that write ends. From then on it is served from
//! memory, until a sorted [`chunk`] of such writes has been ingested into the LSM tree (`lsm`). The [`engine`] decides
//! all of this for one core, and [`recovery`] puts it together again after a crash. They are pure state machines: the
//! runtime drives them with real files, and the tests drive them with the faulty disk of [`memory`].

#[cfg(feature = "daemon")]
pub mod home;
#[cfg(feature = "daemon")]
pub mod cluster;
pub mod layout;
pub mod wal;
pub mod chunk;
pub mod resident;
pub mod engine;
pub mod recovery;
pub mod scan;
#[cfg(feature = "daemon")]
pub mod lsm;
pub mod snapshot;
#[cfg(feature = "sim")]
pub mod memory;
#[cfg(test)]
mod samples;

pub use chunk::{Chunk, KeySet};
pub use engine::{Engine, EngineConfig, EngineStats, Lookup, Refusal};
pub use layout::{Known, Place};
pub use resident::FORESEEN_MAX;
