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

/// Memory of one server.
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

    fn cpu_us(&self) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.cpu_us))
    }

    /// Medians of p50 and p99 over all kinds of operation, in microseconds.
    fn latency_us(&self) -> [Option<f64>; 2] {
        let median = |quantile| {
            let of_rounds = self.rounds.iter().map(|round| round.report.tally().quantile_us(quantile));
            Spread::of(of_rounds).map(|spread| spread.median)
        };
        [median(0.5), median(0.99)]
    }

    /// Errors of all rounds.
    pub fn errors(&self) -> u64 {
        self.rounds.iter().map(|round| round.report.tally().errors.count()).sum()
    }

    fn json(&self, ours: &Entry) -> Json {
        let [p50, p99] = self.latency_us();
        json!({
            "name": self.name,
            "throughput": self.throughput().map(Spread::json),
            "p50_us": p50,
            "p99_us": p99,
            "cpu_us_per_operation": self.cpu_us().map(Spread::json),
            "ratio": ratio(ours, self).map(Spread::json),
            "errors": self.errors(),
            "rounds": self.rounds.iter().map(|round| round.report.json()).collect::<Vec<_>>(),
        })
    }
}

/// How much more we did than they did, round by round.
fn ratio(ours: &Entry, theirs: &Entry) -> Option<Spread> {
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
    let [who, rate, ratio_of, p50, p99, cpu] = ["", "operations/s", "sloop is", "p50 us", "p99 us", "CPU us/op"];
    writeln!(out, "{:14} {:8} {who:6} {rate:>12} {ratio_of:>21} {p50:>9} {p99:>9} {cpu:>10}", "case", "keys")?;
    let number = |number: Option<f64>, digits: usize| number.map_or("-".to_owned(), |one| format!("{one:.digits$}"));
    for Outcome { case, distribution, entries } in outcomes {
        for entry in entries {
            let ratio = if entry.name == entries[0].name { None } else { ratio(&entries[0], entry) };
            let ratio = ratio
                .map_or("".to_owned(), |Spread { median, min, max }| format!("{median:.2} x ({min:.2}..{max:.2})"));
            let rate = number(entry.throughput().map(|spread| spread.median), 0);
            let [p50, p99] = entry.latency_us().map(|latency| number(latency, 0));
            let cpu = number(entry.cpu_us().map(|spread| spread.median), 2);
            let name = entry.name;
            write!(out, "{case:14} {distribution:8} {name:6} {rate:>12} {ratio:>21} {p50:>9} {p99:>9} {cpu:>10}")?;
            writeln!(
                out,
                "{}",
                if entry.errors() > 0 { format!("  {} errors", entry.errors()) } else { "".to_owned() }
            )?;
        }
    }
    for memory in memories {
        let [loaded, end] = memory.per_key();
        writeln!(out, "{}: {loaded:.0} resident bytes a key after the load, {end:.0} at the end", memory.name)?;
    }
    Ok(())
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
        Measured { report: Report::new(tally), cpu_us: Some(operations as f64) }
    }

    fn entry(name: &'static str, rounds: &[u64]) -> Entry {
        Entry { name, rounds: rounds.iter().map(|&operations| measured(operations)).collect() }
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
        assert_eq!(ratio(&ours, &theirs), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        let outcome = Outcome { case: "put-64".to_owned(), distribution: "uniform", entries: vec![ours, theirs] };
        let json = outcome.json();
        assert_eq!(json["entries"][1]["ratio"]["median"], 2.0);
        assert_eq!(json["entries"][1]["throughput"]["median"], 45.0);
        assert_eq!(json["entries"][0]["cpu_us_per_operation"]["max"], 300.0);
        let memory = Memory { name: "redis", keys: 10, resident_bytes: [100, 1_000, 2_000] };
        let table = table(&[outcome], &[memory]);
        assert!(table.contains("2.00 x (1.00..3.00)"), "{table}");
        assert!(table.contains("redis: 100 resident bytes a key after the load, 200 at the end"), "{table}");
    }
}
