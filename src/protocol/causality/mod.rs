//! What has seen what: dotted version vectors over sibling sets.
//!
//! A key's state is a [`Siblings`]: the versions that nothing has superseded, each under the [`Dot`](super::types::Dot)
//! it was minted with, and one [`VersionVector`] over every dot that the set has ever seen. A dot below the vector
//! without a version is superseded; a dot above it is unheard of.
//!
//! Sources: Preguiça, Baquero, Almeida, Fonte, Gonçalves, "Dotted Version Vectors" (2012); Almeida, Shoker, Baquero,
//! "Delta State Replicated Data Types" (2018), whose add-wins join this is; the kv679 losses of Riak for what must not
//! happen with actors.

mod version;
mod clock;
mod siblings;
mod update;
mod context;
#[cfg(any(test, feature = "sim"))]
pub mod naive;
#[cfg(test)]
mod tests;

pub use clock::VersionVector;
pub use context::{Context, ContextError};
pub use siblings::{Siblings, Unsound};
pub use update::{Behind, Minted, SetLimit, Supersedes, Update, UpdateRef, Write};
pub use version::{Operation, Version};
