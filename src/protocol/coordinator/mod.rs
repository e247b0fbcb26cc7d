//! Put, get and delete as their coordinator sees them (Dynamo 4.5; DESIGN "Put and get").
//!
//! A request waits in the shard's table until it is answered, exactly once: by what it asked for, or by its deadline.

pub mod quorum;
mod get;
mod put;

pub(in crate::protocol) use get::Reading;
pub(in crate::protocol) use put::{Busy, Minting, Writing};
