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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 1 to 1,000 us of gets, one put of 2 s, in 4 s.
    fn tally() -> Tally {
        let mut tally = Tally::new();
        (1..=1_000).for_each(|micros| tally.done(Kind::Get, Duration::from_micros(micros)));
        tally.done(Kind::Put, Duration::from_secs(2));
        (tally.hits, tally.misses, tally.elapsed) = (900, 100, Duration::from_secs(4));
        tally
    }

    fn is_near(found: f64, expected: f64) -> bool {
        (found / expected - 1.0).abs() < 0.002
    }

    #[test]
    fn latencies_keep_three_digits() {
        let latency = Latency::of(tally().latencies(Kind::Get));
        let Latency { count, p50_us, p95_us, p99_us, p999_us, max_us } = latency;
        assert_eq!(count, 1_000);
        let pairs = [(p50_us, 500.0), (p95_us, 950.0), (p99_us, 990.0), (p999_us, 999.0), (max_us, 1_000.0)];
        assert!(pairs.iter().all(|&(found, expected)| is_near(found, expected)), "{latency:?}");
        assert!(is_near(tally().quantile_us(0.5), 501.0) && is_near(tally().quantile_us(1.0), 2e6));
    }

    #[test]
    fn a_latency_beyond_all_bounds_counts_as_the_longest() {
        let mut tally = Tally::new();
        tally.done(Kind::Put, Duration::from_secs(86_400));
        tally.done(Kind::Put, Duration::ZERO);
        let latency = Latency::of(tally.latencies(Kind::Put));
        assert!(latency.count == 2 && is_near(latency.max_us, 600e6), "{latency:?}");
    }

    #[test]
    fn threads_add_up() {
        let mut whole = tally();
        let mut other = tally();
        (other.elapsed, other.unstarted) = (Duration::from_secs(5), 3);
        other.errors.add("overloaded", 2, "later");
        whole.errors.add("overloaded", 1, "first");
        whole.errors.add("disk full", 1, "no room");
        whole.merge(&other);
        assert_eq!((whole.operations(), whole.hits, whole.misses, whole.unstarted), (2_002, 1_800, 200, 3));
        assert_eq!(whole.elapsed, Duration::from_secs(5));
        let kinds: Vec<_> = whole.errors.kinds().map(|(kind, all)| (kind, all.count, all.first.as_str())).collect();
        assert_eq!(kinds, [("disk full", 1, "no room"), ("overloaded", 3, "first")]);
    }

    #[test]
    fn a_report_says_it_to_machines_and_to_people() {
        let mut tally = tally();
        tally.errors.add("overloaded", 2, "later");
        tally.unstarted = 7;
        let report = Report::new(tally);
        let json = report.json();
        assert_eq!((&json["operations"], &json["errors"], &json["hits"]), (&json!(1_001), &json!(2), &json!(900)));
        assert_eq!((&json["seconds"], &json["throughput"]), (&json!(4.0), &json!(250.25)));
        assert_eq!((&json["latencies"]["put"]["count"], &json["latencies"]["insert"]), (&json!(1), &Json::Null));
        assert_eq!(json["failures"], json!([{ "kind": "overloaded", "count": 2, "first": "later" }]));
        let table = report.table();
        for part in ["250 operations/s: 1001 in 4.00 s", "500 us", "2.00 s", "900 reads found", "7 operations were due"]
        {
            assert!(table.contains(part), "{part:?} is not in {table}");
        }
        assert!(table.contains("2 x overloaded, the first: later"), "{table}");
    }

    #[test]
    fn nothing_done_is_no_throughput() {
        let report = Report::new(Tally::new());
        assert_eq!((report.throughput(), report.latencies().count()), (0.0, 0));
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let shown = [0.5, 9.99, 54.3, 999.0, 1_500.0, 12_345.0, 2_000_000.0].map(time);
        assert_eq!(shown, ["0.50 us", "9.99 us", "54.3 us", "999 us", "1.50 ms", "12.3 ms", "2.00 s"]);
    }
}
