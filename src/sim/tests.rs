//! Whole clusters under everything at once.

use super::coverage::{Coverage, Kind};
use super::shape::Scenario;
use super::sweep::Sweep;
use crate::protocol::planted::Bug;

fn sweep(scenario: Scenario) -> Sweep {
    Sweep { scenario, bug: None }
}

#[test]
fn a_calm_cluster_does_all_that_is_asked() {
    let sums = sweep(Scenario::Calm).run(0..3, |_| true);
    assert_eq!((sums.seeds, sums.found), (3, None));
}

/// The first seeds of each kind of weather. `.ci/run` draws fresh ones.
#[test]
fn no_promise_is_broken_in_any_scenario() {
    for scenario in Scenario::ALL {
        let sums = sweep(*scenario).run(0..8, |_| true);
        assert_eq!((sums.seeds, sums.found), (8, None), "{}", scenario.name());
    }
}

#[test]
fn a_seed_repeats_to_the_byte_in_every_scenario() {
    for scenario in Scenario::ALL {
        let [one, other] = [7, 7].map(|seed| sweep(*scenario).one(seed, true));
        assert!(one.trace.lines() == other.trace.lines(), "{}", scenario.name());
        let [one, other] =
            [one, other].map(|report| format!("{:?}", (report.trace.digest(), report.broken, report.coverage)));
        assert_eq!(one, other, "{}", scenario.name());
    }
}

#[test]
fn the_document_names_every_scenario_fault_and_mutant() {
    let text = include_str!("../../docs/SIMULATION.md");
    let scenarios = Scenario::ALL.iter().map(|scenario| format!("| `{}` |", scenario.name()));
    let faults =
        Coverage::default().of(Kind::Fault).map(|(fault, _)| format!("| {} |", fault.name())).collect::<Vec<_>>();
    let mutants = Bug::ALL.iter().map(|bug| format!("| `{}` | {} |", bug.name(), bug.about()));
    let missing: Vec<String> = scenarios.chain(faults).chain(mutants).filter(|row| !text.contains(row)).collect();
    assert!(missing.is_empty(), "docs/SIMULATION.md lacks {missing:#?}");
}

/// Those that the first seeds find: `.ci/run` looks for every one, in 500 seeds at most.
#[test]
fn planted_faults_are_found_within_a_few_seeds() {
    const FEW: u64 = 4;
    let plain = [
        Bug::AckBeforeSync,
        Bug::RepairMints,
        Bug::LoneVersion,
        Bug::FirstSegment,
        Bug::HintForgotten,
        Bug::CountedHintDropped,
        Bug::FallbackTwice,
        Bug::SiblingDropped,
        Bug::EndlessForward,
        Bug::ForeignContext,
        Bug::LeafTwice,
    ];
    for bug in plain {
        let sweep = Sweep { scenario: Scenario::Default, bug: Some(bug) };
        let sums = sweep.run(0..FEW, |_| true);
        assert!(sums.found.is_some(), "{} is not found within {FEW} seeds", bug.name());
    }
}
