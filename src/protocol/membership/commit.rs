//! Orders of operators, and commits: by an operator, or, of joins, by the lowest member itself while no member holds
//! data.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::io::{Effect, Note};
use super::marks::Layouts;
use super::order::{Order, OrderId, OrderRefused, Staged};
use super::row::{Mark, Row, RowState, Wish};
use super::stage::{place, removals};
use super::time::Alarm;
use super::{LayoutRow, Membership};
use crate::protocol::config::{WEIGHT_MAX, ZONE_BYTES_MAX};
use crate::protocol::planted::Bug;
use crate::protocol::types::{Instant, NodeId};

/// Time for more nodes to join, for each that there is: one layout for several, since a change asks all of them thrice.
const GATHER: Duration = Duration::from_millis(300);

/// The longest such time.
const GATHER_MAX: Duration = Duration::from_secs(3);

impl Membership {
    /// An operator asks. What changes nothing is answered at once, what changes something when it is durable.
    pub(super) fn on_order(&mut self, id: OrderId, order: Order, effects: &mut Vec<Effect>) {
        let done = match order {
            Order::Plan => return self.answer_order(id, effects),
            Order::Leave(node) => self.order_leave(node),
            Order::Remove(node) => self.order_remove(node),
            Order::Replace { node, by } => self.order_replace(node, by),
            Order::Weight(node, weight) => self.order_weight(node, weight),
            Order::Zone(node, zone) => self.order_zone(node, zone),
            Order::Commit => self.order_commit(),
            Order::Clear => self.order_clear(),
        };
        match done {
            Ok(()) => {
                (self.is_dirty, self.owes_word) = (true, true);
                self.orders.push(id);
            }
            Err(refused) => effects.push(Effect::Ordered { id, outcome: Err(refused) }),
        }
    }

    pub(super) fn answer_order(&mut self, id: OrderId, effects: &mut Vec<Effect>) {
        effects.push(Effect::Ordered { id, outcome: Ok(Box::new(self.plan())) });
    }

    fn order_leave(&mut self, node: NodeId) -> Result<(), OrderRefused> {
        self.placed(node)?;
        self.wish(node, Wish::Leave);
        Ok(())
    }

    fn order_remove(&mut self, node: NodeId) -> Result<(), OrderRefused> {
        let row = self.silent(node)?;
        if self.newest.has_place(row.node) {
            self.wish(node, Wish::Remove);
        } else {
            // It has nothing that a change would have to move.
            self.forward(&[node], RowState::Removed);
        }
        Ok(())
    }

    fn order_replace(&mut self, node: NodeId, by: Option<NodeId>) -> Result<(), OrderRefused> {
        self.placed(node)?;
        self.silent(node)?;
        let Some(by) = by else {
            self.wish(node, Wish::Replace);
            return Ok(());
        };
        let other = self.named(by)?;
        if !self.joins(other) {
            return Err(OrderRefused::NotJoined { name: Arc::clone(&other.name) });
        }
        self.wish(node, Wish::Remove);
        Ok(())
    }

    fn order_weight(&mut self, node: NodeId, weight: u32) -> Result<(), OrderRefused> {
        if !(1..=WEIGHT_MAX).contains(&weight) {
            return Err(OrderRefused::Invalid { reason: format!("a weight is 1 to {WEIGHT_MAX}, not {weight}") });
        }
        let me = self.me;
        self.set_row(node, |row| row.weight.set(me, weight))
    }

    fn order_zone(&mut self, node: NodeId, zone: Arc<str>) -> Result<(), OrderRefused> {
        if ZONE_BYTES_MAX < zone.len() {
            let reason = format!("the name of a zone has at most {ZONE_BYTES_MAX} bytes, not {}", zone.len());
            return Err(OrderRefused::Invalid { reason });
        }
        let me = self.me;
        self.set_row(node, |row| row.zone.set(me, zone))
    }

    fn order_commit(&mut self) -> Result<(), OrderRefused> {
        let (staged, rows) = (self.staged(), self.next_rows(false));
        match self.check_commit(&staged, &rows) {
            Ok(()) => {
                let removed: Vec<NodeId> = removals(&staged).collect();
                self.forward(&removed, RowState::Removed);
                self.begin_change(rows);
                Ok(())
            }
            Err(OrderRefused::UnderWay { pending }) => {
                let gone = self.gone(&staged);
                if gone.is_empty() {
                    return Err(OrderRefused::UnderWay { pending });
                }
                self.check_lost(&gone)?;
                self.forward(&gone.into_iter().collect::<Vec<_>>(), RowState::Removed);
                Ok(())
            }
            Err(refused) => Err(refused),
        }
    }

