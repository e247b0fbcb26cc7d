//! The planted faults: their list, and whether each is found.

use std::ops::ControlFlow;

use serde_json::{Value as Json, json};

use super::options::Setup;
use super::{Failed, Said, end, pool, say, words};
use crate::protocol::planted::Bug;
use crate::sim::Broken;

/// All names, and what is wrong.
pub(super) fn list() -> Said {
    let mut said = Said::default();
    let width = Bug::ALL.iter().map(|bug| bug.name().len()).max().unwrap_or(0);
    Bug::ALL.iter().for_each(|bug| said.line(&format!("{:width$}  {}", bug.name(), bug.about())));
    said
}

/// Plants one after the other, and prints the table of docs/SIMULATION.md line by line.
pub(super) fn table(setup: &Setup, is_json: bool) -> Result<Said, Failed> {
    let mut rows = Vec::new();
    if !is_json {
        say(head(setup).as_bytes())?;
    }
    for bug in Bug::ALL {
        let row = Row::try_it(setup, *bug)?;
        if !is_json {
            say(row.text().as_bytes())?;
        }
        rows.push(row);
    }
    let mut said = Said::default();
    if is_json {
        let all: Vec<Json> = rows.iter().map(Row::json).collect();
        said.line(&json!({ "scenario": setup.scenario.name(), "from": setup.from, "mutants": all }).to_string());
    }
    let missed: Vec<&str> = rows.iter().filter(|row| row.found.is_none()).map(|row| row.bug.name()).collect();
    let wrong = (!missed.is_empty()).then(|| format!("{} are not found: {}", missed.len(), missed.join(", ")));
    end(said, wrong)
}

fn head(setup: &Setup) -> String {
    format!(
        "Scenario {}, seeds from {}.\n\n\
         | Mutant | What is wrong | Found by | Seeds | The last of them |\n|---|---|---|---|---|\n",
        setup.scenario.name(),
        setup.from
    )
}

/// What became of one.
struct Row {
    bug: Bug,
    seeds: u64,
    found: Option<(u64, Broken)>,
}

impl Row {
    fn try_it(setup: &Setup, bug: Bug) -> Result<Row, Failed> {
        let mut row = Row { bug, seeds: 0, found: None };
        pool::run(&setup.work(Some(bug)), |heard| {
            let Some((seed, report)) = heard else {
                words::note(&format!("{}: not found in {} seeds so far", bug.name(), row.seeds));
                return ControlFlow::Continue(());
            };
            row.seeds += 1;
            row.found = report.broken.map(|broken| (seed, broken));
            if row.found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(row)
    }

    fn text(&self) -> String {
        let Row { bug, seeds, found } = self;
        let (by, seed) = match found {
            Some((seed, broken)) => (broken.invariant, seed.to_string()),
            None => ("**nothing**", "-".to_owned()),
        };
        format!("| `{}` | {} | {by} | {seeds} | {seed} |\n", bug.name(), bug.about())
    }

    fn json(&self) -> Json {
        let found = self.found.as_ref();
        json!({
            "mutant": self.bug.name(),
            "about": self.bug.about(),
            "seeds": self.seeds,
            "invariant": found.map(|(_, broken)| broken.invariant),
            "what": found.map(|(_, broken)| &broken.what),
            "seed": found.map(|(seed, _)| seed),
        })
    }
}
