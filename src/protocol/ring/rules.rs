//! The rules of layouts, by which every member judges one that somebody else computed.
//!
//! 1. Rows ascend by node, 1 to [`NODES_MAX`]; a weight is 1 to [`WEIGHT_MAX`], a zone at most [`ZONE_BYTES_MAX`]
//!    bytes.
//! 2. N is 1 to [`COPIES_MAX`], R and W are 1 to N; partitions are a power of two up to [`PARTITIONS_MAX`].
//! 3. Each partition has K owners, the fewer of N and the rows, all distinct.
//! 4. They stand in min(Z, K) zones, where Z zones have rows: in distinct ones, or, where zones are scarce, in all.
//! 5. A node owns its share, rounded down or up (`placement::share` says what that is; without bounds by zones and by
//!    the number of partitions, partitions * K * weight / sum of weights).
//! 6. The hash is that of all this; the number follows that of the layout before, and the partitions are the same.

use super::placement::share::{Zones, shares};
use super::{Layout, Partition};
use crate::protocol::config::{COPIES_MAX, NODES_MAX, PARTITIONS_MAX, WEIGHT_MAX, ZONE_BYTES_MAX};
use crate::protocol::types::NodeId;

/// Which rule a layout breaks. Whoever finds it keeps the layout that it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unruly {
    /// No rows, or too many.
    #[error("a layout has 1 to {NODES_MAX} nodes, not {nodes}")]
    Nodes {
        /// Its rows.
        nodes: usize,
    },
    /// A row that does not stand behind the one before it.
    #[error("node {node} stands twice or out of order")]
    Order {
        /// The row's node.
        node: NodeId,
    },
    /// A weight out of its bounds.
    #[error("node {node} has weight {weight}: 1 to {WEIGHT_MAX} are allowed")]
    Weight {
        /// The row's node.
        node: NodeId,
        /// Its weight.
        weight: u32,
    },
    /// A zone whose name is too long.
    #[error("the zone of node {node} has a name of {bytes} bytes: {ZONE_BYTES_MAX} are allowed")]
    ZoneName {
        /// The row's node.
        node: NodeId,
        /// Bytes of the name.
        bytes: usize,
    },
    /// Copies or quorums out of their bounds.
    #[error("copies {n}, reads of {r}, writes of {w}: copies are 1 to {COPIES_MAX}, quorums 1 to the copies")]
    Wanted {
        /// N.
        n: u8,
        /// R.
        r: u8,
        /// W.
        w: u8,
    },
    /// Owners that are not `copies` for each of a power of two of partitions.
    #[error("{owners} owners at {copies} copies are not of a power of two of partitions up to {PARTITIONS_MAX}")]
    Owners {
        /// Owners of all partitions.
        owners: usize,
        /// Owners that each is to have.
        copies: usize,
    },
    /// An owner that is no row.
    #[error("partition {partition} is owned by row {row} of {rows}")]
    Row {
        /// The partition.
        partition: Partition,
        /// The index.
        row: u16,
        /// The rows.
        rows: usize,
    },
    /// A node that owns a partition twice.
    #[error("partition {partition} is owned by node {node} twice")]
    Twice {
        /// The partition.
        partition: Partition,
        /// The owner.
        node: NodeId,
    },
    /// Contents that are not those of the hash.
    #[error("the layout's hash is said to be {said:016x} and is {found:016x}")]
    Hash {
        /// The hash that came with it.
        said: u64,
        /// That of its contents.
        found: u64,
    },
    /// Owners in too few zones.
    #[error("the owners of partition {partition} stand in {found} zones, {needed} can be had")]
    Zones {
        /// The partition.
        partition: Partition,
        /// Zones that its owners are in.
        found: usize,
        /// Zones that they should be in.
        needed: usize,
    },
    /// A node that owns more or less than its share.
    #[error("node {node} owns {found} partitions, its share is {least} to {most}")]
    Load {
        /// The node.
        node: NodeId,
        /// What it owns.
        found: u32,
        /// Its share, rounded down.
        least: u32,
        /// Its share, rounded up.
        most: u32,
    },
    /// A node without cores.
    #[error("node {node} has no cores")]
    Cores {
        /// The node.
        node: NodeId,
    },
    /// A number that does not follow.
    #[error("layout {found} does not follow layout {before}")]
    Number {
        /// Its number.
        found: u64,
        /// That of the layout before.
        before: u64,
    },
    /// Another ring.
    #[error("the layout has {found} partitions, the cluster was founded with {before}")]
    Partitions {
        /// Its partitions.
        found: u16,
        /// Those of the layout before.
        before: u16,
    },
}

