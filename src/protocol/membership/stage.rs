//! What is staged: the difference between the rows and the newest layout; and what a commit of it would come to.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::order::{OrderRefused, Plan, PlannedLoad, Staged, StagedChange};
use super::row::{Row, RowState, Wish};
use super::{Layout, LayoutRow, Membership, layout_row};
use crate::protocol::config::NODES_MAX;
use crate::protocol::planted::Bug;
use crate::protocol::ring::Partition;
use crate::protocol::types::NodeId;

impl Membership {
    /// All that is staged, by node.
    pub(super) fn staged(&self) -> Vec<Staged> {
        let base = self.newest.newest();
        let mut all = Vec::new();
        for row in self.rows.iter() {
            let placed = place(base, row.node);
            let whats = match placed {
                Some(placed) => staged_of_placed(row, placed),
                None if self.joins(row) => vec![StagedChange::Join],
                None => Vec::new(),
            };
            all.extend(whats.into_iter().map(|what| Staged { node: row.node, name: Arc::clone(&row.name), what }));
        }
        all
    }

    /// Whether the node waits for a place, and answers.
    pub(super) fn joins(&self, row: &Row) -> bool {
        row.state == RowState::Staged && !self.newest.has_place(row.node) && self.answers(row.node)
    }

    /// Rows of the next layout: of all that is staged, or of joins alone.
    pub(super) fn next_rows(&self, joins_only: bool) -> Vec<LayoutRow> {
        let base = self.newest.newest();
        let of = |placed: &LayoutRow| match self.rows.get(placed.node) {
            Some(row) if !joins_only => (!goes(row, placed)).then(|| layout_row(row)),
            _ => Some(placed.clone()),
        };
        let mut rows: Vec<LayoutRow> = base.rows().iter().filter_map(of).collect();
        let room = NODES_MAX.saturating_sub(rows.len());
        rows.extend(self.rows.iter().filter(|row| self.joins(row)).map(layout_row).take(room));
        rows
    }

    /// What is staged, and what it comes to.
    pub(super) fn plan(&self) -> Plan {
        let (base, staged, rows) = (self.newest.newest(), self.staged(), self.next_rows(false));
        let next = (!rows.is_empty() && !staged.is_empty()).then(|| base.next(rows.clone(), base.wanted()));
        let next = next.as_ref().unwrap_or(base);
        Plan {
            stored: self.newest.stored.stamp(),
            pending: self.newest.pending.as_ref().map(|pending| pending.stamp()),
            loads: self.loads(base, next),
            copies: next.copies(),
            refusal: self.check_commit(&staged, &rows).err(),
            staged,
        }
    }

    fn loads(&self, base: &Layout, next: &Layout) -> Vec<PlannedLoad> {
        let nodes: BTreeSet<NodeId> = base.rows().iter().chain(next.rows()).map(|row| row.node).collect();
        let load = |node: NodeId| {
            let (before, after) = (owned(base, node), owned(next, node));
            let is_same = place(base, node).map(|row| row.incarnation) == place(next, node).map(|row| row.incarnation);
            let gains = after.iter().filter(|partition| !is_same || !before.contains(partition)).count();
            let name = self.rows.get(node).map_or_else(|| "".into(), |row| Arc::clone(&row.name));
            PlannedLoad { node, name, before: count(before.len()), after: count(after.len()), gains: count(gains) }
        };
        nodes.into_iter().map(load).collect()
    }

