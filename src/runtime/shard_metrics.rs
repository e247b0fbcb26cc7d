//! What a core's shard counts of its cluster: quorums, repairs, hints (docs/METRICS.md is the table).

use metrics::{Counter, Gauge, Recorder, counter, gauge};

use crate::protocol::Stats;

type Read = fn(&Stats) -> u64;

/// Name, a label beside the core, help, and where the shard counts it.
type CounterRow = (&'static str, Option<(&'static str, &'static str)>, &'static str, Read);

const COUNTERS: [CounterRow; 12] = [
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
];

/// Gauges: name, help, and where the shard tells it.
const GAUGES: [(&str, &str, Read); 3] = [
    ("sloop_hints", "Hints that wait for their targets.", |stats| stats.hints_waiting),
    ("sloop_hints_bytes", "Memory of the same.", |stats| stats.hints_bytes),
    ("sloop_partitions_marked", "Partitions that lost a hint.", |stats| stats.partitions_marked),
];

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

/// The handles of one core.
pub struct ShardMetrics {
    counters: [Counter; COUNTERS.len()],
    gauges: [Gauge; GAUGES.len()],
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
        }
    }

    /// Brings them up to date.
    pub fn show(&self, stats: &Stats) {
        for (counter, (.., read)) in self.counters.iter().zip(COUNTERS) {
            counter.absolute(read(stats));
        }
        for (gauge, (.., read)) in self.gauges.iter().zip(GAUGES) {
            gauge.set(read(stats) as f64);
        }
    }
}

/// Tells the recorder what they mean.
pub fn describe(recorder: &dyn Recorder) {
    for (name, _, help, _) in COUNTERS {
        recorder.describe_counter(name.into(), None, help.into());
    }
    for (name, help, _) in GAUGES {
        recorder.describe_gauge(name.into(), None, help.into());
    }
}
