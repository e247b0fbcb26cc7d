//! REHEARSES. Whole clusters of protocol cores in one thread, on virtual time.
//!
//! A [`World`] is one queue of events: messages on their way, disks that sync, clocks that tick. Nothing in it reads a
//! clock or draws a number but from its seed, so a seed repeats exactly. [`story`] tells worlds as text.

mod known;
mod world;
pub mod story;
#[cfg(test)]
mod tests;

pub use world::{Cluster, World};
