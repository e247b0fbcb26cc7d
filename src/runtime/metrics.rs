//! What a core counts. Handles are made once a core, so that counting costs nanoseconds; docs/METRICS.md is the table.
//!
//! Labels are bounded: a core, a kind of operation, an outcome, a node of the cluster. Never a key, never a client.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Recorder, counter, gauge, histogram, with_local_recorder};

use crate::protocol::message::{Failure, Outcome, Request};
use crate::protocol::types::CoreId;

/// Every metric of a core: name, type, help. The one place where a name is spelt for the exporter's `# HELP`.
const TABLE: [(&str, Kind, &str); 34] = [
    (OPERATIONS, Kind::Counter, "Requests that ended, by kind and outcome."),
    (OPERATION_SECONDS, Kind::Histogram, "Time from a request's arrival at its core to its reply, by kind."),
    (WAL_SYNCS, Kind::Counter, "Group commits: durable writes to the log."),
    (WAL_RECORDS, Kind::Counter, "Records that the log took."),
    (WAL_BYTES, Kind::Counter, "Bytes written to the log, padding included."),
    (WAL_BATCH_RECORDS, Kind::Histogram, "Records of one group commit."),
    (WAL_SYNC_SECONDS, Kind::Histogram, "Time of one group commit."),
    (WAL_FAILURES, Kind::Counter, "Writes to the log that failed."),
    (WAL_BEHIND_BYTES, Kind::Gauge, "Bytes of log that a restart would replay."),
    (WAL_SEGMENTS, Kind::Gauge, "Segment files that the core holds."),
    (OVERLAY_BYTES, Kind::Gauge, "Memory of what is durable in the log and not yet in the LSM tree."),
    (OVERLAY_KEYS, Kind::Gauge, "Keys and operations of the same, without the chunk that is being ingested."),
    (CACHE_BYTES, Kind::Gauge, "Memory of the keys that are held though the LSM tree has them."),
    (CACHE_KEYS, Kind::Gauge, "Keys of the same, and those that are known to be absent."),
    (CACHE_HITS, Kind::Counter, "Look-ups of keys that memory answered, the overlay included."),
    (CACHE_MISSES, Kind::Counter, "Look-ups of keys that the LSM tree had to answer."),
    (COLD_READS, Kind::Counter, "Reads of the LSM tree."),
    (COLD_READ_SECONDS, Kind::Histogram, "Time of one read of the LSM tree, waiting included."),
    (INGESTIONS, Kind::Counter, "Chunks that the LSM tree took."),
    (INGESTION_FAILURES, Kind::Counter, "Chunks that the LSM tree could not take."),
    (INGESTION_SECONDS, Kind::Histogram, "Time of one ingestion."),
    (QUEUE_APPENDS, Kind::Gauge, "Appends that wait for the next group commit."),
    (QUEUE_REQUESTS, Kind::Gauge, "Requests under way on the core."),
    (QUEUE_LOADS, Kind::Gauge, "Reads of the LSM tree under way."),
    (CONNECTIONS, Kind::Gauge, "Binary connections that the core serves."),
    (CONNECTIONS_OPENED, Kind::Counter, "Binary connections that the core was given."),
    (CONNECTIONS_DROPPED, Kind::Counter, "Binary connections that were closed for being too slow or silent."),
    (FRAMES_REFUSED, Kind::Counter, "Frames that were no call: answered with a failure, or the end."),
    (PEER_LINKS, Kind::Gauge, "Connections to cores of the peer that are up."),
    (PEER_LINKS_LOST, Kind::Counter, "Connections to cores of the peer that ended."),
    (PEER_ASKS, Kind::Gauge, "Asks of the peer under way."),
    (PEER_QUEUED_BYTES, Kind::Gauge, "Bytes of asks that wait to be sent to the peer."),
    (PEER_ASKS_NOT_SENT, Kind::Counter, "Asks of the peer that were dropped for want of a connection or of room."),
    (PEER_ROUND_TRIP_SECONDS, Kind::Histogram, "Time from an ask of the peer to what it told."),
];

