//! A change, as this node takes part in it: which layouts it goes by, how far it has come, and when it goes on.
//!
//! What is in force is durable. A mark is made when all cores have reached the step before it, is made durable, and is
//! only then told; this node goes on to the next step when the rows say that all members have made it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::io::{Durable, Effect, Note};
use super::order::OrderId;
use super::row::{Mark, Progress, Row, RowState};
use super::time::Alarm;
use super::{Layout, LayoutStamp, Membership, Step};
use crate::protocol::planted::Bug;
use crate::protocol::types::{CoreId, Instant, NodeId};

/// What was not written is written again after this.
const PERSIST_RETRY: Duration = Duration::from_secs(1);

/// The stored layout and the pending one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layouts {
    pub(super) stored: Arc<Layout>,
    pub(super) pending: Option<Arc<Layout>>,
}

/// What is being made durable.
#[derive(Debug)]
pub(super) struct Writing {
    layouts: Layouts,
    progress: Progress,
    orders: Vec<OrderId>,
}

impl Layouts {
    /// The newest one of the two.
    pub(super) fn newest(&self) -> &Arc<Layout> {
        self.pending.as_ref().unwrap_or(&self.stored)
    }

    /// Its stamp.
    pub(super) fn stamp(&self) -> LayoutStamp {
        self.newest().stamp()
    }

    /// How far a member has come by them, that has made this progress.
    pub(super) fn mark(&self, progress: Progress) -> Mark {
        match &self.pending {
            Some(pending) => progress.mark_of(pending.stamp()),
            None => Mark::Stored,
        }
    }

    /// Whether the node stands in one of them.
    pub(super) fn has_place(&self, node: NodeId) -> bool {
        let layouts = std::iter::once(&self.stored).chain(&self.pending);
        layouts.into_iter().any(|layout| has_place(layout, node))
    }

    pub(super) fn stamps(&self) -> (LayoutStamp, Option<LayoutStamp>) {
        (self.stored.stamp(), self.pending.as_ref().map(|pending| pending.stamp()))
    }
}

/// Whether the node stands in a layout.
pub(super) fn has_place(layout: &Layout, node: NodeId) -> bool {
    layout.rows().binary_search_by_key(&node, |row| row.node).is_ok()
}

/// The step that a node with this mark is in at least.
pub(super) fn step_of(mark: Mark) -> Step {
    match mark {
        Mark::Known | Mark::Writes => Step::Write,
        Mark::Holds => Step::Hold,
        Mark::Reads | Mark::Stored => Step::Read,
    }
}

/// The mark that a step leads to.
fn mark_after(step: Step) -> Mark {
    match step {
        Step::Write => Mark::Writes,
        Step::Hold => Mark::Holds,
        Step::Read => Mark::Reads,
    }
}

/// The step that follows when all members have made this mark; `None` when nothing is left to be done.
fn step_after(mark: Mark) -> Option<Step> {
    match mark {
        Mark::Known => Some(Step::Write),
        Mark::Writes => Some(Step::Hold),
        Mark::Holds => Some(Step::Read),
        Mark::Reads | Mark::Stored => None,
    }
}

impl Membership {
    /// A core has reached a step.
    pub(super) fn on_reached(&mut self, core: CoreId, stamp: LayoutStamp, step: Step) {
        let is_now = self.layouts.pending.as_ref().is_some_and(|pending| pending.stamp() == stamp);
        if !is_now || step != self.step || self.newest.stamps() != self.layouts.stamps() {
            return;
        }
        self.reached.insert(core);
        let cores = self.own().start.cores.count;
        let mark = mark_after(step);
        if (0..cores).all(|core| self.reached.contains(&CoreId(core))) && self.mark < mark {
            self.mark = mark;
            self.is_dirty = true;
        }
    }

    /// Goes on with the change when all members have come far enough.
    pub(super) fn go_on(&mut self) {
        let Some(pending) = self.layouts.pending.clone() else {
            return;
        };
        if self.newest.stamps() != self.layouts.stamps() {
            return;
        }
        let Some(step) = self.least_mark(pending.stamp()).and_then(step_after) else {
            let progress = Progress { stamp: pending.stamp(), mark: Mark::Stored };
            return self.adopt(Layouts { stored: pending, pending: None }, progress.mark);
        };
        // A node that was replaced meanwhile has no marks: the others wait for it where they are.
        if self.step < step {
            self.step = step;
            self.reached.clear();
        }
    }

