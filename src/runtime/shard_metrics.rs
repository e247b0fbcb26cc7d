//! What a core's shard counts of its cluster: quorums, repairs, hints, comparisons, transfers, and what is forgotten
//! (docs/METRICS.md is the table).

use metrics::{Counter, Gauge, Recorder, counter, gauge};

use crate::protocol::Stats;
use crate::protocol::antientropy::Sum;
use crate::protocol::types::Instant;

type Read = fn(&Stats) -> u64;
type ReadHeld = fn(&Sum) -> u64;

/// Name, a label beside the core, help, and where the shard counts it.
type CounterRow = (&'static str, Option<(&'static str, &'static str)>, &'static str, Read);

const COUNTERS: [CounterRow; 26] = [
    (QUORUM_FAILURES, None, "Requests that ended without their quorum.", |stats| stats.quorum_failures),
    (LEVELS, Some(("level", "read")), LEVELS_HELP, |stats| stats.reads_by_owners),
    (LEVELS, Some(("level", "write")), LEVELS_HELP, |stats| stats.writes_by_owners),
    (LEVELS, Some(("level", "write_fallback")), LEVELS_HELP, |stats| stats.writes_with_fallbacks),
    (FORWARDED, None, "Requests that were handed on to a node that owns their key.", |stats| stats.forwarded),
    (STALE, None, "Reads that heard an owner which lacked what another had.", |stats| stats.stale_reads),
    (SIBLINGS, None, "Reads that found more than one value.", |stats| stats.sibling_reads),
    (REPAIRS, None, "Sets sent to owners that a read found behind.", |stats| stats.read_repairs),
    (HINTS_STORED, None, "Hints kept for absent owners.", |stats| stats.hints_stored),
    (HINTS_DELIVERED, None, "Hints delivered.", |stats| stats.hints_delivered),
    (HINTS_DROPPED, None, "Hints beyond W that found no room.", |stats| stats.hints_dropped),
    (RETRIES, None, "Retries that were answered as their first try was.", |stats| stats.remembered_writes),
    (COMPARISONS, Some(("outcome", "equal")), COMPARISONS_HELP, |stats| stats.comparisons_equal),
    (COMPARISONS, Some(("outcome", "different")), COMPARISONS_HELP, differed),
    (FOUND, Some(("cause", "read")), FOUND_HELP, |stats| stats.stale_reads),
    (FOUND, Some(("cause", "hint")), FOUND_HELP, |stats| stats.hints_stored),
    (FOUND, Some(("cause", "anti_entropy")), FOUND_HELP, |stats| stats.partitions_differed),
    (REPAIRED, Some(("cause", "read")), REPAIRED_HELP, |stats| stats.read_repairs),
    (REPAIRED, Some(("cause", "hint")), REPAIRED_HELP, |stats| stats.hints_delivered),
    (REPAIRED, Some(("cause", "handoff")), REPAIRED_HELP, |stats| stats.transfers_sets),
    (REPAIRED, Some(("cause", "anti_entropy")), REPAIRED_HELP, |stats| stats.repairs_pulled + stats.repairs_pushed),
    (TRANSFERRED, None, "Bytes of sets that changes of owners brought here.", |stats| stats.transfers_bytes),
    (LEFTOVERS_DELETED, None, "Keys deleted here because all their owners have them.", |stats| stats.leftovers_dropped),
    (FORGOTTEN, None, "Keys forgotten here that held nothing but tombstones.", |stats| stats.tombstones_forgotten),
    (ROUNDS, Some(("outcome", "begun")), ROUNDS_HELP, |stats| stats.rounds),
    (ROUNDS, Some(("outcome", "given_up")), ROUNDS_HELP, |stats| stats.rounds_ended),
];

/// Gauges: name, help, and where the shard tells it.
const GAUGES: [(&str, &str, Read); 7] = [
    ("sloop_hints", "Hints that wait for their targets.", |stats| stats.hints_waiting),
    ("sloop_hints_bytes", "Memory of the same.", |stats| stats.hints_bytes),
    ("sloop_partitions_marked", "Partitions that lost a hint.", |stats| stats.partitions_marked),
    ("sloop_partitions_differing", "Partitions that differ from another owner's.", |stats| stats.partitions_differing),
    ("sloop_transfers", "Fetches of the change under way, by partition and owner.", |stats| stats.transfers),
    ("sloop_transfers_left", "Those that are not done yet.", |stats| stats.transfers_left),
    ("sloop_leftover_partitions", "Partitions of others of which keys are here.", |stats| stats.leftover_partitions),
];

/// Gauges of what the core holds: name, help, and where the trees tell it.
const HELD: [(&str, &str, ReadHeld); 3] = [
    ("sloop_keys", "Keys that are held, those that were deleted and are not forgotten among them.", |held| held.keys),
    ("sloop_tombstones", "Keys that hold nothing but tombstones.", |held| held.buried),
    ("sloop_bytes", "Bytes of keys and their sets.", |held| held.bytes),
];