const OPERATIONS: &str = "sloop_operations_total";
const OPERATION_SECONDS: &str = "sloop_operation_duration_seconds";
const WAL_SYNCS: &str = "sloop_wal_syncs_total";
const WAL_RECORDS: &str = "sloop_wal_records_total";
const WAL_BYTES: &str = "sloop_wal_written_bytes_total";
const WAL_BATCH_RECORDS: &str = "sloop_wal_batch_records";
const WAL_SYNC_SECONDS: &str = "sloop_wal_sync_duration_seconds";
const WAL_FAILURES: &str = "sloop_wal_failures_total";
const WAL_BEHIND_BYTES: &str = "sloop_wal_behind_bytes";
const WAL_SEGMENTS: &str = "sloop_wal_segments";
const OVERLAY_BYTES: &str = "sloop_overlay_bytes";
const OVERLAY_KEYS: &str = "sloop_overlay_keys";
const CACHE_BYTES: &str = "sloop_cache_bytes";
const CACHE_KEYS: &str = "sloop_cache_keys";
const CACHE_HITS: &str = "sloop_cache_hits_total";
const CACHE_MISSES: &str = "sloop_cache_misses_total";
const COLD_READS: &str = "sloop_cold_reads_total";
const COLD_READ_SECONDS: &str = "sloop_cold_read_duration_seconds";
const INGESTIONS: &str = "sloop_ingestions_total";
const INGESTION_FAILURES: &str = "sloop_ingestion_failures_total";
const INGESTION_SECONDS: &str = "sloop_ingestion_duration_seconds";
const QUEUE_APPENDS: &str = "sloop_queued_appends";
const QUEUE_REQUESTS: &str = "sloop_requests_under_way";
const QUEUE_LOADS: &str = "sloop_loads_under_way";
const CONNECTIONS: &str = "sloop_connections";
const CONNECTIONS_OPENED: &str = "sloop_connections_opened_total";
const CONNECTIONS_DROPPED: &str = "sloop_connections_dropped_total";
const FRAMES_REFUSED: &str = "sloop_frames_refused_total";
const PEER_LINKS: &str = "sloop_peer_links";
const PEER_LINKS_LOST: &str = "sloop_peer_links_lost_total";
const PEER_ASKS: &str = "sloop_peer_asks_under_way";
const PEER_QUEUED_BYTES: &str = "sloop_peer_queued_bytes";
const PEER_ASKS_NOT_SENT: &str = "sloop_peer_asks_not_sent_total";
const PEER_ROUND_TRIP_SECONDS: &str = "sloop_peer_round_trip_seconds";

/// Upper bounds of the buckets for times: 20 us, doubling, to 10 s.
pub const SECONDS_BUCKETS: [f64; 20] = [
    0.000_02, 0.000_04, 0.000_08, 0.000_16, 0.000_32, 0.000_64, 0.001_28, 0.002_56, 0.005_12, 0.010_24, 0.020_48,
    0.040_96, 0.081_92, 0.163_84, 0.327_68, 0.655_36, 1.310_72, 2.621_44, 5.242_88, 10.485_76,
];

/// Upper bounds of the buckets for counts of records.
pub const RECORDS_BUCKETS: [f64; 12] = [1., 2., 4., 8., 16., 32., 64., 128., 256., 512., 1_024., 4_096.];

/// The histograms that count records, all others measure seconds.
pub const RECORDS_HISTOGRAMS: [&str; 1] = [WAL_BATCH_RECORDS];

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The kinds of operations, as labels name them.
const KINDS: [&str; 5] = ["get", "put", "delete", "siblings", "keys"];

/// How an operation ended, as labels name it.
const OUTCOMES: [&str; 5] = ["ok", "refused", "quorum", "overloaded", "error"];

/// The handles of one core.
#[expect(missing_docs, reason = "each field's help stands in the table above")]
pub struct CoreMetrics {
    operations: [[Counter; OUTCOMES.len()]; KINDS.len()],
    operation_seconds: [Histogram; KINDS.len()],
    pub wal_syncs: Counter,
    pub wal_records: Counter,
    pub wal_bytes: Counter,
    pub wal_batch_records: Histogram,
    pub wal_sync_seconds: Histogram,
    pub wal_failures: Counter,
    pub wal_behind_bytes: Gauge,
    pub wal_segments: Gauge,
    pub overlay_bytes: Gauge,
    pub overlay_keys: Gauge,
    pub cache_bytes: Gauge,
    pub cache_keys: Gauge,
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    pub cold_reads: Counter,
    pub cold_read_seconds: Histogram,
    pub ingestions: Counter,
    pub ingestion_failures: Counter,
    pub ingestion_seconds: Histogram,
    pub queue_appends: Gauge,
    pub queue_requests: Gauge,
    pub queue_loads: Gauge,
    pub connections: Gauge,
    pub connections_opened: Counter,
    pub connections_dropped: Counter,
    pub frames_refused: Counter,
    core: String,
    recorder: SharedRecorder,
}

/// Where metrics go; shared by all cores, which meet peers at any time.
pub type SharedRecorder = Arc<dyn Recorder + Send + Sync>;

/// What a core counts of one peer.
#[expect(missing_docs, reason = "each field's help stands in the table above")]
pub struct PeerMetrics {
    pub links: Gauge,
    pub links_lost: Counter,
    pub asks: Gauge,
    pub queued_bytes: Gauge,
    pub asks_not_sent: Counter,
    pub round_trip_seconds: Histogram,
}

impl CoreMetrics {
    /// Makes the handles of one core. All of them stand in the exporter's answer from now on, at zero.
    pub fn new(recorder: SharedRecorder, core: CoreId) -> CoreMetrics {
        with_local_recorder(&Arc::clone(&recorder), || CoreMetrics::registered(&core.to_string(), recorder))
    }

