//! What all rounds come to: medians, ratios, and their spread.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::contest::Measured;

/// The middle of some numbers, and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle; of an even count the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of some numbers; none of none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let (min, max) = (*numbers.first()?, *numbers.last()?);
        let middle = numbers.len() / 2;
        let median = match numbers.len() % 2 {
            1 => numbers[middle],
            _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
        };
        Some(Spread { median, min, max })
    }

    fn json(self) -> Json {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

/// One contestant in one case: a measurement a round.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose.
    pub name: &'static str,
    /// Nodes that it has.
    pub nodes: usize,
    /// In the order of the rounds.
    pub rounds: Vec<Measured>,
}

/// One case under one distribution; the first entry is ours.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case's name.
    pub case: String,
    /// The distribution's name.
    pub distribution: &'static str,
    /// Who took part.
    pub entries: Vec<Entry>,
}

/// Memory of one server, over all its nodes.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Whose.
    pub name: &'static str,
    /// Keys that it holds.
    pub keys: u64,
    /// Resident bytes before any key, after the load, and at the end.
    pub resident_bytes: [u64; 3],
}

impl Entry {
    fn throughput(&self) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(|round| round.report.throughput()))
    }

    fn server_cpu_us(&self) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.server_cpu_us))
    }

    fn generator_cpu_us(&self) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.generator_cpu_us))
    }

    /// Medians of p50 and p99 over all kinds of operation, in microseconds.
    fn latency_us(&self) -> [Option<f64>; 2] {
        let median = |quantile| {
            let of_rounds = self.rounds.iter().map(|round| round.report.tally().quantile_us(quantile));
            Spread::of(of_rounds).map(|spread| spread.median)
        };
        [median(0.5), median(0.99)]
    }

    /// Its name, with the nodes where they are several.
    fn title(&self) -> String {
        if self.nodes == 1 { self.name.to_owned() } else { format!("{} x{}", self.name, self.nodes) }
    }

    /// Errors of all rounds.
    pub fn errors(&self) -> u64 {
        self.rounds.iter().map(|round| round.report.tally().errors.count()).sum()
    }

    fn json(&self, ours: &Entry) -> Json {
        let [p50, p99] = self.latency_us();
        json!({
            "name": self.name,
            "nodes": self.nodes,
            "throughput": self.throughput().map(Spread::json),
            "p50_us": p50,
            "p99_us": p99,
            "server_cpu_us_per_operation": self.server_cpu_us().map(Spread::json),
            "generator_cpu_us_per_operation": self.generator_cpu_us().map(Spread::json),
            "ratio": ratio_of(ours, self).map(Spread::json),
            "errors": self.errors(),
            "rounds": self.rounds.iter().map(|round| round.report.json()).collect::<Vec<_>>(),
        })
    }
}

/// How much more we did than they did, round by round.
fn ratio_of(ours: &Entry, theirs: &Entry) -> Option<Spread> {
    let rounds = ours.rounds.iter().zip(&theirs.rounds);
    Spread::of(rounds.map(|(ours, theirs)| ours.report.throughput() / theirs.report.throughput()))
}

impl Outcome {
    /// As one object.
    pub fn json(&self) -> Json {
        let ours = &self.entries[0];
        let entries: Vec<Json> = self.entries.iter().map(|entry| entry.json(ours)).collect();
        json!({ "case": self.case, "distribution": self.distribution, "entries": entries })
    }
}

impl Memory {
    /// Bytes for each key, after the load and at the end.
    pub fn per_key(&self) -> [f64; 2] {
        let [_, loaded, end] = self.resident_bytes;
        [loaded, end].map(|bytes| bytes as f64 / self.keys as f64)
    }

