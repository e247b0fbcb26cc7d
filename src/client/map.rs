//! Who owns what, as the nodes told the client last.

use core::net::SocketAddr;

use super::links::Target;
use crate::protocol::message::{RingMap, RingNode};
use crate::protocol::ring::{LayoutStamp, Ring};
use crate::protocol::types::{Key, NodeId};

/// A ring, its nodes and owners.
#[derive(Debug)]
pub(super) struct Map {
    stamp: LayoutStamp,
    ring: Ring,
    copies: usize,
    nodes: Vec<RingNode>,
    owners: Vec<u16>,
}

impl Map {
    /// What `told` says, with the owners of `before` where it leaves them out. `None` when those are of another layout.
    pub(super) fn of(told: RingMap, before: Option<&Map>) -> Option<Map> {
        let known = || before.filter(|before| before.stamp == told.stamp).map(|before| before.owners.clone());
        let owners = told.owners.or_else(known)?;
        let mut nodes = told.nodes;
        // A node that hears of most others nothing is more likely to be cut off itself.
        if 2 * nodes.iter().filter(|node| node.is_up).count() <= nodes.len() {
            nodes.iter_mut().for_each(|node| node.is_up = true);
        }
        let ring = Ring::new(told.partitions);
        Some(Map { stamp: told.stamp, ring, copies: told.copies.into(), nodes, owners })
    }

    pub(super) fn stamp(&self) -> LayoutStamp {
        self.stamp
    }

    /// Where the owners of a key serve it, the one that usually coordinates first.
    pub(super) fn owners(&self, key: &Key) -> impl Iterator<Item = Target> {
        let partition = self.ring.partition(key);
        let first = usize::from(partition.0) * self.copies;
        self.owners[first..first + self.copies].iter().map(move |row| {
            let node = &self.nodes[usize::from(*row)];
            Target { node: node.node, core: node.cores.of(partition) }
        })
    }

    /// Whether the layout has a node.
    pub(super) fn is_there(&self, node: NodeId) -> bool {
        self.node(node).is_some()
    }

    /// Whether a node is there and was not found to be down.
    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.node(node).is_some_and(|node| node.is_up)
    }

    /// Where a node says that it listens.
    pub(super) fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.node(node).map(|node| node.address)
    }

    /// Where all nodes listen, those that are up first.
    pub(super) fn addresses(&self) -> Vec<String> {
        let is = |is_up| self.nodes.iter().filter(move |node| node.is_up == is_up);
        let nodes = is(true).chain(is(false)).filter(|node| !is_nowhere(node.address));
        nodes.map(|node| node.address.to_string()).collect()
    }

    fn node(&self, node: NodeId) -> Option<&RingNode> {
        self.nodes.iter().find(|known| known.node == node)
    }
}

/// Whether an address says nothing to somebody elsewhere.
pub(super) fn is_nowhere(address: SocketAddr) -> bool {
    address.port() == 0 || address.ip().is_unspecified()
}
