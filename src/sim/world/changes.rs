//! How the nodes of a world change the owners of partitions, while they crash, lose their disks and leave.

use std::sync::Arc;
use std::time::Duration;

use super::{Event, HOP, RING, SYNC, World, id};
use crate::protocol::config::ASK_PATIENCE;
use crate::protocol::io::{Input, Standing};
use crate::protocol::peer::{Ask, Merge};
use crate::protocol::ring::{LayoutRow, LayoutStamp, Partition, Step};
use crate::protocol::types::{Key, NodeId, TicketId};
use crate::sim::known::Known;

/// Between two looks at what is still to be fetched.
const FETCH: Duration = Duration::from_millis(20);

impl World {
    /// A change to a layout of these nodes begins at one node, which knows of none that is under way; the others learn
    /// of it. False where it cannot begin there.
    pub fn change(&mut self, told: usize, nodes: &[usize]) -> bool {
        let is_alive = self.is_alive(told);
        let known = &mut self.nodes[told].known;
        if !is_alive || known.pending.is_some() || known.layout.stamp() != self.layout.stamp() {
            return false;
        }
        let row = |node: usize| LayoutRow {
            node: id(node),
            incarnation: known.incarnation(id(node)),
            zone: "".into(),
            weight: 1,
        };
        let rows = nodes.iter().copied().map(row).collect();
        self.layout = Arc::new(self.layout.next(rows, self.layout.wanted()));
        known.pending = Some(Arc::clone(&self.layout));
        self.show_view(told);
        self.gossip(told);
        true
    }

    /// Whether every node that is alive knows the newest layout, and no change is under way on it.
    pub fn is_settled(&self) -> bool {
        let newest = self.layout.stamp();
        let mut alive = self.nodes.iter().filter(|node| node.shard.is_some());
        alive.all(|node| node.known.pending.is_none() && node.known.layout.stamp() == newest)
    }

    /// What a node does about the change that it knows.
    pub fn step_of(&self, node: usize) -> Option<Step> {
        self.nodes[node].known.step()
    }

    /// Whether a node has a row in the newest layout.
    pub fn is_member(&self, node: usize) -> bool {
        self.layout.has(id(node))
    }

    /// A node is dead for good, and another one is told so: nobody waits for it any more.
    pub fn remove(&mut self, node: usize, told: usize) {
        if self.is_alive(node) {
            self.crash(node);
        }
        self.nodes[node].is_gone = true;
        self.nodes[told].known.removed.insert(id(node));
        self.show_view(told);
        self.gossip(told);
    }

    /// Whether a node was removed.
    pub fn is_gone(&self, node: usize) -> bool {
        self.nodes[node].is_gone
    }

    /// A node loses its disk, and starts again on an empty one; what the cluster is it learns from another.
    pub fn wipe(&mut self, node: usize, told: usize) {
        if self.is_alive(node) {
            self.crash(node);
        }
        let mut known = self.nodes[told].known.clone();
        let wiped = &mut self.nodes[node];
        let incarnation = wiped.known.incarnation(id(node)) + 1;
        let lost = std::mem::take(&mut wiped.disk);
        wiped.lost.extend(lost.sets);
        let mut empty = Known::new(id(node), incarnation, Arc::clone(&known.layout));
        known.learn(&empty);
        empty.learn(&known);
        wiped.known = empty;
        self.start(node);
        self.gossip(node);
    }

    /// What a node knows goes to all others, later or sooner.
    pub(super) fn gossip(&mut self, from: usize) {
        (0..self.nodes.len()).for_each(|to| self.gossip_to(from, to));
    }

    pub(super) fn gossip_to(&mut self, from: usize, to: usize) {
        if from == to || self.cut.contains(&(from, to)) || self.draw(1_000) < self.lost {
            return;
        }
        let mut way = self.about(HOP);
        if self.draw(1_000) < 10 * self.late {
            way += Duration::from_millis(self.draw(500));
        }
        let (life, known) = (self.nodes[to].lives, self.nodes[from].known.clone());
        self.schedule(way, Event::Gossip { to, life, known: Box::new(known) });
    }

