//! What a core knows of its cluster: who owns what, and who answers. Liveness routes; it never moves data.

use core::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Change, Cores, Layout, LayoutRow, LayoutStamp, Partition, Wanted};
use crate::protocol::message::{RingMap, RingNode};
use crate::protocol::types::NodeId;

/// Whether a member answers, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// It answers.
    Up,
    /// It did not answer, and has not said yet that it does.
    Suspect,
    /// It was silent for too long, or has left.
    Down,
}

/// One member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: Arc<str>,
    /// Its data directory. An owner whose row in a layout names another one has lost what it held for that layout.
    pub incarnation: u128,
    /// Whether the cluster has removed it, or is about to: nothing is fetched from it, and nobody waits for it.
    pub is_removed: bool,
    /// Where clients, peers and gossip reach it.
    pub address: SocketAddr,
    /// Where HTTP does.
    pub http: SocketAddr,
    /// How it spreads partitions over its cores.
    pub cores: Cores,
    /// Whether it answers.
    pub liveness: Liveness,
}

/// The cluster as one node sees it at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// This node.
    pub me: NodeId,
    /// Counts the views of this node, from 1. At 0 nothing is known of the cluster yet.
    pub epoch: u64,
    /// The layout that reads go by, and whose owners coordinate.
    pub layout: Arc<Layout>,
    /// The change under way.
    pub change: Option<Arc<Change>>,
    /// All members, this node among them, by id; also those that the layout does not have yet.
    pub members: Vec<Member>,
}

impl View {
    /// A node by itself, which owns everything, and which nobody else reaches: what a node goes by until it has seen
    /// its cluster.
    pub fn alone(name: &str, cores: Cores, partitions: u16) -> View {
        let node = NodeId::of(name);
        let row = LayoutRow { node, incarnation: 0, zone: "".into(), weight: 1 };
        let layout = Arc::new(Layout::founding(partitions, Wanted::default(), row));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let me = Member {
            node,
            name: name.into(),
            incarnation: 0,
            is_removed: false,
            address: nowhere,
            http: nowhere,
            cores,
            liveness: Liveness::Up,
        };
        View { me: node, epoch: 0, layout, change: None, members: vec![me] }
    }

    /// The newest layout that this node goes by, which its messages to peers name.
    pub fn stamp(&self) -> LayoutStamp {
        self.change.as_ref().map_or(self.layout.stamp(), |change| change.pending.stamp())
    }

    /// The layouts in whose owners a write needs its W: that of the reads first, and the other one while there is a
    /// change.
    pub fn written(&self) -> impl Iterator<Item = &Arc<Layout>> {
        let both = self.change.iter().flat_map(|change| [&change.stored, &change.pending]);
        let reads = self.layout.stamp();
        std::iter::once(&self.layout).chain(both.filter(move |layout| layout.stamp() != reads))
    }

    /// Whether the node owns the partition in a layout that writes go by.
    pub fn is_written(&self, node: NodeId, partition: Partition) -> bool {
        self.written().any(|layout| layout.is_owner(node, partition))
    }

    /// Whether an owner in a layout still has what it held for it: its data directory is the one that the layout names.
    pub fn is_whole(&self, layout: &Layout, node: NodeId) -> bool {
        let Ok(at) = layout.rows().binary_search_by_key(&node, |row| row.node) else {
            return false;
        };
        // What a founding node goes by until it has seen its cluster names no directory.
        let named = layout.rows()[at].incarnation;
        self.epoch == 0 || self.member(node).is_some_and(|member| member.incarnation == named)
    }

    /// A member by its id.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        let at = self.members.binary_search_by_key(&node, |member| member.node).ok()?;
        Some(&self.members[at])
    }

    /// What a client is told that knows this layout or another one.
    pub fn map(&self, known: LayoutStamp) -> RingMap {
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let told = |row: &LayoutRow| {
            let member = self.member(row.node);
            RingNode {
                node: row.node,
                name: member.map_or_else(String::new, |member| member.name.to_string()),
                address: member.map_or(nowhere, |member| member.address),
                cores: member.map_or(Cores { count: 1, salt: 0 }, |member| member.cores),
                is_up: self.is_up(row.node) && member.is_some(),
            }
        };
        let stamp = self.layout.stamp();
        RingMap {
            stamp,
            partitions: self.layout.partitions(),
            copies: u8::try_from(self.layout.copies()).expect("no more than N"),
            nodes: self.layout.rows().iter().map(told).collect(),
            owners: (known != stamp).then(|| self.layout.all_owners().to_vec()),
        }
    }

    /// Whether a node is worth asking: it is this one, or was not found to be down.
    pub fn is_up(&self, node: NodeId) -> bool {
        node == self.me || self.member(node).is_some_and(|member| member.liveness != Liveness::Down)
    }

    /// The nodes that stand in for owners of a partition, best first: all that own it in no layout, in an order that
    /// differs from partition to partition and is the same on every node.
    pub fn fallbacks(&self, partition: Partition) -> Vec<NodeId> {
        let rows = self.written().flat_map(|layout| layout.rows()).map(|row| row.node);
        let is_removed = |node| self.member(node).is_some_and(|member| member.is_removed);
        let is_fallback = |node: &NodeId| !self.is_written(*node, partition) && !is_removed(*node);
        let mut others: Vec<NodeId> = rows.filter(is_fallback).collect();
        others.sort_unstable_by_key(|node| {
            let mut bytes = [0; 10];
            bytes[..8].copy_from_slice(&node.0.to_le_bytes());
            bytes[8..].copy_from_slice(&partition.0.to_le_bytes());
            (seahash::hash(&bytes), *node)
        });
        others.dedup();
        others
    }
}
