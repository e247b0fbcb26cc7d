//! How peers answered, as one shard saw it: whom to ask first, and whom not to wait for.
//!
//! Latency and failure are kept apart: what failed is never taken for fast (fault 7 of the seed systems: a dead node
//! became the preferred reader).

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::SILENT_FOR;
use super::types::{Instant, NodeId};

/// Share of a new measurement in the average: one eighth.
const WEIGHT: u64 = 8;

/// What one shard knows of its peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: BTreeMap<NodeId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    /// Microseconds from a read's question to its answer, averaged; none was answered yet at 0.
    latency: u64,
    /// The connection was lost, and none was made since.
    unlinked: bool,
    /// It let a question wait: others are asked first until then.
    silent_until: Instant,
}

impl Peers {
    /// It answered; a read's answer says how long that took.
    pub(super) fn on_answer(&mut self, node: NodeId, took: Option<Duration>) {
        let peer = self.known.entry(node).or_default();
        peer.silent_until = Instant::default();
        peer.unlinked = false;
        if let Some(took) = took {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
            peer.latency = match peer.latency {
                0 => micros,
                before => before - before / WEIGHT + micros / WEIGHT,
            };
        }
    }

    /// It lets a question wait.
    pub(super) fn on_silence(&mut self, node: NodeId, now: Instant) {
        self.known.entry(node).or_default().silent_until = now + SILENT_FOR;
    }

    /// There is no connection to it.
    pub(super) fn on_lost(&mut self, node: NodeId) {
        self.known.entry(node).or_default().unlinked = true;
    }

    /// There is one again.
    pub(super) fn on_linked(&mut self, node: NodeId) {
        let peer = self.known.entry(node).or_default();
        peer.unlinked = false;
        peer.silent_until = Instant::default();
    }

    /// Whether there is a connection to it, as far as is known.
    pub(super) fn is_linked(&self, node: NodeId) -> bool {
        self.known.get(&node).is_none_or(|peer| !peer.unlinked)
    }

    /// Its place among those that may be asked: lower is better. Whoever never answered a read is tried early.
    pub(super) fn rank(&self, node: NodeId, now: Instant) -> (bool, u64) {
        self.known.get(&node).map_or((false, 0), |peer| (now < peer.silent_until, peer.latency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    #[test]
    fn fault_07_a_node_that_fails_is_never_the_preferred_reader() {
        let mut peers = Peers::default();
        peers.on_answer(A, Some(Duration::from_micros(900)));
        peers.on_answer(B, Some(Duration::from_micros(100)));
        assert!(peers.rank(B, Instant(0)) < peers.rank(A, Instant(0)));

        for _ in 0..100 {
            peers.on_silence(B, Instant(0));
        }
        assert!(peers.rank(A, Instant(1)) < peers.rank(B, Instant(1)));
        assert_eq!(peers.rank(B, Instant(1)).1, 100, "its failures were not taken for latencies");

        peers.on_answer(B, None);
        assert!(peers.rank(B, Instant(1)) < peers.rank(A, Instant(1)), "it answers again");
    }

    #[test]
    fn a_lost_connection_counts_until_there_is_another() {
        let mut peers = Peers::default();
        assert!(peers.is_linked(A));
        peers.on_lost(A);
        assert!(!peers.is_linked(A) && peers.is_linked(B));
        peers.on_linked(A);
        assert!(peers.is_linked(A));
    }
}