impl Layout {
    /// Whether it keeps the rules. Without the layout before, its number is not judged.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, before: Option<&Layout>) -> Result<(), Unruly> {
        self.check_structure()?;
        if let Some(before) = before {
            self.check_follows(before)?;
        }
        let zones = Zones::of(self.rows());
        self.check_zones(&zones)?;
        self.check_loads(&zones)
    }

    /// Rules 1 to 3. That the hash is right is known since the layout was made.
    pub(super) fn check_structure(&self) -> Result<(), Unruly> {
        let (rows, wanted) = (self.rows(), self.wanted());
        if !(1..=NODES_MAX).contains(&rows.len()) {
            return Err(Unruly::Nodes { nodes: rows.len() });
        }
        if let Some(pair) = rows.windows(2).find(|pair| pair[1].node <= pair[0].node) {
            return Err(Unruly::Order { node: pair[1].node });
        }
        for row in rows {
            if !(1..=WEIGHT_MAX).contains(&row.weight) {
                return Err(Unruly::Weight { node: row.node, weight: row.weight });
            }
            if ZONE_BYTES_MAX < row.zone.len() {
                return Err(Unruly::ZoneName { node: row.node, bytes: row.zone.len() });
            }
        }
        let quorums = 1..=wanted.n;
        if !(1..=COPIES_MAX).contains(&wanted.n) || !quorums.contains(&wanted.r) || !quorums.contains(&wanted.w) {
            return Err(Unruly::Wanted { n: wanted.n, r: wanted.r, w: wanted.w });
        }
        self.check_owners()
    }

    fn check_owners(&self) -> Result<(), Unruly> {
        let (owners, copies, rows) = (self.all_owners(), self.copies(), self.rows().len());
        let partitions = owners.len() / copies;
        let is_whole = partitions * copies == owners.len();
        if !is_whole || !partitions.is_power_of_two() || usize::from(PARTITIONS_MAX) < partitions {
            return Err(Unruly::Owners { owners: owners.len(), copies });
        }
        // The last partition that each row was seen to own.
        let mut last = vec![None; rows];
        for (partition, owners) in (0..).map(Partition).zip(owners.chunks(copies)) {
            for &row in owners {
                let Some(last) = last.get_mut(usize::from(row)) else {
                    return Err(Unruly::Row { partition, row, rows });
                };
                if last.replace(partition) == Some(partition) {
                    return Err(Unruly::Twice { partition, node: self.rows()[usize::from(row)].node });
                }
            }
        }
        Ok(())
    }

    fn check_follows(&self, before: &Layout) -> Result<(), Unruly> {
        let (found, number) = (self.stamp().number, before.stamp().number);
        if number.checked_add(1) != Some(found) {
            return Err(Unruly::Number { found, before: number });
        }
        let (found, partitions) = (self.partitions(), before.partitions());
        if found != partitions {
            return Err(Unruly::Partitions { found, before: partitions });
        }
        Ok(())
    }

    fn check_zones(&self, zones: &Zones) -> Result<(), Unruly> {
        let needed = zones.count.min(self.copies());
        let mut stood: Vec<u16> = Vec::with_capacity(self.copies());
        for partition in (0..self.partitions()).map(Partition) {
            stood.clear();
            stood.extend(self.owner_rows(partition).iter().map(|row| zones.of[usize::from(*row)]));
            stood.sort_unstable();
            stood.dedup();
            if stood.len() < needed {
                return Err(Unruly::Zones { partition, found: stood.len(), needed });
            }
        }
        Ok(())
    }

    fn check_loads(&self, zones: &Zones) -> Result<(), Unruly> {
        let shares = shares(self.partitions(), self.copies(), self.rows(), zones);
        for ((row, share), found) in self.rows().iter().zip(shares).zip(self.loads()) {
            if !(share.floor..=share.ceil).contains(&found) {
                return Err(Unruly::Load { node: row.node, found, least: share.floor, most: share.ceil });
            }
        }
        Ok(())
    }
}
