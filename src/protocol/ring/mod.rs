//! Where a key lives: the hash, the partition, the core.
//!
//! The ring is 64 bits of seahash, cut into a power of two of equal partitions; the top bits of the hash name the
//! partition. Within a node a partition belongs to one core, salted so that a slow core of one node is not the slow
//! core of every replica (DESIGN sections 3 and 7). Integers only: nodes must agree on this for ever.

mod change;
mod layout;
mod placement;
mod rules;
mod view;
#[cfg(test)]
mod tests;

use std::fmt;

pub use change::{Change, Step};
pub use layout::{Layout, LayoutRow, LayoutStamp, Wanted};
pub use rules::Unruly;
pub use view::{Liveness, Member, View};

use super::types::{CoreId, Key};

/// One slice of the ring, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The ring as its cluster founded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    partitions: u16,
}

impl Ring {
    /// # Panics
    /// When `partitions` is not a power of two from 1 to 32,768: the number comes from our own data directory, which
    /// was checked when it was read.
    pub const fn new(partitions: u16) -> Ring {
        assert!(partitions.is_power_of_two(), "a ring has a power of two of partitions");
        Ring { partitions }
    }

    /// How many partitions the ring has.
    pub fn partitions(self) -> u16 {
        self.partitions
    }

    /// The partition of a key: the top bits of its hash.
    pub fn partition(self, key: &Key) -> Partition {
        self.partition_at(hash(key))
    }

    /// The partition of a place on the ring.
    pub fn partition_at(self, hash: u64) -> Partition {
        let bits = self.partitions.trailing_zeros();
        let top = hash.checked_shr(64 - bits).unwrap_or(0);
        Partition(u16::try_from(top).expect("at most 15 bits are left"))
    }
}

/// The place of a key on the ring.
pub fn hash(key: &Key) -> u64 {
    seahash::hash(key.as_bytes())
}

/// How one node spreads partitions over its cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Number of cores, from 1.
    pub count: u16,
    /// The node's own salt; peers and clients learn it from the welcome.
    pub salt: u64,
}

impl Cores {
    /// The core that owns a partition on this node.
    pub fn of(self, partition: Partition) -> CoreId {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.salt.to_le_bytes());
        bytes[8..].copy_from_slice(&partition.0.to_le_bytes());
        let core = seahash::hash(&bytes) % u64::from(self.count);
        CoreId(u16::try_from(core).expect("less than the number of cores"))
    }
}