    /// Makes the handles of a peer, or finds those that were made before.
    pub fn peer(&self, name: &str) -> PeerMetrics {
        with_local_recorder(&self.recorder, || {
            let (core, peer) = (|| self.core.clone(), || name.to_owned());
            PeerMetrics {
                links: gauge!(PEER_LINKS, "core" => core(), "peer" => peer()),
                links_lost: counter!(PEER_LINKS_LOST, "core" => core(), "peer" => peer()),
                asks: gauge!(PEER_ASKS, "core" => core(), "peer" => peer()),
                queued_bytes: gauge!(PEER_QUEUED_BYTES, "core" => core(), "peer" => peer()),
                asks_not_sent: counter!(PEER_ASKS_NOT_SENT, "core" => core(), "peer" => peer()),
                round_trip_seconds: histogram!(PEER_ROUND_TRIP_SECONDS, "core" => core(), "peer" => peer()),
            }
        })
    }

    fn registered(core: &str, recorder: SharedRecorder) -> CoreMetrics {
        let counter = |name| counter!(name, "core" => core.to_owned());
        let gauge = |name| gauge!(name, "core" => core.to_owned());
        let histogram = |name| histogram!(name, "core" => core.to_owned());
        CoreMetrics {
            operations: KINDS.map(|kind| {
                OUTCOMES.map(
                    |outcome| counter!(OPERATIONS, "core" => core.to_owned(), "kind" => kind, "outcome" => outcome),
                )
            }),
            operation_seconds: KINDS
                .map(|kind| histogram!(OPERATION_SECONDS, "core" => core.to_owned(), "kind" => kind)),
            wal_syncs: counter(WAL_SYNCS),
            wal_records: counter(WAL_RECORDS),
            wal_bytes: counter(WAL_BYTES),
            wal_batch_records: histogram(WAL_BATCH_RECORDS),
            wal_sync_seconds: histogram(WAL_SYNC_SECONDS),
            wal_failures: counter(WAL_FAILURES),
            wal_behind_bytes: gauge(WAL_BEHIND_BYTES),
            wal_segments: gauge(WAL_SEGMENTS),
            overlay_bytes: gauge(OVERLAY_BYTES),
            overlay_keys: gauge(OVERLAY_KEYS),
            cache_bytes: gauge(CACHE_BYTES),
            cache_keys: gauge(CACHE_KEYS),
            cache_hits: counter(CACHE_HITS),
            cache_misses: counter(CACHE_MISSES),
            cold_reads: counter(COLD_READS),
            cold_read_seconds: histogram(COLD_READ_SECONDS),
            ingestions: counter(INGESTIONS),
            ingestion_failures: counter(INGESTION_FAILURES),
            ingestion_seconds: histogram(INGESTION_SECONDS),
            queue_appends: gauge(QUEUE_APPENDS),
            queue_requests: gauge(QUEUE_REQUESTS),
            queue_loads: gauge(QUEUE_LOADS),
            connections: gauge(CONNECTIONS),
            connections_opened: counter(CONNECTIONS_OPENED),
            connections_dropped: counter(CONNECTIONS_DROPPED),
            frames_refused: counter(FRAMES_REFUSED),
            core: core.to_owned(),
            recorder,
        }
    }

    /// Counts a request that ended. Failures are counted and not timed: they must never look like a fast success.
    pub fn operation(&self, kind: OperationKind, outcome: &Outcome, took: Duration) {
        self.operations[kind.0][outcome_label(outcome)].increment(1);
        if outcome.is_ok() {
            self.operation_seconds[kind.0].record(took);
        }
    }
}

/// What kind of operation a request is; kept beside a request under way, when the request itself is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationKind(usize);

impl OperationKind {
    /// The kind of a request.
    pub fn of(request: &Request) -> OperationKind {
        OperationKind(match request {
            Request::Get(_) => 0,
            Request::Put(_) => 1,
            Request::Delete(_) => 2,
            Request::Siblings(_) => 3,
            Request::Keys(_) => 4,
        })
    }

    /// Whether it may change what is stored.
    pub fn is_write(self) -> bool {
        matches!(self.0, 1 | 2)
    }
}

/// An index into [`OUTCOMES`]: done; the client's fault; too few copies; no room; ours.
fn outcome_label(outcome: &Outcome) -> usize {
    match outcome {
        Ok(_) => 0,
        Err(
            Failure::Malformed { .. }
            | Failure::Length(_)
            | Failure::Context(_)
            | Failure::SetLimit(_)
            | Failure::OperationReused
            | Failure::QuorumImpossible { .. }
            | Failure::ReplyTooLarge { .. }
            | Failure::Unauthorized
            | Failure::Version { .. },
        ) => 1,
        Err(Failure::QuorumNotMet { .. }) => 2,
        Err(Failure::Overloaded { .. } | Failure::Connections { .. }) => 3,
        Err(
            Failure::DiskFull
            | Failure::WritesStopped { .. }
            | Failure::Unreadable { .. }
            | Failure::Stopping
            | Failure::Other { .. },
        ) => 4,
    }
}

/// Tells the recorder what every metric of a core means.
pub fn describe(recorder: &dyn Recorder) {
    for (name, kind, help) in TABLE {
        match kind {
            Kind::Counter => recorder.describe_counter(name.into(), None, help.into()),
            Kind::Gauge => recorder.describe_gauge(name.into(), None, help.into()),
            Kind::Histogram => recorder.describe_histogram(name.into(), None, help.into()),
        }
    }
}