    /// A peer goes by a newer layout than this node, and is asked for it.
    pub(super) fn compare(&mut self, node: usize, stamp: LayoutStamp) {
        let knows = |other: &usize| {
            let other = &self.nodes[*other];
            other.shard.is_some() && !stamp.is_newer_than(other.known.stamp())
        };
        if let Some(other) = (0..self.nodes.len()).find(knows)
            && stamp.is_newer_than(self.nodes[node].known.stamp())
        {
            let (life, known) = (self.nodes[node].lives, self.nodes[other].known.clone());
            let took = self.about(HOP);
            self.schedule(took, Event::Gossip { to: node, life, known: Box::new(known) });
        }
    }

    pub(super) fn learn(&mut self, node: usize, other: &Known) {
        let known = &mut self.nodes[node].known;
        let before = (known.stamp(), known.step(), known.removed.len());
        known.learn(other);
        if before != (known.stamp(), known.step(), known.removed.len()) {
            self.gossip(node);
        }
        self.show_view(node);
    }

    /// The core of a node has reached a step, which is durable a little later.
    pub(super) fn on_reached(&mut self, node: usize, stamp: LayoutStamp, step: Step) {
        let Known { pending: Some(pending), .. } = &self.nodes[node].known else { return };
        if pending.stamp() != stamp || self.nodes[node].known.step() != Some(step) {
            return;
        }
        let life = self.nodes[node].lives;
        let took = self.about(SYNC);
        self.schedule(took, Event::Mark(node, life, stamp, step));
    }

    pub(super) fn on_mark(&mut self, node: usize, stamp: LayoutStamp, step: Step) {
        let known = &mut self.nodes[node].known;
        if known.pending.as_ref().is_none_or(|pending| pending.stamp() != stamp) {
            return;
        }
        // Stands in for the handoff of the shards.
        if step == Step::Hold && !self.has_fetched_all(node) {
            let life = self.nodes[node].lives;
            return self.schedule(FETCH, Event::Mark(node, life, stamp, step));
        }
        self.nodes[node].known.reach(step);
        self.show_view(node);
        self.gossip(node);
    }

    /// Copies what a node gains from every stored owner, and says whether it has had it all.
    fn has_fetched_all(&mut self, node: usize) -> bool {
        let mut has_all = true;
        for (partition, from) in self.sources(node) {
            let source = &self.nodes[from];
            if source.shard.is_none() || source.paused.is_some() || self.cut.contains(&(from, node)) {
                has_all = false;
                continue;
            }
            let lacking: Vec<Key> =
                source.disk.sets.keys().filter(|key| RING.partition(key) == partition).cloned().collect();
            for key in lacking.into_iter().filter(|key| self.lacks(node, from, key)).collect::<Vec<_>>() {
                has_all = false;
                self.fetch(node, from, key);
            }
        }
        has_all
    }

    fn sources(&self, node: usize) -> Vec<(Partition, usize)> {
        let (me, known) = (id(node), &self.nodes[node].known);
        let (stored, Some(pending)) = (&known.layout, &known.pending) else { return Vec::new() };
        let is_whole = |node: NodeId| {
            stored.rows().iter().any(|row| row.node == node && row.incarnation == known.incarnation(node))
        };
        let gains = |partition: &Partition| {
            pending.is_owner(me, *partition) && !(stored.is_owner(me, *partition) && is_whole(me))
        };
        let is_source = |owner: &NodeId| *owner != me && is_whole(*owner) && !known.removed.contains(owner);
        let from = |partition: Partition| {
            let owners = stored.owners(partition).filter(is_source);
            owners.map(move |owner| (partition, self.index(owner)))
        };
        (0..stored.partitions()).map(Partition).filter(gains).flat_map(from).collect()
    }

    fn lacks(&self, node: usize, from: usize, key: &Key) -> bool {
        let (mine, theirs) = (self.nodes[node].disk.sets.get(key), &self.nodes[from].disk.sets[key]);
        mine.is_none_or(|mine| mine.merge(theirs).digest() != mine.digest())
    }

    fn fetch(&mut self, node: usize, from: usize, key: Key) {
        let source = &self.nodes[from].disk;
        let set = Arc::clone(&source.sets[&key]);
        let remember = source.remembered.iter().filter(|(of, _)| *of == key).map(|(_, known)| known.clone()).collect();
        self.tickets += 1;
        let stand = Standing { layout: self.nodes[node].known.stamp(), round: 0 };
        let ask = Ask::Merge(Merge { key, set, remember, stands_for: None });
        let (ticket, deadline) = (TicketId(self.tickets), self.now + ASK_PATIENCE);
        self.feed(node, Input::Asked { ticket, stand, ask, held: crate::protocol::io::Held::Unknown, deadline });
    }
}
