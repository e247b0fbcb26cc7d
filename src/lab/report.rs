//! What a run came to, for people and for machines.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Map, Value as Json, json};

use super::tally::Tally;
use super::workload::Kind;

/// Latencies of one kind of operation, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Operations.
    pub count: u64,
    /// Half of them took at most this.
    pub p50_us: f64,
    /// 95 of 100.
    pub p95_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1,000.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

impl Latency {
    /// Of latencies in nanoseconds.
    pub fn of(nanos: &Histogram<u64>) -> Latency {
        let micros = |nanos: u64| nanos as f64 / 1_000.0;
        let at = |quantile| micros(nanos.value_at_quantile(quantile));
        Latency {
            count: nanos.len(),
            p50_us: at(0.5),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(nanos.max()),
        }
    }

    fn json(&self) -> Json {
        json!({
            "count": self.count,
            "p50_us": self.p50_us,
            "p95_us": self.p95_us,
            "p99_us": self.p99_us,
            "p999_us": self.p999_us,
            "max_us": self.max_us,
        })
    }
}

/// The numbers of a run.
#[derive(Clone, Debug)]
pub struct Report {
    tally: Tally,
}

impl Report {
    /// Of what was counted.
    pub fn new(tally: Tally) -> Report {
        Report { tally }
    }

    /// What was counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Operations a second that were done.
    pub fn throughput(&self) -> f64 {
        let seconds = self.seconds();
        if seconds == 0.0 { 0.0 } else { self.tally.operations() as f64 / seconds }
    }

    /// From the beginning to the last answer.
    pub fn seconds(&self) -> f64 {
        self.tally.elapsed.as_secs_f64()
    }

    /// Rate, operations and time in a few words.
    pub fn headline(&self) -> String {
        let (rate, operations) = (self.throughput(), self.tally.operations());
        format!("{rate:.0} operations/s: {operations} in {:.2} s", self.seconds())
    }

    /// Latencies of each kind of operation that was done.
    pub fn latencies(&self) -> impl Iterator<Item = (Kind, Latency)> {
        let kinds = Kind::ALL.into_iter().map(|kind| (kind, Latency::of(self.tally.latencies(kind))));
        kinds.filter(|(_, latency)| latency.count > 0)
    }

    /// Everything, as one object.
    pub fn json(&self) -> Json {
        let latencies: Map<String, Json> =
            self.latencies().map(|(kind, latency)| (kind.name().to_owned(), latency.json())).collect();
        let failures = self.tally.errors.kinds();
        let failures: Vec<Json> = failures
            .map(|(kind, failures)| json!({ "kind": kind, "count": failures.count, "first": failures.first }))
            .collect();
        json!({
            "operations": self.tally.operations(),
            "errors": self.tally.errors.count(),
            "seconds": self.seconds(),
            "throughput": self.throughput(),
            "hits": self.tally.hits,
            "misses": self.tally.misses,
            "unstarted": self.tally.unstarted,
            "latencies": latencies,
            "failures": failures,
        })
    }

    /// A table for people, a line break at its end.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_table(&mut text);
        text
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let tally = &self.tally;
        writeln!(out, "{}", self.headline())?;
        writeln!(out)?;
        let names = ["count", "p50", "p95", "p99", "p99.9", "max"];
        let [count, p50, p95, p99, p999, max] = names;
        writeln!(out, "{:17} {count:>11} {p50:>9} {p95:>9} {p99:>9} {p999:>9} {max:>9}", "")?;
        for (kind, latency) in self.latencies() {
            let Latency { count, p50_us, p95_us, p99_us, p999_us, max_us } = latency;
            let [p50, p95, p99, p999, max] = [p50_us, p95_us, p99_us, p999_us, max_us].map(time);
            writeln!(out, "{:17} {count:>11} {p50:>9} {p95:>9} {p99:>9} {p999:>9} {max:>9}", kind.name())?;
        }
        if tally.hits + tally.misses > 0 {
            writeln!(out, "\n{} reads found a value, {} found none", tally.hits, tally.misses)?;
        }
        if tally.unstarted > 0 {
            writeln!(out, "\n{} operations were due by the rate and never begun", tally.unstarted)?;
        }
        if tally.errors.count() > 0 {
            writeln!(out, "\n{} errors:", tally.errors.count())?;
        }
        for (kind, failures) in tally.errors.kinds() {
            writeln!(out, "  {} x {kind}, the first: {}", failures.count, failures.first)?;
        }
        Ok(())
    }
}

/// A time for people: three digits and a unit.
fn time(micros: f64) -> String {
    let (number, unit) = match micros {
        less if less < 1_000.0 => (less, "us"),
        less if less < 1_000_000.0 => (less / 1_000.0, "ms"),
        more => (more / 1_000_000.0, "s"),
    };
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.digits$} {unit}")
}
