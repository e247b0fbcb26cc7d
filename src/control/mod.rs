//! SHOWS. The node to people and machines, on one thread of its own.

pub mod metrics;
