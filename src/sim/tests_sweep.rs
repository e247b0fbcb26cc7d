use super::{Chance, Coverage, Options, Scenario, run};
use crate::protocol::planted::{Bug, Planted};
fn env(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or(default.to_owned())
}
#[test]
fn zz_sweep() {
    let (from, seeds): (u64, u64) = (env("FROM", "0").parse().unwrap(), env("SEEDS", "20").parse().unwrap());
    let scenario = *Scenario::ALL.iter().find(|s| s.name() == env("SCENARIO", "default")).unwrap();
    let bug = Bug::ALL.iter().find(|b| b.name() == env("BUG", ""));
    let planted = bug.map_or(Planted::NONE, |b| Planted::bug(*b));
    let traced = env("TRACE", "") != "";
    let mut all = Coverage::default();
    let (mut calls, mut time, begun) = (0, std::time::Duration::ZERO, std::time::Instant::now());
    let stop = env("STOP", "") != "";
    for seed in from..from + seeds {
        let report = std::panic::catch_unwind(|| run(Options { chance: Chance::new(seed), scenario, planted, traced }));
        let Ok(report) = report else {
            println!("seed {seed}: PANIC");
            if stop { break } else { continue }
        };
        for line in report.trace.lines() {
            println!("{line}");
        }
        if let Some(b) = &report.broken {
            println!("seed {seed}: {b:?}");
            if stop {
                break;
            }
        }
        all.add(&report.coverage);
        calls += report.calls;
        time += report.time;
    }
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds {took:.1} s, {:.0} calls/s, {:.0} faults/s, virtual {:.0} s",
        calls as f64 / took,
        all.faults() as f64 / took,
        time.as_secs_f64()
    );
    for reach in super::coverage::Reach::ALL {
        print!("{}={} ", reach.name(), all.count(*reach));
    }
    println!();
}
#[test]
fn zz_mutants() {
    std::panic::set_hook(Box::new(|_| {}));
    let (from, seeds): (u64, u64) = (env("FROM", "0").parse().unwrap(), env("SEEDS", "200").parse().unwrap());
    let only = env("BUG", "");
    for bug in Bug::ALL {
        if !only.is_empty() && !only.split(',').any(|o| o == bug.name()) {
            continue;
        }
        let begun = std::time::Instant::now();
        let mut found = None;
        for seed in from..from + seeds {
            let options = || Options {
                chance: Chance::new(seed),
                scenario: Scenario::Default,
                planted: Planted::bug(*bug),
                traced: false,
            };
            let is = match std::panic::catch_unwind(|| run(options())) {
                Ok(r) => r.broken.map(|b| format!("{}: {}", b.invariant, b.what)),
                Err(e) => Some(format!(
                    "panic {:?}",
                    e.downcast_ref::<String>().cloned().or(e.downcast_ref::<&str>().map(|s| s.to_string()))
                )),
            };
            if let Some(b) = is {
                found = Some((seed - from + 1, b));
                break;
            }
        }
        println!(
            "{:24} {:6.1} s {}",
            bug.name(),
            begun.elapsed().as_secs_f64(),
            found.map_or("NOT FOUND".into(), |(n, b)| format!("{n:4} {}", b.chars().take(150).collect::<String>()))
        );
    }
}
