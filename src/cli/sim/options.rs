//! What a command line comes to.

use std::time::Duration;

use super::pool::{Limit, Work};
use super::{Failed, Sim};
use crate::protocol::planted::Bug;
use crate::sim::{Scenario, Sweep};

const SEEDS: u64 = 100;
const SEEDS_A_MUTANT: u64 = 500;

/// A drawn first seed is below this, so that people can read it to each other.
const DRAWN_BELOW: u64 = 1_000_000_000;

const MINUTES_MAX: f64 = 10_000.0;
const THREADS_MAX: usize = 256;

/// What is planted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mutants {
    /// This fault, or none.
    One(Option<Bug>),
    /// Each in turn.
    All,
    /// They are to be listed.
    List,
}

/// What to run.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) scenario: Scenario,
    pub(super) mutants: Mutants,
    pub(super) from: u64,
    /// Nobody chose the first seed.
    pub(super) is_drawn: bool,
    pub(super) limit: Limit,
    threads: usize,
    is_traced: bool,
}

impl Setup {
    /// The work with this fault.
    pub(super) fn work(&self, bug: Option<Bug>) -> Work {
        let sweep = Sweep { scenario: self.scenario, bug };
        Work { sweep, from: self.from, limit: self.limit, threads: self.threads, is_traced: self.is_traced }
    }
}

impl Sim {
    pub(super) fn setup(&self) -> Result<Setup, Failed> {
        let mutants = self.mutant.as_deref().map_or(Ok(Mutants::One(None)), mutants)?;
        self.check(mutants)?;
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(THREADS_MAX));
        let is_drawn = self.seed.is_none() && self.from.is_none();
        Ok(Setup {
            scenario: self.scenario.as_deref().map_or(Ok(Scenario::Default), scenario)?,
            mutants,
            from: match self.seed.or(self.from) {
                Some(seed) => seed,
                None => getrandom::u64().map_err(Failed::refused)? % DRAWN_BELOW,
            },
            is_drawn,
            limit: self.limit(mutants)?,
            threads: self.threads.unwrap_or(cpus),
            is_traced: self.digest,
        })
    }

    fn limit(&self, mutants: Mutants) -> Result<Limit, Failed> {
        match (self.seed, self.minutes) {
            (Some(_), _) => Ok(Limit::Seeds(1)),
            (None, Some(minutes)) if (0.0..=MINUTES_MAX).contains(&minutes) => {
                Ok(Limit::Time(Duration::from_secs_f64(60.0 * minutes)))
            }
            (None, Some(minutes)) => {
                Err(Failed::wrong_use(format!("--minutes {minutes}: it is from 0 to {MINUTES_MAX}")))
            }
            (None, None) => {
                let usual = if matches!(mutants, Mutants::All) { SEEDS_A_MUTANT } else { SEEDS };
                Ok(Limit::Seeds(self.seeds.unwrap_or(usual)))
            }
        }
    }

    fn check(&self, mutants: Mutants) -> Result<(), Failed> {
        let choices = [
            ("--seed", self.seed.is_some(), "--seeds", self.seeds.is_some()),
            ("--seed", self.seed.is_some(), "--from", self.from.is_some()),
            ("--seed", self.seed.is_some(), "--minutes", self.minutes.is_some()),
            ("--seeds", self.seeds.is_some(), "--minutes", self.minutes.is_some()),
            ("--trace", self.trace, "--json", self.json),
            ("--trace", self.trace, "--digest", self.digest),
            ("--digest", self.digest, "--json", self.json),
            ("--mutant all", matches!(mutants, Mutants::All), "--seed", self.seed.is_some()),
            ("--mutant all", matches!(mutants, Mutants::All), "--minutes", self.minutes.is_some()),
            ("--mutant all", matches!(mutants, Mutants::All), "--digest", self.digest),
        ];
        if let Some((one, _, other, _)) = choices.into_iter().find(|(_, one, _, other)| *one && *other) {
            return Err(Failed::wrong_use(format!("{one} and {other}: choose one")));
        }
        if self.trace && (self.seed.is_none() || matches!(mutants, Mutants::All)) {
            return Err(Failed::wrong_use("--trace is of one seed: name it by --seed"));
        }
        match self.threads {
            Some(threads) if !(1..=THREADS_MAX).contains(&threads) => {
                Err(Failed::wrong_use(format!("--threads {threads}: it is from 1 to {THREADS_MAX}")))
            }
            _ => Ok(()),
        }
    }
}

