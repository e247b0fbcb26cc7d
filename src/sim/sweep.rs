//! Many seeds, and what comes of them in sum.

use std::time::Duration;

use super::chance::Chance;
use super::coverage::Coverage;
use super::run::{Options, Report, run};
use super::shape::Scenario;
use super::watch::Broken;
use crate::protocol::planted::{Bug, Planted};

/// What is run with each seed.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// What kind of weather.
    pub scenario: Scenario,
    /// A fault that is planted, and to be found.
    pub bug: Option<Bug>,
}

impl Sweep {
    /// Runs one seed.
    pub fn one(self, seed: u64, traced: bool) -> Report {
        let Sweep { scenario, bug } = self;
        let planted = bug.map_or(Planted::NONE, Planted::bug);
        run(Options { chance: Chance::new(seed), scenario, planted, traced })
    }

    /// Runs one seed after the other until one breaks a promise, or `goes_on` says that it is enough: it is asked
    /// between two seeds.
    pub fn run(self, seeds: impl IntoIterator<Item = u64>, mut goes_on: impl FnMut(&Sums) -> bool) -> Sums {
        let mut sums = Sums::default();
        for seed in seeds {
            if !sums.add(seed, &self.one(seed, false)) || !goes_on(&sums) {
                break;
            }
        }
        sums
    }
}

/// What some seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Seeds that were run.
    pub seeds: u64,
    /// Calls of clients that ended.
    pub calls: u64,
    /// Virtual time.
    pub time: Duration,
    /// What was reached.
    pub coverage: Coverage,
    /// The first seed that broke a promise, and which.
    pub found: Option<(u64, Broken)>,
}

impl Sums {
    /// One more seed. False once a promise was broken.
    pub fn add(&mut self, seed: u64, report: &Report) -> bool {
        self.seeds += 1;
        self.calls += report.calls;
        self.time += report.time;
        self.coverage.add(&report.coverage);
        if self.found.is_none() {
            self.found = report.broken.clone().map(|broken| (seed, broken));
        }
        self.found.is_none()
    }
}
