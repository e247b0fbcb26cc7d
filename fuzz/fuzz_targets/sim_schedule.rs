//! A small cluster whose chance is what bytes say: sizes and rates first, then what happens when. Every promise is held
//! against it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sloop::protocol::planted::Planted;
use sloop::sim::{Chance, Options, Scenario, run};

fuzz_target!(|bytes: &[u8]| {
    let chance = Chance::scripted(bytes);
    let report = run(Options { chance, scenario: Scenario::Small, planted: Planted::NONE, traced: false });
    assert_eq!(report.broken, None);
});
