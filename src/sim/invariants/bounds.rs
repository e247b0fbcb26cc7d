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

/// What a core may have under way for each client, key and partition: asks of a few nodes, a change of each key, its
/// load; and the bytes of a write that waits.
const UNDER_WAY_EACH: usize = 64;
const WRITE_BYTES: usize = 4 * 1_024;

/// What memory may hold beyond its bounds: what was admitted before they were reached, and what comes from peers.
const SLACK: u64 = 256 * 1_024;

/// See the module.
pub(super) struct Bounds {
    store: StoreSizes,
    under_way_max: usize,
    /// Calls that ended for their clients before they were answered: a node may be busy with them still.
    left: Vec<(At, Request)>,
}

impl Bounds {
    pub(super) fn new(shape: &Shape) -> Bounds {
        let keys = usize::try_from(shape.keys).expect("a few keys");
        let each = shape.clients + keys + usize::from(shape.partitions);
        let under_way_max = UNDER_WAY_EACH * each + WRITE_BYTES * shape.clients;
        Bounds { store: shape.store, under_way_max, left: Vec::new() }
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
            Seen::Asks { node, ask: Ask::Forward(request) } => self.handed_on(truth, *node, request),
            Seen::Heard { call, outcome: None } => {
                self.left.push((call.node, call.request.clone()));
                Ok(())
            }
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

    /// Only a node that a client has asked hands a request on.
    fn handed_on(&self, truth: &Truth, node: At, request: &Request) -> Verdict {
        let open = truth.calls.values().map(|call| (call.node, &call.request));
        let left = self.left.iter().map(|(node, request)| (*node, request));
        if open.chain(left).any(|(at, other)| at == node && is_same(request, other)) {
            return Ok(());
        }
        let key = request.key().expect("clients here ask for one key");
        about(key, format!("n{node} hands on what no client has asked it for"))
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

/// Whether one is the other, as it is handed on: with a name and other terms.
fn is_same(one: &Request, other: &Request) -> bool {
    match (one, other) {
        (Request::Get(one), Request::Get(other)) => one.key == other.key,
        (Request::Put(one), Request::Put(other)) => one.key == other.key && one.value == other.value,
        (Request::Delete(one), Request::Delete(other)) => one.key == other.key,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, put};
    use super::*;
    use crate::protocol::message::Causality;
    use crate::sim::world::Caller;

    #[test]
    fn only_who_was_asked_by_a_client_hands_on() {
        let mut made = MadeUp::new(2);
        let mut bounds = Bounds::new(&made.shape);
        let call = made.call(put("a", Causality::Blind, None));
        made.truth.calls.insert(Caller { client: 0, number: 1 }, call.clone());
        let asks = |made: &MadeUp, bounds: &Bounds, node, value| {
            bounds.handed_on(&made.truth, node, &put(value, Causality::Blind, None)).is_ok()
        };
        assert!(asks(&made, &bounds, 0, "a"));
        assert!(!asks(&made, &bounds, 1, "a") && !asks(&made, &bounds, 0, "b"));
        made.truth.calls.clear();
        assert!(!asks(&made, &bounds, 0, "a"), "it has been answered");
        bounds.see(&made.truth, Instant(1), &Seen::Heard { call: &call, outcome: None }).unwrap();
        assert!(asks(&made, &bounds, 0, "a"), "its client has gone, and it does not know");
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
