//! The member table: a row for every node that ever joined.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::row::Row;
use crate::protocol::config::NODES_MAX;
use crate::protocol::types::NodeId;

/// All rows, by node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rows(BTreeMap<NodeId, Row>);

impl Rows {
    /// The row of a node.
    pub fn get(&self, node: NodeId) -> Option<&Row> {
        self.0.get(&node)
    }

    /// Changes the row of a node. What is changed must only move forward as a join would.
    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Row> {
        self.0.get_mut(&node)
    }

    /// Says nothing of a node that was removed.
    pub(super) fn leave_out_removed(&mut self, node: NodeId) {
        self.0.retain(|other, row| *other != node || !row.is_removed());
    }

    /// All rows, by node.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Joins what is said of one node. Where the table is full, a node that it does not have stays out.
    pub fn join_row(&mut self, row: Row) {
        let is_full = NODES_MAX <= self.0.len();
        match self.0.entry(row.node) {
            Entry::Occupied(mut known) => known.get_mut().join(row),
            Entry::Vacant(place) if !is_full => {
                place.insert(row);
            }
            Entry::Vacant(_) => {}
        }
    }

    /// Joins another table. Says whether that changed anything.
    pub fn join(&mut self, other: &Rows) -> bool {
        let before = self.digest();
        other.iter().for_each(|row| self.join_row(row.clone()));
        self.digest() != before
    }

    /// A hash of all that the rows say; 0 for none.
    pub fn digest(&self) -> u64 {
        if self.0.is_empty() {
            return 0;
        }
        let mut bytes = Vec::with_capacity(192 * self.0.len());
        self.iter().for_each(|row| row.spell(&mut bytes));
        seahash::hash(&bytes)
    }
}

impl FromIterator<Row> for Rows {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Rows {
        let mut table = Rows::default();
        rows.into_iter().for_each(|row| table.join_row(row));
        table
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::membership::row::{Mark, Progress, Register, RowStart, RowState, Wish};
    use crate::protocol::ring::{Cores, LayoutStamp};

    fn register<T: Clone + std::fmt::Debug>(values: impl Strategy<Value = T>) -> impl Strategy<Value = Register<T>> {
        (0..3_u64, 0..3_u64, values).prop_map(|(counter, setter, value)| Register {
            counter,
            setter: NodeId(setter),
            value,
        })
    }

    /// Few different values, so that equal ones, older ones and conflicts all come up.
    fn row() -> impl Strategy<Value = Row> {
        let state = prop_oneof![
            Just(RowState::Staged),
            Just(RowState::Member),
            Just(RowState::Leaving),
            Just(RowState::Removed)
        ];
        let start = (0..3_u64, 0..3_u64, 1..3_u16, 1..3_u16).prop_map(|(count, stamp, port, cores)| RowStart {
            count,
            stamp,
            address: ([127, 0, 0, 1], port).into(),
            http: ([127, 0, 0, 1], port + 1).into(),
            cores: Cores { count: cores, salt: stamp },
        });
        let wish = prop_oneof![Just(Wish::Stay), Just(Wish::Leave), Just(Wish::Remove), Just(Wish::Replace)];
        let marks = [Mark::Known, Mark::Writes, Mark::Holds, Mark::Reads, Mark::Stored];
        let progress = (0..3_u64, 0..2_u64, prop::sample::select(marks.to_vec()))
            .prop_map(|(number, hash, mark)| Progress { stamp: LayoutStamp { number, hash }, mark });
        let zone = register("[ab]".prop_map(Arc::from));
        let staged = (state, register(wish), progress, any::<bool>());
        (0..3_u64, "[ab]", 0..2_u32, 0..2_u128, staged, zone, register(1..4_u32), start).prop_map(
            |(node, name, generation, incarnation, (state, wish, progress, holds_data), zone, weight, start)| Row {
                node: NodeId(node),
                name: name.into(),
                generation,
                incarnation,
                state,
                wish,
                progress,
                holds_data,
                zone,
                weight,
                start,
            },
        )
    }

    fn rows() -> impl Strategy<Value = Rows> {
        prop::collection::vec(row(), 0..5).prop_map(Rows::from_iter)
    }

    fn joined(mut one: Rows, other: &Rows) -> Rows {
        one.join(other);
        one
    }

    proptest! {
        #[test]
        fn rows_join_in_any_order_to_the_same(a in rows(), b in rows(), c in rows()) {
            prop_assert_eq!(joined(a.clone(), &b), joined(b.clone(), &a));
            prop_assert_eq!(joined(joined(a.clone(), &b), &c), joined(a.clone(), &joined(b.clone(), &c)));
            prop_assert_eq!(joined(a.clone(), &a), a.clone());
            let both = joined(a.clone(), &b);
            prop_assert_eq!(joined(both.clone(), &a), both);
        }

        #[test]
        fn the_digest_tells_tables_apart(a in rows(), b in rows()) {
            prop_assert_eq!(a == b, a.digest() == b.digest());
        }
    }
}
