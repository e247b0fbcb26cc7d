//! SPELLS. Messages to bytes and back; pure, shared by daemon, client, store and simulator.
//!
//! All integers are little-endian and of fixed width, so that a client can be written in any language from
//! `docs/PROTOCOL.md` alone. Every length is checked against its bound, and against what is there, before anything is
//! allocated for it.

pub mod reader;
pub mod sets;

pub use reader::{Reader, WireError};