    /// The least mark of all that the change waits for; `None` where it waits for nobody.
    fn least_mark(&self, stamp: LayoutStamp) -> Option<Mark> {
        let mark_of = |node| self.rows.get(node).map_or(Mark::Known, |row| row.progress.mark_of(stamp));
        let marks = self.waited().map(mark_of);
        if self.planted.is(Bug::MarksOfMost) {
            let mut marks: Vec<Mark> = marks.collect();
            marks.sort_unstable();
            return marks.get(marks.len().saturating_sub(1) / 2).copied();
        }
        marks.min()
    }

    /// Members whose marks are waited for: all of both layouts, but those that were removed.
    pub(super) fn waited(&self) -> impl Iterator<Item = NodeId> {
        let layouts = std::iter::once(&self.layouts.stored).chain(&self.layouts.pending);
        let nodes: BTreeSet<NodeId> = layouts.flat_map(|layout| layout.rows()).map(|row| row.node).collect();
        nodes.into_iter().filter(|node| !self.is_removed(*node))
    }

    pub(super) fn is_removed(&self, node: NodeId) -> bool {
        self.rows.get(node).is_some_and(Row::is_removed)
    }

    /// These are to be in force.
    pub(super) fn adopt(&mut self, layouts: Layouts, mark: Mark) {
        (self.newest, self.mark, self.is_dirty) = (layouts, mark, true);
    }

    /// Another member goes by this stored layout.
    pub(super) fn learn_stored(&mut self, layout: &Arc<Layout>, effects: &mut Vec<Effect>) {
        let known = &self.newest.stored;
        if layout.stamp().number <= known.stamp().number {
            return;
        }
        let before = std::iter::once(known).chain(&self.newest.pending);
        let mut before = before.filter(|before| before.stamp().number + 1 == layout.stamp().number);
        // The pending one was checked when it was learned.
        let is_known = self.newest.pending.as_ref().is_some_and(|pending| pending.stamp() == layout.stamp());
        if !is_known && !self.is_lawful(layout, before.next().cloned().as_deref(), effects) {
            return;
        }
        self.adopt(Layouts { stored: Arc::clone(layout), pending: None }, Mark::Stored);
    }

    /// Another member knows of a change to this layout.
    pub(super) fn learn_pending(&mut self, layout: &Arc<Layout>, effects: &mut Vec<Effect>) {
        let stored = Arc::clone(&self.newest.stored);
        if layout.stamp().number != stored.stamp().number + 1 {
            return;
        }
        if let Some(known) = &self.newest.pending {
            let wins = layout.stamp().is_newer_than(known.stamp()) && self.may_give_up(layout.stamp());
            if !wins {
                return;
            }
        }
        if !self.is_lawful(layout, Some(&stored), effects) {
            return;
        }
        if let Some(known) = &self.newest.pending {
            effects.push(Effect::Note(Note::Outdone { stamp: known.stamp() }));
        }
        self.adopt(Layouts { stored, pending: Some(Arc::clone(layout)) }, Mark::Known);
    }

    /// Whether nobody can ever read by the pending layout that this node knows, if it gives it up for this one: it has
    /// not marked that it holds it, or another one of those that would have to has given it up.
    fn may_give_up(&self, rival: LayoutStamp) -> bool {
        let others = self.waited().filter(|node| *node != self.me).filter_map(|node| self.rows.get(node));
        self.mark < Mark::Holds || others.into_iter().any(|row| row.progress.stamp == rival)
    }

    fn is_lawful(&self, layout: &Layout, before: Option<&Layout>, effects: &mut Vec<Effect>) -> bool {
        // Where this node has missed some, the rules are all that it can be judged by.
        let checked = match before {
            None if layout.partitions() == self.partitions => layout.check(None),
            None => layout.check(Some(&self.newest.stored)),
            Some(before) => layout.check(Some(before)),
        };
        let Err(rule) = checked else {
            return true;
        };
        effects.push(Effect::Note(Note::Unruly { stamp: layout.stamp(), rule }));
        false
    }

