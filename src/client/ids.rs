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

    /// A name of some 18 letters and digits, so that it reads well where the versions of a key are shown.
    pub(super) fn next(&self) -> OperationId {
        let name = format!("{:016x}-{:x}", self.drawn, self.count());
        OperationId::new(name).expect("two numbers in hexadecimal digits take 33 bytes at most")
    }

    /// A number from 0 to 1 that differs from client to client and from call to call; not for secrets.
    pub(super) fn fraction(&self) -> f64 {
        f64::from(seahash::hash(&(self.drawn ^ self.count()).to_le_bytes()) as u32) / f64::from(u32::MAX)
    }

    fn count(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }
}
