//! The model of what the store stands on, for tests and for the simulator: a [`Disk`] that loses, tears and turns what
//! was not yet durable, and flips bits; and a [`Tree`] that after a crash has each chunk whole or not at all.

mod disk;
mod rng;
mod tree;

#[cfg(test)]
mod tests;

pub use disk::Disk;
pub use rng::Rng;
pub use tree::Tree;
