//! Who owns what: a numbered, hashed list of rows, and the owners of every partition (DESIGN "Ring, layout and
//! membership").

use std::sync::Arc;

use super::{Partition, Unruly};
use crate::protocol::config::N_DEFAULT;
use crate::protocol::types::NodeId;

/// A layout's name: its number, and the hash of all that it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LayoutStamp {
    /// Counts layouts of one cluster, from 1.
    pub number: u64,
    /// Of two layouts with one number the lower hash wins.
    pub hash: u64,
}

impl LayoutStamp {
    /// Whether this layout replaces `other`: it has a higher number, or the same one and a lower hash.
    pub fn is_newer_than(self, other: LayoutStamp) -> bool {
        (self.number, std::cmp::Reverse(self.hash)) > (other.number, std::cmp::Reverse(other.hash))
    }
}

/// One node in a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutRow {
    /// The node.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: u128,
    /// What fails together; owners of a partition stand in distinct zones where there are enough.
    pub zone: Arc<str>,
    /// Its share of the partitions, beside the others' weights; at least 1.
    pub weight: u32,
}

/// Copies of a key, and the quorums of requests that name none. They travel with the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// N: owners of a partition where there are as many nodes.
    pub n: u8,
    /// R.
    pub r: u8,
    /// W.
    pub w: u8,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted { n: N_DEFAULT, r: N_DEFAULT / 2 + 1, w: N_DEFAULT / 2 + 1 }
    }
}

/// Rows and owners.
///
/// Invariants: rows ascend by node; each partition has as many distinct owners as the fewer of N and the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    stamp: LayoutStamp,
    wanted: Wanted,
    rows: Vec<LayoutRow>,
    /// Indices of rows, partition after partition.
    owners: Vec<u16>,
}

impl Layout {
    /// The layout of a cluster that was just founded: one node owns everything.
    ///
    /// # Panics
    /// When the row or what is wanted are out of their bounds, or the partitions are not a power of two: our own
    /// configuration was checked before.
    pub fn founding(partitions: u16, wanted: Wanted, row: LayoutRow) -> Layout {
        let layout = Layout::of(1, wanted, vec![row], vec![0; usize::from(partitions)]);
        assert_eq!(layout.check(None), Ok(()), "a cluster is founded within the rules");
        layout
    }

    /// A layout from what was sent or kept: its structure is sound, and the hash is that of its contents. Whether it
    /// keeps the rules says [`Layout::check`].
    ///
    /// # Errors
    /// [`Unruly`]; nothing was made.
    pub fn from_parts(
        stamp: LayoutStamp,
        wanted: Wanted,
        rows: Vec<LayoutRow>,
        owners: Vec<u16>,
    ) -> Result<Layout, Unruly> {
        let layout = Layout::of(stamp.number, wanted, rows, owners);
        layout.check_structure()?;
        if layout.stamp != stamp {
            return Err(Unruly::Hash { said: stamp.hash, found: layout.stamp.hash });
        }
        Ok(layout)
    }

    pub(in crate::protocol) fn of(number: u64, wanted: Wanted, rows: Vec<LayoutRow>, owners: Vec<u16>) -> Layout {
        let hash = hash(number, wanted, &rows, &owners);
        Layout { stamp: LayoutStamp { number, hash }, wanted, rows, owners }
    }

    /// Number and hash.
    pub fn stamp(&self) -> LayoutStamp {
        self.stamp
    }

    /// The copies and quorums that it was founded with.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// Its nodes, by id.
    pub fn rows(&self) -> &[LayoutRow] {
        &self.rows
    }

    /// Owners of each partition.
    pub fn copies(&self) -> usize {
        self.rows.len().min(usize::from(self.wanted.n))
    }

    /// Partitions of the ring.
    pub fn partitions(&self) -> u16 {
        u16::try_from(self.owners.len() / self.copies()).expect("a layout is of at most 32,768 partitions")
    }

    /// The owners of a partition, the one that usually coordinates first.
    pub fn owners(&self, partition: Partition) -> impl ExactSizeIterator<Item = NodeId> + Clone {
        self.owner_rows(partition).iter().map(|row| self.rows[usize::from(*row)].node)
    }

    /// The owners of a partition, as indices of rows.
    pub fn owner_rows(&self, partition: Partition) -> &[u16] {
        let copies = self.copies();
        &self.owners[usize::from(partition.0) * copies..][..copies]
    }

    /// The owners of all partitions, as indices of rows, partition after partition.
    pub fn all_owners(&self) -> &[u16] {
        &self.owners
    }

    /// How many partitions each row owns.
    pub fn loads(&self) -> Vec<u32> {
        let mut loads = vec![0; self.rows.len()];
        self.owners.iter().for_each(|row| loads[usize::from(*row)] += 1);
        loads
    }

    /// Whether the node has a row.
    pub fn has(&self, node: NodeId) -> bool {
        self.rows.binary_search_by_key(&node, |row| row.node).is_ok()
    }

    /// Whether the node owns the partition.
    pub fn is_owner(&self, node: NodeId, partition: Partition) -> bool {
        self.owners(partition).any(|owner| owner == node)
    }
}

fn hash(number: u64, wanted: Wanted, rows: &[LayoutRow], owners: &[u16]) -> u64 {
    let mut bytes = Vec::with_capacity(27 + 64 * rows.len() + 2 * owners.len());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&[wanted.n, wanted.r, wanted.w]);
    bytes.extend_from_slice(&(rows.len() as u64).to_le_bytes());
    for row in rows {
        bytes.extend_from_slice(&row.node.0.to_le_bytes());
        bytes.extend_from_slice(&row.incarnation.to_le_bytes());
        bytes.extend_from_slice(&row.weight.to_le_bytes());
        bytes.extend_from_slice(&(row.zone.len() as u64).to_le_bytes());
        bytes.extend_from_slice(row.zone.as_bytes());
    }
    owners.iter().for_each(|owner| bytes.extend_from_slice(&owner.to_le_bytes()));
    seahash::hash(&bytes)
}
