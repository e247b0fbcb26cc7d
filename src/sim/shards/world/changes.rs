//! How the nodes of a world change the owners of partitions, while they crash, lose their disks and leave.

use std::sync::Arc;

use super::{Event, HOP, SYNC, World, id, lose};
use crate::protocol::ring::{LayoutRow, LayoutStamp, Step};
use crate::sim::shards::known::Known;

impl World {
    /// A change to a layout of these nodes begins at one node, which knows of none that is under way; the others learn
    /// of it. False where it cannot begin there.
    pub(crate) fn change(&mut self, told: usize, nodes: &[usize]) -> bool {
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

    /// What a node does about the change that it knows.
    pub(crate) fn step_of(&self, node: usize) -> Option<Step> {
        self.nodes[node].known.step()
    }

    /// A node is dead for good, and another one is told so: nobody waits for it any more.
    pub(crate) fn remove(&mut self, node: usize, told: usize) {
        if self.is_alive(node) {
            self.crash(node);
        }
        self.nodes[node].is_gone = true;
        self.expel(node, told);
    }

    /// The same of a node that is alive, and has not heard of it.
    pub(crate) fn expel(&mut self, node: usize, told: usize) {
        self.nodes[told].known.removed.insert(id(node));
        self.show_view(told);
        self.gossip(told);
    }

    /// The membership of a node stands still from now on, and its shard goes on by what it knows.
    pub(crate) fn deafen(&mut self, node: usize) {
        self.nodes[node].is_deaf = true;
    }

    /// A node loses its disk, and starts again on an empty one; what the cluster is it learns from another.
    pub(crate) fn wipe(&mut self, node: usize, told: usize) {
        if self.is_alive(node) {
            self.crash(node);
        }
        let mut known = self.nodes[told].known.clone();
        let wiped = &mut self.nodes[node];
        let incarnation = wiped.known.incarnation(id(node)) + 1;
        let lost = std::mem::take(&mut wiped.disk);
        lost.sets.iter().for_each(|(key, set)| lose(&mut wiped.lost, key, set));
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
        let is_deaf = self.nodes[from].is_deaf || self.nodes[to].is_deaf;
        if from == to || is_deaf || self.cut.contains(&(from, to)) {
            return;
        }
        let way = self.about(HOP);
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
            && !self.nodes[node].is_deaf
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
        self.nodes[node].known.reach(step);
        self.show_view(node);
        self.gossip(node);
    }
}
