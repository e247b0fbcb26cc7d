//! Put, get and delete as their coordinator sees them (Dynamo 4.5; DESIGN "Put and get").
//!
//! Any node takes any request; one that owns the key coordinates it, another hands it on, at most one hop. Where no
//! owner is in reach, the first fallback coordinates a write over what it holds, and every copy is a hint that counts.

pub mod quorum;
mod forward;
mod get;
mod put;
mod read_repair;
mod legs;
mod spread;

pub(in crate::protocol) use forward::Forwarding;
pub(in crate::protocol) use get::Reading;
pub(in crate::protocol) use put::Minting;
pub(in crate::protocol) use spread::Writing;

use super::io::{Effects, Held};
use super::message::Request;
use super::shard::{Asker, Shard};
use super::types::Now;

impl Shard {
    /// Coordinates a request for one key here.
    pub(in crate::protocol) fn coordinate(
        &mut self,
        now: Now,
        asker: Asker,
        request: Request,
        held: Held,
        effects: &mut Effects,
    ) {
        match request {
            Request::Get(get) => self.on_get(now, asker, get, held, effects),
            Request::Put(put) => self.on_put(now, asker, put, held, effects),
            Request::Delete(delete) => self.on_delete(now, asker, delete, held, effects),
            Request::Siblings(_) | Request::Keys(_) => unreachable!("they are about this node's own copy"),
        }
    }
}
