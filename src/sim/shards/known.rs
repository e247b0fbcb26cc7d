//! What one node of a world knows of layouts, and of how far the others are with a change: a small model of membership,
//! with the same rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::protocol::ring::{Change, Layout, LayoutStamp, Step};
use crate::protocol::types::NodeId;

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// The data directory that has reached it.
    pub(super) incarnation: u128,
    /// The number of the pending layout.
    pub(super) number: u64,
    /// What it has reached.
    pub(super) step: Step,
}

/// What is durable on one node of the cluster.
#[derive(Clone)]
pub(super) struct Known {
    me: NodeId,
    /// The stored layout.
    pub(super) layout: Arc<Layout>,
    /// The pending one.
    pub(super) pending: Option<Arc<Layout>>,
    marks: BTreeMap<NodeId, Mark>,
    /// Nodes that are dead for good.
    pub(super) removed: BTreeSet<NodeId>,
}

impl Known {
    /// What a node knows that has its data directory for the first time.
    pub(super) fn new(me: NodeId, incarnation: u128, layout: Arc<Layout>) -> Known {
        let nothing = Mark { incarnation, number: 0, step: Step::Write };
        Known { me, layout, pending: None, marks: [(me, nothing)].into(), removed: BTreeSet::new() }
    }

    /// The data directory of a node.
    pub(super) fn incarnation(&self, node: NodeId) -> u128 {
        self.marks.get(&node).map_or(1, |mark| mark.incarnation)
    }

    /// The newest layout that it knows.
    pub(super) fn stamp(&self) -> LayoutStamp {
        self.pending.as_ref().unwrap_or(&self.layout).stamp()
    }

    /// What it does about the pending layout. What it has reached itself it does not go back behind.
    pub(super) fn step(&self) -> Option<Step> {
        self.pending.as_ref()?;
        let own = |step| self.has_reached(self.me, step);
        Some(match () {
            () if own(Step::Read) || self.have_all_reached(Step::Hold) => Step::Read,
            () if own(Step::Hold) || self.have_all_reached(Step::Write) => Step::Hold,
            () => Step::Write,
        })
    }

    /// The layout that reads go by, and the change.
    pub(super) fn view(&self) -> (Arc<Layout>, Option<Arc<Change>>) {
        let (Some(pending), Some(step)) = (&self.pending, self.step()) else {
            return (Arc::clone(&self.layout), None);
        };
        let reads = if step == Step::Read { pending } else { &self.layout };
        let change = Change { stored: Arc::clone(&self.layout), pending: Arc::clone(pending), step };
        (Arc::clone(reads), Some(Arc::new(change)))
    }

    /// This node has reached a step of the change under way.
    pub(super) fn reach(&mut self, step: Step) {
        let number = self.stamp().number;
        let own = self.marks.get_mut(&self.me).expect("a node knows itself");
        let reached = Mark { number, step, ..*own };
        *own = reached.max(*own);
        self.finish();
    }

    /// Learns what another node knows.
    pub(super) fn learn(&mut self, other: &Known) {
        for (node, mark) in &other.marks {
            let known = self.marks.entry(*node).or_insert(*mark);
            *known = (*mark).max(*known);
        }
        self.removed.extend(&other.removed);
        if self.layout.stamp().number < other.layout.stamp().number {
            self.layout = Arc::clone(&other.layout);
            self.pending = self.pending.take().filter(|mine| other.layout.stamp().number < mine.stamp().number);
        }
        if let Some(pending) = &other.pending
            && self.stamp().number < pending.stamp().number
        {
            self.pending = Some(Arc::clone(pending));
        }
        self.finish();
    }

    fn finish(&mut self) {
        if self.pending.is_some() && self.have_all_reached(Step::Read) {
            self.layout = self.pending.take().expect("it was there a line ago");
        }
    }

    fn has_reached(&self, node: NodeId, step: Step) -> bool {
        let number = self.stamp().number;
        let has = |mark: &Mark| number < mark.number || (number == mark.number && step <= mark.step);
        self.marks.get(&node).is_some_and(has)
    }

    fn have_all_reached(&self, step: Step) -> bool {
        let rows = self.layout.rows().iter().chain(self.pending.iter().flat_map(|pending| pending.rows()));
        let mut waited_for = rows.map(|row| row.node).filter(|node| !self.removed.contains(node));
        waited_for.all(|node| self.has_reached(node, step))
    }
}
