//! Names for operations, so that a retry of a write is the same write.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Error, OperationId, Result};

/// Ids that no other client draws: 64 random bits once, and a count.
#[derive(Debug)]
pub(super) struct Ids {
    drawn: u64,
    count: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Result<Ids> {
        let drawn = getrandom::u64().map_err(|error| Error::Random { reason: error.to_string() })?;
        Ok(Ids { drawn, count: AtomicU64::new(0) })
    }

    pub(super) fn next(&self) -> OperationId {
        let id = OperationId::new(self.fresh().to_vec());
        id.expect("16 bytes are within the bounds of an operation id")
    }

    /// A number from 0 to 1 that differs from client to client and from call to call; not for secrets.
    pub(super) fn fraction(&self) -> f64 {
        f64::from(seahash::hash(&self.fresh()) as u32) / f64::from(u32::MAX)
    }

    fn fresh(&self) -> [u8; 16] {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        (u128::from(count) << 64 | u128::from(self.drawn)).to_le_bytes()
    }
}
