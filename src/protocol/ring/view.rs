//! What a core knows of its cluster: who owns what, and who answers. Liveness routes; it never moves data.

use core::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Cores, Layout, LayoutRow, LayoutStamp, Partition, Wanted};
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
    /// The stored layout.
    pub layout: Arc<Layout>,
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
        let me = Member { node, name: name.into(), address: nowhere, http: nowhere, cores, liveness: Liveness::Up };
        View { me: node, epoch: 0, layout, members: vec![me] }
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

    /// The nodes of the layout that stand in for owners of a partition, best first: all that do not own it, in an order
    /// that differs from partition to partition and is the same on every node.
    pub fn fallbacks(&self, partition: Partition) -> Vec<NodeId> {
        let rows = self.layout.rows().iter().map(|row| row.node);
        let mut others: Vec<NodeId> = rows.filter(|node| !self.layout.is_owner(*node, partition)).collect();
        others.sort_unstable_by_key(|node| {
            let mut bytes = [0; 10];
            bytes[..8].copy_from_slice(&node.0.to_le_bytes());
            bytes[8..].copy_from_slice(&partition.0.to_le_bytes());
            (seahash::hash(&bytes), *node)
        });
        others
    }
}