    /// Whether what is staged can be committed.
    pub(super) fn check_commit(&self, staged: &[Staged], rows: &[LayoutRow]) -> Result<(), OrderRefused> {
        if let Some(pending) = &self.newest.pending
            && !self.planted.is(Bug::ChangesApart)
        {
            return Err(OrderRefused::UnderWay { pending: pending.stamp() });
        }
        if staged.is_empty() {
            return Err(OrderRefused::NothingStaged);
        }
        for Staged { node, name, what } in staged {
            match what {
                StagedChange::Remove if self.answers(*node) && !self.is_removed(*node) => {
                    return Err(OrderRefused::StillUp { name: Arc::clone(name) });
                }
                StagedChange::Replace { is_there: false } => {
                    let name = Arc::clone(name);
                    let is_up = self.answers(*node);
                    return Err(if is_up {
                        OrderRefused::StillUp { name }
                    } else {
                        OrderRefused::NotThereYet { name }
                    });
                }
                _ => {}
            }
        }
        let base = self.newest.newest();
        let (left, n) = (rows.len(), base.wanted().n);
        if left == 0 || left < base.copies().min(usize::from(n)) {
            return Err(OrderRefused::TooFewCopies { left, n });
        }
        let leaves: BTreeSet<NodeId> = removals(staged).collect();
        let nodes: BTreeSet<NodeId> = base.rows().iter().chain(rows).map(|row| row.node).collect();
        let waited = nodes.into_iter().filter(|node| !leaves.contains(node) && !self.is_removed(*node));
        let silent: Vec<String> = waited.filter(|node| !self.answers(*node)).map(|node| self.name_of(node)).collect();
        if !silent.is_empty() {
            return Err(OrderRefused::Silent { names: silent });
        }
        self.check_lost(&leaves)
    }

    /// Whether every partition keeps a copy that the next owners can fetch, when these leave as they are.
    pub(super) fn check_lost(&self, leaves: &BTreeSet<NodeId>) -> Result<(), OrderRefused> {
        let base = &self.newest.stored;
        let is_source = |row: &LayoutRow| {
            let is_whole = self.rows.get(row.node).is_some_and(|own| own.incarnation == row.incarnation);
            is_whole && !leaves.contains(&row.node) && !self.is_removed(row.node)
        };
        let sources: Vec<bool> = base.rows().iter().map(is_source).collect();
        let has_source = |partition| base.owner_rows(partition).iter().any(|row| sources[usize::from(*row)]);
        let lost = (0..base.partitions()).filter(|partition| !has_source(Partition(*partition))).count();
        if lost == 0 { Ok(()) } else { Err(OrderRefused::LosesData { partitions: count(lost) }) }
    }

    pub(super) fn name_of(&self, node: NodeId) -> String {
        self.rows.get(node).map_or_else(|| node.to_string(), |row| row.name.to_string())
    }
}

/// Nodes that are to leave as they are.
pub(super) fn removals(staged: &[Staged]) -> impl Iterator<Item = NodeId> {
    staged.iter().filter(|staged| staged.what == StagedChange::Remove).map(|staged| staged.node)
}

/// The row of a node in a layout.
pub(super) fn place(layout: &Layout, node: NodeId) -> Option<&LayoutRow> {
    let at = layout.rows().binary_search_by_key(&node, |row| row.node).ok()?;
    Some(&layout.rows()[at])
}

/// Whether the node loses its place.
fn goes(row: &Row, placed: &LayoutRow) -> bool {
    let wish = if row.incarnation == placed.incarnation { row.wish.value } else { Wish::Stay };
    row.state == RowState::Removed || matches!(wish, Wish::Leave | Wish::Remove)
}

/// What is staged for a node that stands in the newest layout.
fn staged_of_placed(row: &Row, placed: &LayoutRow) -> Vec<StagedChange> {
    let is_same = row.incarnation == placed.incarnation;
    match row.wish.value {
        _ if row.state == RowState::Removed => return vec![StagedChange::Remove],
        Wish::Leave if is_same => return vec![StagedChange::Leave],
        Wish::Remove if is_same => return vec![StagedChange::Remove],
        _ => {}
    }
    let mut all = Vec::new();
    if !is_same || row.wish.value == Wish::Replace {
        all.push(StagedChange::Replace { is_there: !is_same });
    }
    if row.weight.value != placed.weight {
        all.push(StagedChange::Weight { from: placed.weight, to: row.weight.value });
    }
    if row.zone.value != placed.zone {
        all.push(StagedChange::Zone { from: Arc::clone(&placed.zone), to: Arc::clone(&row.zone.value) });
    }
    all
}

fn owned(layout: &Layout, node: NodeId) -> BTreeSet<u16> {
    (0..layout.partitions()).filter(|partition| layout.is_owner(node, Partition(*partition))).collect()
}

fn count(of: usize) -> u32 {
    u32::try_from(of).expect("there are at most 32,768 partitions")
}
