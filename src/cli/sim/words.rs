//! How far it is, what it came to, and what was found.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value as Json, json};

use super::Failed;
use super::pool::{self, Work};
use crate::protocol::planted::Bug;
use crate::sim::coverage::{Kind, Reach};
use crate::sim::{Broken, Coverage, Report, Scenario, Sums};

/// So many lines of a key are shown of what led to a failure.
const EVENTS: usize = 40;

/// The clock of whoever waits for a rehearsal.
#[expect(clippy::disallowed_methods, reason = "a command tells people how long it took")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Says something to people who wait. Nobody is left to be told when this fails.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// When it began, by two clocks.
pub(super) struct Figures {
    begun: Instant,
    busy: Duration,
}

/// How long it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    wall: f64,
    /// Of all threads together.
    cpu: f64,
}

impl Figures {
    pub(super) fn begin() -> Figures {
        Figures { begun: now(), busy: busy() }
    }

    pub(super) fn taken(&self) -> Taken {
        let (wall, cpu) = (now().duration_since(self.begun), busy().saturating_sub(self.busy));
        Taken { wall: wall.as_secs_f64().max(1e-9), cpu: cpu.as_secs_f64().max(1e-9) }
    }
}

/// CPU time of this process.
fn busy() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// Every few seconds.
pub(super) fn progress(sums: &Sums, taken: Taken) -> String {
    let outcomes = listed(outcomes(&sums.coverage));
    format!(
        "{}\n  operations {}: {outcomes}\n  faults {}: {}",
        headline(sums, taken),
        sums.calls,
        sums.coverage.faults(),
        listed(sums.coverage.of(Kind::Fault))
    )
}

/// At the end.
pub(super) fn summary(work: &Work, sums: &Sums, taken: Taken) -> String {
    let coverage = &sums.coverage;
    let mut text = format!("{}: {}\n", what(work), headline(sums, taken));
    let rate = |count: u64| count as f64 / taken.cpu;
    let _ = writeln!(text, "operations {}, {:.0} a second of CPU time", sums.calls, rate(sums.calls));
    rows(&mut text, outcomes(coverage));
    let faults = coverage.faults();
    let _ = writeln!(text, "faults {faults}, {:.0} a second of CPU time", rate(faults));
    rows(&mut text, coverage.of(Kind::Fault));
    let never: Vec<String> = coverage.never().map(|reach| format!("  {}\n", long(reach))).collect();
    if !never.is_empty() {
        let _ = write!(text, "never reached\n{}", never.concat());
    }
    text
}

/// Everything at once, for machines.
pub(super) fn json(work: &Work, sums: &Sums, taken: Taken, found: Option<&Found>) -> Json {
    let coverage = &sums.coverage;
    json!({
        "scenario": work.sweep.scenario.name(),
        "mutant": work.sweep.bug.map(Bug::name),
        "from": work.from,
        "seeds": sums.seeds,
        "seconds": taken.wall,
        "cpuSeconds": taken.cpu,
        "virtualSeconds": sums.time.as_secs_f64(),
        "seedsPerSecond": sums.seeds as f64 / taken.wall,
        "virtualPerReal": sums.time.as_secs_f64() / taken.wall,
        "operations": sums.calls,
        "operationsPerCpuSecond": sums.calls as f64 / taken.cpu,
        "faults": coverage.faults(),
        "faultsPerCpuSecond": coverage.faults() as f64 / taken.cpu,
        "reached": Reach::ALL.iter().map(|reach| (long(*reach), json!(coverage.count(*reach)))).collect::<Map<_, _>>(),
        "never": coverage.never().map(long).collect::<Vec<_>>(),
        "violation": found.map(Found::json),
    })
}

fn what(work: &Work) -> String {
    let planted = work.sweep.bug.map_or(String::new(), |bug| format!(" with {}", bug.name()));
    format!("{} from seed {}{planted}", work.sweep.scenario.name(), work.from)
}

fn headline(sums: &Sums, taken: Taken) -> String {
    let simulated = sums.time.as_secs_f64();
    format!(
        "{} seeds in {:.1} s, {:.1} a second; {:.1} min of virtual time, {:.0} times as fast",
        sums.seeds,
        taken.wall,
        sums.seeds as f64 / taken.wall,
        simulated / 60.0,
        simulated / taken.wall
    )
}

fn outcomes(coverage: &Coverage) -> impl Iterator<Item = (Reach, u64)> {
    coverage.of(Kind::Reply).chain(coverage.of(Kind::Failure))
}

fn listed(counts: impl Iterator<Item = (Reach, u64)>) -> String {
    let some = counts.filter(|(_, count)| 0 < *count);
    some.map(|(reach, count)| format!("{} {count}", reach.name())).collect::<Vec<_>>().join(", ")
}

fn rows(text: &mut String, counts: impl Iterator<Item = (Reach, u64)>) {
    for (reach, count) in counts {
        let _ = writeln!(text, "  {:36}{count:>10}", reach.name());
    }
}

/// A name that stands for itself.
fn long(reach: Reach) -> String {
    format!("{}: {}", format!("{:?}", reach.kind()).to_lowercase(), reach.name())
}

/// A promise that was broken, and what led to it.
pub(super) struct Found {
    seed: u64,
    broken: Broken,
    events: Vec<String>,
    repeat: String,
}

impl Found {
    /// Runs the seed once more to see what led to it.
    pub(super) fn again(work: &Work, seed: u64) -> Result<Found, Failed> {
        let report = pool::one(work, seed)?;
        Found::of(work, seed, &report)
            .ok_or_else(|| Failed::refused(format!("seed {seed} broke a promise and does not when it is run again")))
    }

    /// What a run with its trace has found.
    pub(super) fn of(work: &Work, seed: u64, report: &Report) -> Option<Found> {
        let broken = report.broken.clone()?;
        let events = report.trace.about(&report.names, EVENTS).into_iter().map(str::to_owned).collect();
        let mut repeat = format!("sloop sim --seed {seed}");
        if work.sweep.scenario != Scenario::Default {
            let _ = write!(repeat, " --scenario {}", work.sweep.scenario.name());
        }
        if let Some(bug) = work.sweep.bug {
            let _ = write!(repeat, " --mutant {}", bug.name());
        }
        Some(Found { seed, broken, events, repeat: format!("{repeat} --trace") })
    }

    /// In one line.
    pub(super) fn headline(&self) -> String {
        format!("seed {} breaks {}", self.seed, self.broken.invariant)
    }

    pub(super) fn text(&self) -> String {
        let Found { broken, events, repeat, .. } = self;
        let mut text = format!("\n{} ({}) at {} s of virtual time", self.headline(), broken.source, seconds(broken));
        if let Some(key) = &broken.key {
            let _ = write!(text, ", key {key}");
        }
        let _ = write!(text, "\n  {}\n\nwhat led to it\n", broken.what);
        events.iter().for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
        let _ = writeln!(text, "\nall of it: {repeat}");
        text
    }

    fn json(&self) -> Json {
        let Found { seed, broken, events, repeat } = self;
        json!({
            "seed": seed,
            "invariant": broken.invariant,
            "source": broken.source,
            "what": broken.what,
            "key": broken.key.as_ref().map(ToString::to_string),
            "virtualMicros": broken.at.0,
            "events": events,
            "repeat": repeat,
        })
    }
}

/// As a trace has it.
fn seconds(broken: &Broken) -> String {
    format!("{}.{:06}", broken.at.0 / 1_000_000, broken.at.0 % 1_000_000)
}