    /// Makes durable what is not.
    pub(super) fn persist(&mut self, effects: &mut Vec<Effect>) {
        if !self.is_dirty || self.holds_off || self.writing.is_some() {
            return;
        }
        self.is_dirty = false;
        let progress = Progress { stamp: self.newest.stamp(), mark: self.mark };
        let mut rows = self.rows.clone();
        let own = rows.get_mut(self.me).expect("a node has a row of its own");
        own.progress.join(progress);
        self.writing = Some(Writing {
            layouts: self.newest.clone(),
            progress: own.progress,
            orders: std::mem::take(&mut self.orders),
        });
        effects.push(Effect::Persist(Box::new(Durable {
            cluster: self.cluster,
            partitions: self.partitions,
            me: self.me,
            rows,
            layout: Some(Arc::clone(&self.newest.stored)),
            pending: self.newest.pending.clone(),
        })));
    }

    pub(super) fn on_persisted(&mut self, now: Instant, is_durable: bool, effects: &mut Vec<Effect>) {
        let Some(Writing { layouts, progress, orders }) = self.writing.take() else {
            return;
        };
        if !is_durable {
            (self.is_dirty, self.holds_off) = (true, true);
            self.orders.extend(orders);
            effects.push(Effect::Note(Note::NotPersisted));
            return self.set(now + PERSIST_RETRY, Alarm::Persist);
        }
        if !self.has_begun {
            self.has_begun = true;
            self.set(now, Alarm::Reach);
        }
        if self.own().progress != progress {
            let Progress { stamp, mark } = progress;
            if matches!(mark, Mark::Writes | Mark::Holds | Mark::Reads) {
                effects.push(Effect::Note(Note::Marked { stamp, mark }));
            }
            self.own_mut().progress = progress;
            self.digest = self.rows.digest();
            self.owes_word = true;
        }
        self.come_into_force(layouts, effects);
        for id in orders {
            self.answer_order(id, effects);
        }
        if std::mem::take(&mut self.owes_word) {
            self.tell_members(effects);
        }
    }

    fn come_into_force(&mut self, layouts: Layouts, effects: &mut Vec<Effect>) {
        if layouts.stamps() == self.layouts.stamps() {
            return;
        }
        let before = std::mem::replace(&mut self.layouts, layouts);
        self.owes_word = true;
        self.step = Step::Write;
        self.reached.clear();
        if let Some(pending) = &self.layouts.pending {
            let (stamp, nodes) = (pending.stamp(), pending.rows().len());
            effects.push(Effect::Note(Note::Pending { stamp, nodes }));
        }
        if before.stored.stamp() != self.layouts.stored.stamp() {
            let (stamp, nodes) = (self.layouts.stored.stamp(), self.layouts.stored.rows().len());
            effects.push(Effect::Note(Note::Layout { stamp, nodes }));
            self.noted_data = false;
            self.retire(&before.stored);
        }
    }

    /// Who stands in the layout is a member.
    pub(super) fn mark_members(&mut self) {
        let rows = self.layouts.stored.rows().iter();
        let is_staged = |at: NodeId, incarnation| {
            self.rows.get(at).is_some_and(|row| row.state == RowState::Staged && row.incarnation == incarnation)
        };
        let staged: Vec<NodeId> = rows.filter(|row| is_staged(row.node, row.incarnation)).map(|row| row.node).collect();
        self.forward(&staged, RowState::Member);
    }

    /// Who stands in the layout no more hands over what it still has.
    fn retire(&mut self, before: &Layout) {
        let has_gone = |row: &&crate::protocol::ring::LayoutRow| !self.layouts.has_place(row.node);
        let was_there = |row: &&crate::protocol::ring::LayoutRow| {
            let own = self.rows.get(row.node);
            own.is_some_and(|own| own.state == RowState::Member && own.incarnation == row.incarnation)
        };
        let gone: Vec<NodeId> = before.rows().iter().filter(has_gone).filter(was_there).map(|row| row.node).collect();
        self.forward(&gone, RowState::Leaving);
    }

    /// Moves rows forward.
    pub(super) fn forward(&mut self, nodes: &[NodeId], state: RowState) {
        for node in nodes {
            self.rows.get_mut(*node).expect("it is one of the rows").state = state;
        }
        if !nodes.is_empty() {
            self.touch();
        }
    }

    /// A node that has left is removed when it holds nothing any more, and no member writes to it.
    pub(super) fn end_leave(&mut self) {
        let stamp = self.layouts.stored.stamp();
        let is_over = self.own().state == RowState::Leaving && 2 <= self.empties;
        let all_know = || {
            self.waited().all(|node| self.rows.get(node).is_some_and(|row| row.progress.mark_of(stamp) == Mark::Stored))
        };
        if is_over && all_know() {
            self.forward(&[self.me], RowState::Removed);
            self.owes_word = true;
        }
    }
}
