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
    /// It was silent for too long, has left, or was removed.
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

    /// Whether reads go by the newest layout already.
    pub fn reads_newest(&self) -> bool {
        self.layout.stamp() == self.stamp()
    }

    /// Whether whoever goes by this layout is behind: it has a lower number, or is the rival of one that wins. Once
    /// reads go by a layout, no other one of its number can win any more, whatever its hash.
    pub fn is_past(&self, stamp: LayoutStamp) -> bool {
        let mine = self.stamp();
        mine.is_newer_than(stamp) || (self.reads_newest() && mine.number == stamp.number && mine != stamp)
    }

    /// Whether peers may read this node's copies of a partition. The first layout in which it owns it decides: it has
    /// what it held for that one. Whoever reads may be a step ahead.
    pub fn is_read_from(&self, partition: Partition) -> bool {
        let mut owning = self.written().filter(|layout| layout.is_owner(self.me, partition));
        owning.next().is_some_and(|layout| self.is_whole(layout, self.me))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ring::Step;

    const ME: NodeId = NodeId(1);

    /// A layout of this node, with this data directory, and another one; the first is the only owner.
    fn layout(number: u64, mine: u128, is_mine: bool) -> Arc<Layout> {
        let row = |node, incarnation| LayoutRow { node: NodeId(node), incarnation, zone: "".into(), weight: 1 };
        let wanted = Wanted { n: 1, r: 1, w: 1 };
        Arc::new(Layout::of(number, wanted, vec![row(1, mine), row(2, 1)], vec![u16::from(!is_mine)]))
    }

    fn is_read_from(stored: (u128, bool), pending: (u128, bool), step: Step, mine: u128) -> bool {
        let (stored, pending) = (layout(1, stored.0, stored.1), layout(2, pending.0, pending.1));
        let reads = Arc::clone(if step == Step::Read { &pending } else { &stored });
        let View { members, .. } = View::alone("", Cores { count: 1, salt: 0 }, 1);
        let members = vec![Member { node: ME, incarnation: mine, ..members[0].clone() }];
        let change = Some(Arc::new(Change { stored, pending, step }));
        View { me: ME, epoch: 1, layout: reads, change, members }.is_read_from(Partition(0))
    }

    #[test]
    fn no_rival_of_a_layout_that_reads_go_by_is_waited_for() {
        let [stored, pending] = [layout(1, 1, true), layout(2, 1, true)];
        let LayoutStamp { number, hash } = pending.stamp();
        let [lower, higher] = [hash - 1, hash + 1].map(|hash| LayoutStamp { number, hash });
        let past = |change: Option<Step>| {
            let reads = Arc::clone(if change.is_none_or(|step| step == Step::Read) { &pending } else { &stored });
            let both = (Arc::clone(&stored), Arc::clone(&pending));
            let change = change.map(|step| Arc::new(Change { stored: both.0, pending: both.1, step }));
            let View { members, .. } = View::alone("", Cores { count: 1, salt: 0 }, 1);
            let view = View { me: ME, epoch: 1, layout: reads, change, members };
            [stored.stamp(), lower, pending.stamp(), higher].map(|stamp| view.is_past(stamp))
        };
        assert_eq!(past(Some(Step::Write)), [true, false, false, true], "the lower hash may win yet");
        assert_eq!(past(Some(Step::Hold)), [true, false, false, true]);
        assert_eq!(past(Some(Step::Read)), [true, true, false, true]);
        assert_eq!(past(None), [true, true, false, true]);
    }

    #[test]
    fn who_has_lost_what_it_had_fetched_is_not_read_from_whatever_its_step() {
        for step in [Step::Write, Step::Hold, Step::Read] {
            let (gained, kept, given) = ((1, false), (1, true), (1, true));
            assert!(is_read_from(gained, (1, true), step, 1) && !is_read_from(gained, (1, true), step, 2));
            assert!(is_read_from(kept, (1, true), step, 1) && !is_read_from(kept, (1, true), step, 2));
            assert!(is_read_from(given, (1, false), step, 1) && !is_read_from(given, (1, false), step, 2));
            assert!(!is_read_from((1, false), (1, false), step, 1), "it owns nothing");
        }
    }

    #[test]
    fn who_has_lost_its_disk_is_read_from_once_reads_go_by_the_layout_that_makes_it_whole() {
        let made_whole = |step| is_read_from((1, true), (2, true), step, 2);
        assert_eq!([Step::Write, Step::Hold, Step::Read].map(made_whole), [false, false, true]);
    }
}
