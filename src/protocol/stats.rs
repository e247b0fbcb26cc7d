//! What one shard counts, for the metrics.

/// Counts since the start, and what there is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stats {
    /// Requests that ended without their quorum.
    pub quorum_failures: u64,
    /// Reads and writes that were answered by owners alone.
    pub reads_by_owners: u64,
    /// See [`Stats::reads_by_owners`].
    pub writes_by_owners: u64,
    /// Writes that fallbacks helped to their quorum.
    pub writes_with_fallbacks: u64,
    /// Reads that heard an owner which lacked something that another had.
    pub stale_reads: u64,
    /// Reads that found more than one value.
    pub sibling_reads: u64,
    /// Sets sent to owners that were found behind by a read.
    pub read_repairs: u64,
    /// Retries of writes that were remembered.
    pub remembered_writes: u64,
    /// Requests that were handed on to an owner.
    pub forwarded: u64,
    /// Hints stored, delivered, and dropped for lack of room.
    pub hints_stored: u64,
    /// See [`Stats::hints_stored`].
    pub hints_delivered: u64,
    /// See [`Stats::hints_stored`].
    pub hints_dropped: u64,
    /// Hints that wait now, and their bytes.
    pub hints_waiting: u64,
    /// See [`Stats::hints_waiting`].
    pub hints_bytes: u64,
    /// Partitions that lost a hint: some owner lacks what no hint says.
    pub partitions_marked: u64,
}
