//! The next layout, from the one before it by the fewest moves, in integers: every node that computes it finds the
//! same.
//!
//! No layout that keeps the rules of [`Layout::check`] leaves more copies where they are.

mod assignment;
mod first;
pub(super) mod share;

use self::assignment::{Terms, assign};
use self::first::even_firsts;
use self::share::{Zones, shares};
use super::{Layout, LayoutRow, Partition, Wanted};

impl Layout {
    /// The layout that follows this one when the cluster consists of `rows`. A node counts as the one it was where its
    /// data directory is the same; one with another directory holds nothing yet.
    ///
    /// # Panics
    /// When the rows or what is wanted are out of the bounds that [`Layout::check`] names.
    #[must_use]
    pub fn next(&self, mut rows: Vec<LayoutRow>, wanted: Wanted) -> Layout {
        rows.sort_by_key(|row| row.node);
        let copies = rows.len().min(usize::from(wanted.n));
        let zones = Zones::of(&rows);
        // The rows, zone by zone.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|row| zones.of[*row]);
        let before: Vec<Vec<u16>> = self.holders(&rows, &order);

        let shares = shares(self.partitions(), copies, &rows, &zones);
        let terms = Terms {
            copies,
            shares: &order.iter().map(|row| shares[*row]).collect::<Vec<_>>(),
            zones: &order.iter().map(|row| zones.of[*row]).collect::<Vec<_>>(),
            before: &before,
        };
        let mut owners = assign(&terms);
        even_firsts(&mut owners, rows.len());

        let row = |node: &u16| u16::try_from(order[usize::from(*node)]).expect("it was counted in 16 bits");
        let owners = owners.iter().flatten().map(row).collect();
        let next = Layout::of(self.stamp().number + 1, wanted, rows, owners);
        assert_eq!(next.check(Some(self)), Ok(()), "what is computed keeps the rules");
        next
    }

    /// Who of the ordered rows holds each partition of this layout.
    fn holders(&self, rows: &[LayoutRow], order: &[usize]) -> Vec<Vec<u16>> {
        let now = |before: &LayoutRow| {
            let is_same = |row: &LayoutRow| (row.node, row.incarnation) == (before.node, before.incarnation);
            let at = order.iter().position(|row| is_same(&rows[*row]))?;
            u16::try_from(at).ok()
        };
        let now: Vec<Option<u16>> = self.rows().iter().map(now).collect();
        let held = |partition| self.owner_rows(Partition(partition)).iter().filter_map(|row| now[usize::from(*row)]);
        (0..self.partitions()).map(|partition| held(partition).collect()).collect()
    }
}
