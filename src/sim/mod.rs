//! REHEARSES. Whole clusters in one thread, on virtual time, with every fault that a seed will have
//! (docs/SIMULATION.md).
//!
//! ```text
//!   chance ─▶ shape        what a run is like: sizes, times, rates
//!               │
//!   run ─▶ world           nodes, disks, network, as one queue of events
//!               ├ clients    whoever asks
//!               ├ operator   whoever changes who belongs to the cluster
//!               └ mischief   whatever goes wrong
//!               │
//!             watch ─▶ truth        what is true, as only somebody knows who sees all nodes at once
//!               └────▶ invariants   the promises, a file each
//! ```
//! The protocol, the wire format, the log, its replay, overlay and chunks are the daemon's own code; the tree of tables
//! is a model in which after a crash each chunk is whole or absent. Nothing reads a clock or draws a number but from
//! the seed, so a seed repeats exactly.

pub mod chance;
pub mod shape;
pub mod run;
mod world;
mod clients;
mod operator;
mod mischief;
mod watch;
mod truth;
mod invariants;
pub mod coverage;
pub mod trace;
pub mod sweep;
mod story;
#[cfg(test)]
mod scenes;
#[cfg(test)]
mod shards;
#[cfg(test)]
mod tests;

pub use chance::Chance;
pub use coverage::Coverage;
pub use run::{Options, Report, run};
pub use shape::{Scenario, Shape};
pub use sweep::{Sums, Sweep};
pub use watch::Broken;
