//! What one shard counts, for the metrics.

use super::types::Instant;

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
    /// Comparisons of all partitions that this core shares with a core of another node, and those that found all equal.
    pub comparisons: u64,
    /// See [`Stats::comparisons`].
    pub comparisons_equal: u64,
    /// Partitions in which a comparison found a difference that was still there a little later.
    pub partitions_differed: u64,
    /// Sets that anti-entropy took in here, and sent to others.
    pub repairs_pulled: u64,
    /// See [`Stats::repairs_pulled`].
    pub repairs_pushed: u64,
    /// Sets that a change of owners brought here, and bytes of them.
    pub transfers_sets: u64,
    /// See [`Stats::transfers_sets`].
    pub transfers_bytes: u64,
    /// Pairs of a partition and an owner that the change under way fetches it from: all, and those not done yet.
    pub transfers: u64,
    /// See [`Stats::transfers`].
    pub transfers_left: u64,
    /// Keys of partitions that this node does not own which were deleted here, because all owners have them.
    pub leftovers_dropped: u64,
    /// Partitions that this node does not own, of which it still holds keys.
    pub leftover_partitions: u64,
    /// Rounds to forget tombstones that began, and that came to nothing.
    pub rounds: u64,
    /// See [`Stats::rounds`].
    pub rounds_ended: u64,
    /// Keys that were forgotten here because they held nothing but tombstones.
    pub tombstones_forgotten: u64,
    /// Partitions that differ from a co-owner's, as far as is known.
    pub partitions_differing: u64,
    /// When the oldest of them was first seen to differ; none does at `None`.
    pub differing_since: Option<Instant>,
    /// When all shared partitions were last seen to be equal with all owners; `None` for not yet.
    pub agreed_at: Option<Instant>,
}
