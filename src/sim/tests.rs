//! Whole clusters under everything at once.

use super::{Chance, Options, Scenario, run};
use crate::protocol::planted::Planted;

fn seed(seed: u64, scenario: Scenario) -> super::Report {
    run(Options { chance: Chance::new(seed), scenario, planted: Planted::NONE, traced: false })
}

#[test]
fn a_calm_cluster_does_all_that_is_asked() {
    for n in 0..3 {
        let report = seed(n, Scenario::Calm);
        assert_eq!(report.broken, None, "seed {n}");
    }
}
