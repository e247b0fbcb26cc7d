//! What was counted and timed.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::workload::Kind;

/// Three digits of every latency up to this count; a longer one counts as this one.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// Shorter differences than about this are not told apart.
const LATENCY_UNIT: Duration = Duration::from_nanos(64);

/// What one thread, or all of them together, counted.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Latencies of the operations that were done, in nanoseconds, in the order of [`Kind::ALL`].
    latencies: [Histogram<u64>; Kind::ALL.len()],
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// What failed.
    pub errors: Errors,
    /// Operations that were due and not begun before the end: only with a rate that the server cannot follow.
    pub unstarted: u64,
    /// From the beginning to the last answer.
    pub elapsed: Duration,
}

/// Failures by kind. A dialect knows all its kinds beforehand, which bounds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    kinds: BTreeMap<&'static str, Failures>,
}

/// The failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What the first one said.
    pub first: String,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        let nanos = |time: Duration| time.as_nanos() as u64;
        let histogram = || Histogram::new_with_bounds(nanos(LATENCY_UNIT), nanos(LATENCY_MAX), 3);
        let latencies = std::array::from_fn(|_| histogram().expect("bounds that are in order"));
        Tally { latencies, hits: 0, misses: 0, errors: Errors::default(), unstarted: 0, elapsed: Duration::ZERO }
    }

    /// Counts an operation that was done.
    pub fn done(&mut self, kind: Kind, latency: Duration) {
        self.latencies[kind as usize].saturating_record(latency.as_nanos() as u64);
    }

    /// Latencies of one kind, in nanoseconds.
    pub fn latencies(&self, kind: Kind) -> &Histogram<u64> {
        &self.latencies[kind as usize]
    }

    /// The latency that this part of all operations, whatever their kind, did not pass, in microseconds.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        let mut all = self.latencies[0].clone();
        self.latencies[1..].iter().for_each(|more| all.add(more).expect("the same bounds"));
        all.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// Operations that were done.
    pub fn operations(&self) -> u64 {
        self.latencies.iter().map(Histogram::len).sum()
    }

    /// Adds what another thread counted over the same time.
    pub fn merge(&mut self, other: &Tally) {
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.add(theirs).expect("the same bounds");
        }
        self.hits += other.hits;
        self.misses += other.misses;
        self.unstarted += other.unstarted;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.errors.merge(&other.errors);
    }
}

impl Default for Tally {
    fn default() -> Tally {
        Tally::new()
    }
}

impl Errors {
    /// Counts `count` failures of a kind.
    pub fn add(&mut self, kind: &'static str, count: u64, message: &str) {
        let failures = self.kinds.entry(kind).or_insert_with(|| Failures { count: 0, first: message.to_owned() });
        failures.count += count;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.kinds.values().map(|failures| failures.count).sum()
    }

    /// Each kind, in the order of their names.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &Failures)> {
        self.kinds.iter().map(|(kind, failures)| (*kind, failures))
    }

    fn merge(&mut self, other: &Errors) {
        for (kind, failures) in other.kinds() {
            self.add(kind, failures.count, &failures.first);
        }
    }
}