/// Gauges of ages in seconds.
const DIVERGENCE_AGE: &str = "sloop_divergence_age_seconds";
const DIVERGENCE_AGE_HELP: &str = "Age of the oldest known difference to another owner; 0 for none.";
const AGREEMENT_AGE: &str = "sloop_agreement_age_seconds";
const AGREEMENT_AGE_HELP: &str =
    "Time since everything shared was last seen equal with all owners, or since the start.";

const QUORUM_FAILURES: &str = "sloop_quorum_failures_total";
const LEVELS: &str = "sloop_requests_served_total";
const LEVELS_HELP: &str = "Requests that were answered, by the level that they reached.";
const FORWARDED: &str = "sloop_requests_forwarded_total";
const STALE: &str = "sloop_stale_reads_total";
const SIBLINGS: &str = "sloop_sibling_reads_total";
const REPAIRS: &str = "sloop_read_repairs_total";
const HINTS_STORED: &str = "sloop_hints_stored_total";
const HINTS_DELIVERED: &str = "sloop_hints_delivered_total";
const HINTS_DROPPED: &str = "sloop_hints_dropped_total";
const RETRIES: &str = "sloop_retries_remembered_total";
const COMPARISONS: &str = "sloop_tree_comparisons_total";
const COMPARISONS_HELP: &str = "Comparisons of all that is shared with a core of another node, by what was found.";
const FOUND: &str = "sloop_differences_found_total";
const FOUND_HELP: &str = "Differences between owners that were found, by what found them.";
const REPAIRED: &str = "sloop_differences_repaired_total";
const REPAIRED_HELP: &str = "Sets that were brought to or from another owner, by what brought them.";
const TRANSFERRED: &str = "sloop_transfer_bytes_total";
const LEFTOVERS_DELETED: &str = "sloop_leftovers_deleted_total";
const FORGOTTEN: &str = "sloop_tombstones_forgotten_total";
const ROUNDS: &str = "sloop_tombstone_rounds_total";
const ROUNDS_HELP: &str =
    "Rounds to forget tombstones that this core led: begun, and those of them that came to nothing.";

/// The handles of one core.
pub struct ShardMetrics {
    counters: [Counter; COUNTERS.len()],
    gauges: [Gauge; GAUGES.len()],
    held: [Gauge; HELD.len()],
    divergence_age: Gauge,
    agreement_age: Gauge,
}

impl ShardMetrics {
    /// Makes the handles of one core, within its recorder.
    pub fn registered(core: &str) -> ShardMetrics {
        ShardMetrics {
            counters: COUNTERS.map(|(name, label, ..)| match label {
                Some((label, value)) => counter!(name, "core" => core.to_owned(), label => value),
                None => counter!(name, "core" => core.to_owned()),
            }),
            gauges: GAUGES.map(|(name, ..)| gauge!(name, "core" => core.to_owned())),
            held: HELD.map(|(name, ..)| gauge!(name, "core" => core.to_owned())),
            divergence_age: gauge!(DIVERGENCE_AGE, "core" => core.to_owned()),
            agreement_age: gauge!(AGREEMENT_AGE, "core" => core.to_owned()),
        }
    }

    /// Brings them up to date.
    pub fn show(&self, now: Instant, held: &Sum, stats: &Stats) {
        for (counter, (.., read)) in self.counters.iter().zip(COUNTERS) {
            counter.absolute(read(stats));
        }
        for (gauge, (.., read)) in self.gauges.iter().zip(GAUGES) {
            gauge.set(read(stats) as f64);
        }
        for (gauge, (.., read)) in self.held.iter().zip(HELD) {
            gauge.set(read(held) as f64);
        }
        self.divergence_age.set(stats.differing_since.map_or(0.0, |since| now.since(since).as_secs_f64()));
        // The clock of a process begins with it.
        self.agreement_age.set(now.since(stats.agreed_at.unwrap_or_default()).as_secs_f64());
    }
}

fn differed(stats: &Stats) -> u64 {
    stats.comparisons.saturating_sub(stats.comparisons_equal)
}

/// Tells the recorder what they mean.
pub fn describe(recorder: &dyn Recorder) {
    for (name, _, help, _) in COUNTERS {
        recorder.describe_counter(name.into(), None, help.into());
    }
    let gauges = GAUGES.map(|(name, help, _)| (name, help));
    let held = HELD.map(|(name, help, _)| (name, help));
    let ages = [(DIVERGENCE_AGE, DIVERGENCE_AGE_HELP), (AGREEMENT_AGE, AGREEMENT_AGE_HELP)];
    for (name, help) in gauges.into_iter().chain(held).chain(ages) {
        recorder.describe_gauge(name.into(), None, help.into());
    }
}
