//! Tables and queues stay within their bounds, and a request makes one hop at most.

use super::Invariant;
use crate::protocol::message::Request;
use crate::protocol::peer::Ask;
use crate::protocol::shard::Shard;
use crate::protocol::types::Instant;
use crate::sim::shape::{Shape, StoreSizes};
use crate::sim::truth::Truth;
use crate::sim::watch::{Seen, Verdict, about, complain};
use crate::sim::world::At;
use crate::store::{Engine, EngineStats};

/// What a core may have under way for each client and each key: asks of a few nodes, a change of each key, its load.
const UNDER_WAY_EACH: usize = 64;

/// What memory may hold beyond its bounds: what was admitted before they were reached, and what comes from peers.
const SLACK: u64 = 256 * 1_024;

/// See the module.
pub(super) struct Bounds {
    store: StoreSizes,
    under_way_max: usize,
}

impl Bounds {
    pub(super) fn new(shape: &Shape) -> Bounds {
        let keys = usize::try_from(shape.keys).unwrap_or(usize::MAX);
        let each = shape.clients + keys + usize::from(shape.partitions);
        Bounds { store: shape.store, under_way_max: each.saturating_mul(UNDER_WAY_EACH) }
    }
}

impl Invariant for Bounds {
    fn name(&self) -> &'static str {
        "bounds"
    }

    fn source(&self) -> &'static str {
        "DESIGN 4, 6: no queue or table is without a bound; a request is handed on once"
    }

    fn see(&mut self, truth: &Truth, _now: Instant, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Core { node, shard, engine, .. } => self.look(*node, shard, engine),
            Seen::Asks { node, ask: Ask::Forward(request) } => handed_on(truth, *node, request),
            _ => Ok(()),
        }
    }
}

impl Bounds {
    fn look(&self, node: At, shard: &Shard, engine: &Engine) -> Verdict {
        let under_way = shard.under_way();
        if self.under_way_max < under_way {
            return complain(format!("n{node} has {under_way} under way"));
        }
        self.within(node, engine.stats())
    }

    fn within(&self, node: At, stats: EngineStats) -> Verdict {
        let EngineStats { queue_bytes, overlay_bytes, frozen_bytes, .. } = stats;
        let held = queue_bytes + overlay_bytes + frozen_bytes;
        if self.store.queue_bytes_max + SLACK < queue_bytes || self.store.overlay_bytes_max + SLACK < held {
            return complain(format!(
                "n{node} holds {queue_bytes}, {overlay_bytes} and {frozen_bytes} bytes in memory"
            ));
        }
        Ok(())
    }
}

/// Only a node that a client has asked hands a request on.
fn handed_on(truth: &Truth, node: At, request: &Request) -> Verdict {
    let is_it = |other: &Request| match (request, other) {
        (Request::Get(one), Request::Get(other)) => one.key == other.key,
        (Request::Put(one), Request::Put(other)) => one.key == other.key && one.value == other.value,
        (Request::Delete(one), Request::Delete(other)) => one.key == other.key,
        _ => false,
    };
    if truth.calls.values().any(|call| call.node == node && is_it(&call.request)) {
        return Ok(());
    }
    let key = request.key().expect("clients here ask for one key");
    about(key, format!("n{node} hands on what no client has asked it for"))
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, get, put};
    use super::*;
    use crate::protocol::message::Causality;

    #[test]
    fn only_who_was_asked_by_a_client_hands_on() {
        let mut made = MadeUp::new(2);
        let call = made.call(put("a", Causality::Blind, None));
        made.truth.calls.insert(call.caller, call);
        let asks = |node, request| handed_on(&made.truth, node, &request).is_ok();
        assert!(asks(0, put("a", Causality::Blind, None)));
        assert!(!asks(1, put("a", Causality::Blind, None)) && !asks(0, put("b", Causality::Blind, None)));
        assert!(!asks(0, get()));
    }

    #[test]
    fn what_a_store_holds_in_memory_is_bounded() {
        let made = MadeUp::new(1);
        let bounds = Bounds::new(&made.shape);
        let most = made.shape.store.queue_bytes_max + SLACK;
        let holds = |queue_bytes| bounds.within(0, EngineStats { queue_bytes, ..EngineStats::default() }).is_ok();
        assert!(holds(most.min(made.shape.store.overlay_bytes_max)) && !holds(most + 1));
    }
}