    /// Nodes that do not answer and are to be removed, and that a change under way still waits for.
    fn gone(&self, staged: &[Staged]) -> BTreeSet<NodeId> {
        // One that the pending layout leaves out is waited for as well.
        let wished = self.rows.iter().filter(|row| row.wish.value == Wish::Remove).map(|row| row.node);
        let nodes = removals(staged).chain(wished);
        nodes.filter(|node| !self.answers(*node) && !self.is_removed(*node)).collect()
    }

    /// Forgets what operators have staged for nodes of the newest layout.
    fn order_clear(&mut self) -> Result<(), OrderRefused> {
        let me = self.me;
        let newest = Arc::clone(self.newest.newest());
        for placed in newest.rows() {
            if self.rows.get(placed.node).is_some() {
                self.set_row(placed.node, |row| reset(row, placed, me))?;
            }
        }
        Ok(())
    }

    fn named(&self, node: NodeId) -> Result<&Row, OrderRefused> {
        let known = self.rows.get(node).filter(|row| row.state != RowState::Removed || self.newest.has_place(node));
        known.ok_or(OrderRefused::NoSuchNode)
    }

    fn placed(&self, node: NodeId) -> Result<&Row, OrderRefused> {
        let row = self.named(node)?;
        let is_placed = place(self.newest.newest(), node).is_some();
        if is_placed { Ok(row) } else { Err(OrderRefused::NotPlaced { name: Arc::clone(&row.name) }) }
    }

    fn silent(&self, node: NodeId) -> Result<&Row, OrderRefused> {
        let row = self.named(node)?;
        if self.answers(node) { Err(OrderRefused::StillUp { name: Arc::clone(&row.name) }) } else { Ok(row) }
    }

    fn wish(&mut self, node: NodeId, wish: Wish) {
        let me = self.me;
        // It was looked at before.
        let _ = self.set_row(node, |row| row.wish.set(me, wish));
    }

    fn set_row(&mut self, node: NodeId, set: impl FnOnce(&mut Row)) -> Result<(), OrderRefused> {
        self.named(node)?;
        set(self.rows.get_mut(node).ok_or(OrderRefused::NoSuchNode)?);
        self.touch();
        Ok(())
    }

    /// Begins the change to a layout of these rows.
    fn begin_change(&mut self, rows: Vec<LayoutRow>) {
        let is_apart = self.planted.is(Bug::ChangesApart);
        let stored = Arc::clone(if is_apart { self.newest.newest() } else { &self.newest.stored });
        let pending = Some(Arc::new(stored.next(rows, stored.wanted())));
        self.adopt(Layouts { stored, pending }, Mark::Known);
        self.owes_word = true;
    }

    /// Begins to gather if there are joins to commit, and it is this node that does it.
    pub(super) fn consider(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.gathers || !self.commits() {
            return;
        }
        if self.waits_for_operator() {
            if !std::mem::replace(&mut self.noted_data, true) {
                effects.push(Effect::Note(Note::HeldByData));
            }
            return;
        }
        self.gathers = true;
        let members = u32::try_from(self.layouts.stored.rows().len()).unwrap_or(u32::MAX);
        self.set(now + GATHER.saturating_mul(members).min(GATHER_MAX), Alarm::Gathered);
    }

    pub(super) fn on_gathered(&mut self) {
        self.gathers = false;
        if self.commits() && !self.waits_for_operator() {
            self.begin_change(self.next_rows(true));
        }
    }

    /// Whether there are joined nodes that answer, no change is under way, and this is the lowest member of a layout
    /// all of which answers.
    fn commits(&self) -> bool {
        let may_begin = self.newest.pending.is_none() || self.planted.is(Bug::ChangesApart);
        let is_at_rest = self.has_begun && may_begin && self.layouts.stamps() == self.newest.stamps();
        is_at_rest
            && self.waited().next() == Some(self.me)
            && self.waited().all(|node| self.answers(node))
            && self.rows.iter().any(|row| self.joins(row))
    }

    fn waits_for_operator(&self) -> bool {
        !self.auto_join && self.rows.iter().any(|row| row.holds_data && row.state != RowState::Removed)
    }
}

/// Forgets what an operator has staged for a node.
fn reset(row: &mut Row, placed: &LayoutRow, me: NodeId) {
    row.wish.set(me, Wish::Stay);
    row.weight.set(me, placed.weight);
    row.zone.set(me, Arc::clone(&placed.zone));
}
