//! What a replica keeps beside the sets: the memory of operations.

mod operations;

pub use operations::{Lookup, Operations, Remembered};