fn scenario(name: &str) -> Result<Scenario, Failed> {
    let known = Scenario::ALL.iter().find(|scenario| scenario.name() == name);
    known.copied().ok_or_else(|| {
        let names: Vec<&str> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        Failed::wrong_use(format!("--scenario {name}: there are {}", names.join(", ")))
    })
}

fn mutants(name: &str) -> Result<Mutants, Failed> {
    match name {
        "all" => Ok(Mutants::All),
        "list" => Ok(Mutants::List),
        _ => {
            let known = Bug::ALL.iter().find(|bug| bug.name() == name);
            known.map(|bug| Mutants::One(Some(*bug))).ok_or_else(|| {
                let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
                Failed::wrong_use(format!("--mutant {name}: there are list, all, {}", names.join(", ")))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use argh::FromArgs;

    use super::*;

    fn setup(words: &[&str]) -> Result<Setup, Failed> {
        Sim::from_args(&["sloop", "sim"], words).expect("options that there are").setup()
    }

    #[test]
    fn without_options_a_hundred_seeds_are_drawn() {
        let setup = setup(&[]).unwrap();
        assert_eq!((setup.scenario, setup.limit, setup.is_drawn), (Scenario::Default, Limit::Seeds(100), true));
        assert!(setup.from < DRAWN_BELOW && matches!(setup.mutants, Mutants::One(None)));
    }

    #[test]
    fn options_say_which_seeds_and_of_what() {
        let words = ["--from", "7", "--seeds", "9", "--scenario", "changes", "--mutant", "stale-layout"];
        let setup = setup(&words).unwrap();
        assert_eq!((setup.from, setup.limit, setup.is_drawn), (7, Limit::Seeds(9), false));
        assert_eq!(setup.scenario, Scenario::Changes);
        assert!(matches!(setup.mutants, Mutants::One(Some(Bug::StaleLayout))));
    }

    #[test]
    fn each_mutant_of_all_has_five_hundred_seeds() {
        assert_eq!(setup(&["--mutant", "all"]).unwrap().limit, Limit::Seeds(500));
    }

    #[test]
    fn what_cannot_be_meant_is_wrong_use() {
        let cases: [(&[&str], &str); 8] = [
            (&["--scenario", "storm"], "--scenario storm: there are default, five, calm, network"),
            (&["--mutant", "bug"], "--mutant bug: there are list, all, ack-before-sync"),
            (&["--seed", "1", "--seeds", "2"], "--seed and --seeds: choose one"),
            (&["--seeds", "1", "--minutes", "2"], "--seeds and --minutes: choose one"),
            (&["--minutes", "-1"], "--minutes -1: it is from 0 to 10000"),
            (&["--threads", "0"], "--threads 0: it is from 1 to 256"),
            (&["--trace"], "--trace is of one seed"),
            (&["--trace", "--seed", "1", "--json"], "--trace and --json: choose one"),
        ];
        for (words, message) in cases {
            let failed = setup(words).unwrap_err();
            assert!(failed.message.starts_with(message) && failed.code == 2, "{words:?}: {failed:?}");
        }
    }

    #[test]
    fn help_names_every_scenario() {
        let help = Sim::from_args(&["sloop", "sim"], &["--help"]).unwrap_err().output;
        Scenario::ALL.iter().for_each(|scenario| assert!(help.contains(scenario.name()), "{}", scenario.name()));
    }
}
