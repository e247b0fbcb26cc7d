//! What a replica does with a key's set, and what it keeps beside the sets: the memory of operations.

mod operations;
mod serve;
mod state;

pub use operations::{Lookup, Operations, Remembered};
pub(super) use serve::Serving;
pub(super) use state::{Busy, State, Task};
