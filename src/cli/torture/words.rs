//! What came of a torture, for people and for machines.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::lab::torture::{Plan, Report, Tally};

/// Violations that are shown; all of them stand in the folder.
const SHOWN_MAX: usize = 10;

/// For people, some lines.
pub(super) fn summary(report: &Report) -> String {
    let Report { faults, delayed, rests, tally, took, .. } = report;
    let violations = report.complaints();
    let Tally { reads, writes, failed, unknown, slowest, .. } = tally;
    let mut words = format!("{:.0} s\n", took.as_secs_f64());
    for (kind, count) in faults {
        words += &format!("  {kind:<14} {count:>6}\n");
    }
    words += &format!("  {:<14} {delayed:>6}\n", "late messages");
    words += &format!(
        "{} operations: {reads} reads, {writes} writes, {failed} failed, {unknown} unknown; slowest {:.1} s\n",
        tally.calls(),
        slowest.as_secs_f64()
    );
    words += &format!("at rest {rests} times; {} violations\n", violations.len());
    for violation in violations.iter().take(SHOWN_MAX) {
        words += &format!("  {violation}\n");
    }
    if SHOWN_MAX < violations.len() {
        words += &format!("  and {} more\n", violations.len() - SHOWN_MAX);
    }
    words
}

/// For machines, one object.
pub(super) fn json(plan: &Plan, report: &Report, kept: Option<&Path>) -> Json {
    let Report { faults, delayed, rests, tally, took, .. } = report;
    let violations = report.complaints();
    let Tally { reads, writes, failed, unknown, slowest, .. } = tally;
    json!({
        "seed": plan.seed,
        "nodes": plan.nodes,
        "seconds": took.as_secs_f64(),
        "faults": faults,
        "late_messages": delayed,
        "rests": rests,
        "operations": {"reads": reads, "writes": writes, "failed": failed, "unknown": unknown},
        "slowest_ms": u64::try_from(slowest.as_millis()).unwrap_or(u64::MAX),
        "violations": violations,
        "folder": kept,
    })
}

/// Where to look, and how to do it again.
pub(super) fn broken(plan: &Plan, report: &Report) -> String {
    let Plan { folder, time, nodes, seed, .. } = plan;
    format!(
        "{} violations: logs, faults (torture.log) and the history are in {}; the same faults again: sloop torture \
         --seed {seed} --nodes {nodes} --minutes {}",
        report.complaints().len(),
        folder.display(),
        time.as_secs_f64() / 60.0
    )
}
