//! One number, `memory`, divides itself over everything that holds data.

use std::time::Duration;

/// Least memory that a core can work with: a largest value on its way in, in the overlay and on its way out.
pub const CORE_BYTES_MIN: u64 = 96 * MIB;
const MIB: u64 = 1024 * 1024;

/// A frozen overlay becomes one chunk for the LSM tree. Below 8 MiB level 0 fills with crumbs; above 512 MiB nothing
/// is gained, as the log behind it is long before.
const CHUNK_BYTES_MIN: u64 = 8 * MIB;
const CHUNK_BYTES_MAX: u64 = 512 * MIB;

/// Records that wait for the disk: more than it writes in a tenth of a second only makes clients wait.
const QUEUE_BYTES_MAX: u64 = 64 * MIB;

/// Log of a core behind which its overlay is frozen. The longer it is, the more often an overlay takes a key again
/// before it is ingested. A start replays twice as much at most, unless the tree refused chunks: twice that size made
/// a start take up to 3.1 s on one busy core (docs/RESULTS.md, from a crash to ready).
const LOG_BYTES: u64 = 64 * MIB;

/// An overlay this old is ingested whatever its size, so that the log behind it does not live for ever.
pub const OVERLAY_AGE_MAX: Duration = Duration::from_secs(300);

/// How the node's memory is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// A core's overlay is frozen and ingested at this size.
    pub chunk_bytes: u64,
    /// A core refuses writes at this size of overlay, frozen and not.
    pub overlay_bytes_max: u64,
    /// A core refuses writes while so much waits for its log.
    pub queue_bytes_max: u64,
    /// A core's overlay is frozen when it has so much log behind it.
    pub log_bytes_max: u64,
    /// A core's table of sets in memory: those of the overlay, frozen or not, and hot ones.
    pub cache_bytes: u64,
    /// fjall's block cache, for the node.
    pub blocks_bytes: u64,
    /// Replies that wait for slow clients, for each core.
    pub replies_bytes_max: u64,
}

/// The memory does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "memory = {given} MiB is too little for {cores} cores: at least {needed} MiB, or fewer cores (--cores)",
    given = given / MIB, needed = needed / MIB
)]
pub struct TooLittle {
    given: u64,
    needed: u64,
    cores: u16,
}

impl Memory {
    /// Of all memory, 55 % go to sets in memory, of which 40 may be those that the tree does not have yet; a quarter to
    /// fjall's blocks, a tenth to replies; the rest is for what is not counted: connections, tables, the allocator's
    /// own.
    ///
    /// # Errors
    /// [`TooLittle`].
    pub fn divide(bytes: u64, cores: u16) -> Result<Memory, TooLittle> {
        let needed = CORE_BYTES_MIN * u64::from(cores);
        if bytes < needed {
            return Err(TooLittle { given: bytes, needed, cores });
        }
        let core = bytes / u64::from(cores);
        let overlay_bytes_max = core * 2 / 5;
        let chunk_bytes = (overlay_bytes_max * 3 / 8).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        Ok(Memory {
            chunk_bytes,
            overlay_bytes_max,
            queue_bytes_max: chunk_bytes.min(QUEUE_BYTES_MAX),
            log_bytes_max: LOG_BYTES,
            cache_bytes: core * 55 / 100,
            blocks_bytes: bytes / 4,
            replies_bytes_max: core / 10,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_stay_within_the_whole() {
        for (bytes, cores) in [(192 * MIB, 2), (2 << 30, 2), (64 << 30, 32)] {
            let memory = Memory::divide(bytes, cores).unwrap();
            let core = memory.cache_bytes + memory.replies_bytes_max;
            assert!(core * u64::from(cores) + memory.blocks_bytes < bytes);
            assert!(memory.overlay_bytes_max <= memory.cache_bytes * 3 / 4, "hot keys have room in any case");
            assert!(memory.chunk_bytes <= memory.overlay_bytes_max / 2, "one chunk fills while another is ingested");
        }
    }

    #[test]
    fn too_little_memory_is_refused_with_the_numbers() {
        let refused = Memory::divide(64 * MIB, 2).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "memory = 64 MiB is too little for 2 cores: at least 192 MiB, or fewer cores (--cores)"
        );
    }
}