    /// As one object.
    pub fn json(&self) -> Json {
        let [empty, loaded, end] = self.resident_bytes;
        let [loaded_per_key, end_per_key] = self.per_key();
        json!({
            "name": self.name,
            "resident_bytes": { "empty": empty, "loaded": loaded, "end": end },
            "resident_bytes_per_key": { "loaded": loaded_per_key, "end": end_per_key },
        })
    }
}

/// A table for people.
pub fn table(outcomes: &[Outcome], memories: &[Memory]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_table(&mut text, outcomes, memories);
    text
}

fn write_table(out: &mut String, outcomes: &[Outcome], memories: &[Memory]) -> std::fmt::Result {
    writeln!(
        out,
        "{:12} {:8} {:9} {:>12} {:>21} {:>8} {:>8} {:>14} {:>14}",
        "case", "keys", "", "operations/s", "sloop is", "p50 us", "p99 us", "server us/op", "generator us/op"
    )?;
    for Outcome { case, distribution, entries } in outcomes {
        for entry in entries {
            let ratio = Some(entry).filter(|entry| entry.name != entries[0].name);
            let ratio = ratio.and_then(|entry| ratio_of(&entries[0], entry)).map_or(String::new(), shown_ratio);
            let rate = number(entry.throughput(), 0);
            let [p50, p99] = entry.latency_us().map(|latency| latency.map_or("-".to_owned(), |us| format!("{us:.0}")));
            let [server, generator] = [entry.server_cpu_us(), entry.generator_cpu_us()].map(|cpu| number(cpu, 2));
            let errors = if entry.errors() > 0 { format!("  {} errors", entry.errors()) } else { String::new() };
            write!(out, "{case:12} {distribution:8} {:9} {rate:>12} {ratio:>21} {p50:>8} {p99:>8}", entry.title())?;
            writeln!(out, " {server:>14} {generator:>14}{errors}")?;
        }
    }
    for memory in memories {
        let [loaded, end] = memory.per_key();
        writeln!(out, "{}: {loaded:.0} resident bytes a key after the load, {end:.0} at the end", memory.name)?;
    }
    Ok(())
}

fn shown_ratio(Spread { median, min, max }: Spread) -> String {
    format!("{median:.2} x ({min:.2}..{max:.2})")
}

fn number(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or("-".to_owned(), |spread| format!("{:.digits$}", spread.median))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use std::time::Duration;

    use sloop::lab::report::Report;
    use sloop::lab::tally::Tally;
    use sloop::lab::workload::Kind;

    use super::*;

    fn measured(operations: u64) -> Measured {
        let mut tally = Tally::new();
        (0..operations).for_each(|_| tally.done(Kind::Put, Duration::from_micros(100)));
        tally.elapsed = Duration::from_secs(2);
        Measured { report: Report::new(tally), server_cpu_us: Some(operations as f64), generator_cpu_us: None }
    }

    fn entry(name: &'static str, rounds: &[u64]) -> Entry {
        Entry { name, nodes: 1, rounds: rounds.iter().map(|&operations| measured(operations)).collect() }
    }

    #[test]
    fn a_median_stands_in_the_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let (ours, theirs) = (entry("sloop", &[100, 300, 90]), entry("redis", &[50, 100, 90]));
        assert_eq!(ratio_of(&ours, &theirs), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        let outcome = Outcome { case: "put-64".to_owned(), distribution: "uniform", entries: vec![ours, theirs] };
        let json = outcome.json();
        assert_eq!(json["entries"][1]["ratio"]["median"], 2.0);
        assert_eq!(json["entries"][1]["throughput"]["median"], 45.0);
        assert_eq!(json["entries"][0]["server_cpu_us_per_operation"]["max"], 300.0);
        let memory = Memory { name: "redis", keys: 10, resident_bytes: [100, 1_000, 2_000] };
        let table = table(&[outcome], &[memory]);
        assert!(table.contains("2.00 x (1.00..3.00)"), "{table}");
        assert!(table.contains("redis: 100 resident bytes a key after the load, 200 at the end"), "{table}");
    }
}
