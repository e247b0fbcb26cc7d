//! `sloop sim`: rehearses whole clusters on virtual time, seed by seed (docs/SIMULATION.md).

mod options;
mod mutants;
mod pool;
mod words;

use std::ops::ControlFlow;

use argh::FromArgs;

use self::options::{Mutants, Setup};
use self::pool::Work;
use self::words::Figures;
use super::{Failed, Said, say};
use crate::sim::Sums;

/// Rehearse whole clusters in this process, on virtual time, with all faults that a seed will have, and judge them.
/// Without options: 100 seeds, the first of them drawn.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "sim", help_triggers("-h", "--help"))]
pub struct Sim {
    /// this seed alone
    #[argh(option)]
    seed: Option<u64>,
    /// so many seeds (100, or 500 for each mutant of all)
    #[argh(option)]
    seeds: Option<u64>,
    /// the first of them (drawn)
    #[argh(option)]
    from: Option<u64>,
    /// as many seeds as there is time for, instead of --seeds
    #[argh(option)]
    minutes: Option<f64>,
    /// default, five, calm, network, disks, processes, changes, deletes or small (default)
    #[argh(option)]
    scenario: Option<String>,
    /// plant this fault, which is to be found; list shows all of them, all tries each and prints a table
    #[argh(option)]
    mutant: Option<String>,
    /// seeds at a time (one for each CPU)
    #[argh(option)]
    threads: Option<usize>,
    /// print everything that happens, for one --seed
    #[argh(switch)]
    trace: bool,
    /// print the digest of each seed's trace
    #[argh(switch)]
    digest: bool,
    /// print one JSON object
    #[argh(switch)]
    json: bool,
}

impl Sim {
    /// Rehearses and tells.
    ///
    /// # Errors
    /// [`Failed`] when a promise was broken, when a mutant of all was not found, or when it cannot be meant like that.
    pub fn run(self) -> Result<Said, Failed> {
        let setup = self.setup()?;
        pool::keep_panics();
        match setup.mutants {
            Mutants::List => Ok(mutants::list()),
            Mutants::All => mutants::table(&setup, self.json),
            Mutants::One(bug) => {
                let work = setup.work(bug);
                if self.trace { trace(&work) } else { self.sweep(&setup, &work) }
            }
        }
    }

    fn sweep(&self, setup: &Setup, work: &Work) -> Result<Said, Failed> {
        if setup.is_drawn {
            words::note(&format!("the first seed is {}", work.from));
        }
        let mut sums = Sums::default();
        let figures = Figures::begin();
        let mut digests = Said::default();
        pool::run(work, |heard| {
            let Some((seed, report)) = heard else {
                words::note(&words::progress(&sums, figures.taken()));
                return ControlFlow::Continue(());
            };
            if self.digest {
                digests.line(&format!("{seed} {:016x}", report.trace.digest()));
            }
            if sums.add(seed, &report) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let taken = figures.taken();
        let found = sums.found.as_ref().map(|(seed, _)| words::Found::again(work, *seed)).transpose()?;
        let mut said = digests;
        match (self.json, self.digest) {
            (true, _) => said.line(&words::json(work, &sums, taken, found.as_ref()).to_string()),
            (false, true) => found.iter().for_each(|found| said.bytes(found.text().as_bytes())),
            (false, false) => {
                said.bytes(words::summary(work, &sums, taken).as_bytes());
                found.iter().for_each(|found| said.bytes(found.text().as_bytes()));
            }
        }
        end(said, found.map(|found| found.headline()))
    }
}

/// Nothing in it differs between two runs.
fn trace(work: &Work) -> Result<Said, Failed> {
    let report = pool::one(work, work.from)?;
    let mut said = Said::default();
    report.trace.lines().iter().for_each(|line| said.line(line));
    said.line(&format!("digest {:016x}", report.trace.digest()));
    let found = words::Found::of(work, work.from, &report);
    found.iter().for_each(|found| said.bytes(found.text().as_bytes()));
    end(said, found.map(|found| found.headline()))
}

/// Says all, and fails where there is something wrong.
fn end(said: Said, wrong: Option<String>) -> Result<Said, Failed> {
    let Some(wrong) = wrong else { return Ok(said) };
    say(&said.0)?;
    Err(Failed::refused(wrong))
}
