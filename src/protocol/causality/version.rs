//! One version of a key.

use crate::protocol::types::{Dot, OperationId, Value, WallTime};

/// What one write left behind. The same dot always names the same version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Its name for ever.
    pub dot: Dot,
    /// The value; `None` is a tombstone.
    pub value: Option<Value>,
    /// When its coordinator minted it.
    pub written_at: WallTime,
    /// When it ends by itself. In the format from the first day; no request sets it yet.
    pub expires_at: Option<WallTime>,
    /// The client's name for the write, if it gave one.
    pub operation: Option<Box<Operation>>,
}

/// A client's name for a write, and a digest of what the write said, so that a retry can be told from another
/// operation under the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// The client's name for it.
    pub id: OperationId,
    /// Digest of the operation: put or delete, value, and what it meant to supersede.
    pub digest: u64,
}

impl Version {
    /// Whether this is a deletion.
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }

    /// Bytes that it counts with against the limits of a set: its content and a fixed part.
    pub fn bytes(&self) -> usize {
        const FIXED: usize = 48;
        let value = self.value.as_ref().map_or(0, Value::len);
        let operation = self.operation.as_ref().map_or(0, |operation| operation.id.as_bytes().len() + 8);
        FIXED + value + operation
    }
}

// The type's fields are laid out for the common case: one value, no operation id.
const _: () = assert!(size_of::<Version>() <= 80);
