//! A snapshot: all sets of a node in one stream, the same bytes for the same contents, whoever writes them and when
//! (docs/SNAPSHOT.md).
//!
//! ```text
//! head    "SLOOPSNP"  format u16  partitions u16                          crc32c u32 over all before it
//! block   1 u8  entries u32  length u32  crc32c u32 over the body         crc32c u32 over all before it    body
//!         body: entries in the order of their places
//!         entry: partition u16  key length u16  key  set length u32  set (wire::sets)
//! end     2 u8  keys u64  blocks u64  digest u64                          crc32c u32 over all before it
//! ```
//! Little-endian. The digest begins at 0 and takes each block in: seahash(digest, seahash(body)). No time, no name, no
//! cluster and no memory of operations stands in it. Nothing stands behind the end; without its end it is partial.

mod write;
mod read;
#[cfg(feature = "daemon")]
pub mod folder;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

pub use read::Entries;
pub use write::write;

use crate::wire::WireError;

const MAGIC: &[u8; 8] = b"SLOOPSNP";
const FORMAT: u16 = 1;
const HEAD_BYTES: usize = 16;

const BLOCK: u8 = 1;
const BLOCK_HEAD_BYTES: usize = 17;
const END: u8 = 2;
const END_BYTES: usize = 29;

/// A block is closed by the entry that takes it this far: small enough to hold in memory many times over.
const BLOCK_BYTES: usize = 64 * 1_024;

/// What a whole snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Partitions of the ring whose order the entries have.
    pub partitions: u16,
    /// Keys, those that hold nothing but tombstones too.
    pub keys: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of the whole stream.
    pub bytes: u64,
    /// Equal for equal contents.
    pub digest: u64,
}

/// The manifest that stands beside the data.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { partitions, keys, blocks, bytes, digest } = self;
        writeln!(f, "sloop snapshot {FORMAT}")?;
        writeln!(f, "partitions {partitions}\nkeys {keys}\nblocks {blocks}\nbytes {bytes}\ndigest {digest:016x}")
    }
}

/// Why a snapshot cannot be used. Nothing was taken from it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes cannot be had.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// Something else.
    #[error("not a snapshot of sloop")]
    Foreign,
    /// A newer sloop wrote it.
    #[error(
        "the snapshot has format {format}, this sloop reads format {FORMAT}: use the sloop that wrote it or a newer one"
    )]
    Newer {
        /// The format found.
        format: u16,
    },
    /// The end is missing.
    #[error("the snapshot is partial: it breaks off after {bytes} bytes; take it again")]
    Partial {
        /// Bytes that there are.
        bytes: u64,
    },
    /// What is there is not what was written.
    #[error("the snapshot is damaged at byte {at}: {reason}; take it again")]
    Damaged {
        /// Where the damaged part begins.
        at: u64,
        /// What is wrong with it.
        reason: Damage,
    },
}

/// How a snapshot is damaged.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// A part does not verify.
    #[error("its checksum is wrong")]
    Checksum,
    /// A part of an unknown kind.
    #[error("a part of unknown kind {0}")]
    Kind(u8),
    /// An entry that is none.
    #[error("an entry cannot be read: {0}")]
    Entry(#[from] WireError),
    /// Entries out of order.
    #[error("an entry stands out of order")]
    Order,
    /// An entry under another partition than its key's.
    #[error("an entry stands under partition {found}, its key belongs to {partition}")]
    Partition {
        /// Where it stands.
        found: u16,
        /// Where it belongs.
        partition: u16,
    },
    /// The end counts something else than was read.
    #[error("its end counts other contents than it has")]
    Counts,
    /// Bytes behind the end.
    #[error("bytes behind its end")]
    Trailing,
    /// The number of partitions is none.
    #[error("{0} is no number of partitions")]
    Partitions(u16),
}

fn digest_after(digest: u64, body: &[u8]) -> u64 {
    let parts = [digest, seahash::hash(body)];
    seahash::hash(&parts.map(u64::to_le_bytes).concat())
}
