//! SPELLS. Messages to bytes and back; pure, shared by daemon, client, store and simulator.
//!
//! All integers are little-endian and of fixed width, so that a client can be written in any language from
//! `docs/PROTOCOL.md` alone. Every length is checked against its bound, and against what is there, before anything is
//! allocated for it.

pub mod reader;
pub mod sets;
pub mod layout;
pub mod frame;
pub mod hello;
pub mod proof;
pub mod greet;
pub mod gossip;
pub mod members;
pub mod call;
pub mod answer;
pub mod peer;
mod trees;
pub mod ring;
pub mod glance;
pub mod failure;
#[cfg(test)]
mod tests;

pub use answer::{decode_answer, encode_answer};
pub use call::{decode_call, encode_call};
pub use frame::{CallId, Frame, frame_bytes, next_frame, reserve_rest};
pub use glance::{Glance, glance};
pub use hello::{Greeting, Hello, Welcome};
pub use reader::{Reader, WireError};
