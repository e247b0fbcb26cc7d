//! sloop: a Dynamo-style, always-writable key-value store in one binary.
//!
//! The folders are verbs, in the order of the road of a request:
//!
//! 1. A client's bytes reach a core (`runtime`), are read as a message ([`wire`]) and become a
//!    [`protocol::io::Input`].
//! 2. The core's [`protocol::shard::Shard`] decides: it hands on what its node does not own, asks for the key's state,
//!    mints a version upon it, and says in effects what to append here and what to ask the other owners.
//! 3. `store` keeps: the effect's record is group-committed to the write-ahead log, and what is durable is served
//!    from memory until it is ingested into the LSM tree. `runtime` brings the questions to the other nodes, whose
//!    shards do likewise.
//! 4. The durable append and what the others told come back as inputs; once W copies are durable the shard answers, and
//!    `runtime` sends the reply's bytes.
//!
//! `control` keeps the node in its cluster and shows it to people and machines over HTTP, `client` asks it, `lab` puts
//! it under load, `sim` rehearses whole clusters on virtual time, `verify` judges what clients were told, `cli` speaks
//! to people.
//! `docs/ARCHITECTURE.md` is the map.

pub mod protocol;
pub mod wire;
#[cfg(any(feature = "sim", feature = "lab"))]
pub mod verify;
pub mod store;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "daemon")]
pub mod runtime;
#[cfg(feature = "daemon")]
pub mod control;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "lab")]
pub mod lab;
#[cfg(feature = "daemon")]
pub mod cli;
