//! `sloop check`: judges a history that was recorded of a real cluster.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use argh::FromArgs;
use serde_json::{Value as Json, json};

use super::{Failed, Said, say};
use crate::verify::cluster::{Violation, judge};
use crate::verify::{History, file};

/// Violations that are told; the rest is counted.
const TOLD_MAX: usize = 20;

/// Judge a history: what clients asked of a cluster and were told, as bench --history records it. Exit code 0 when no
/// promise was broken, 1 when some were, 2 when there is no such history.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check", help_triggers("-h", "--help"))]
pub struct Check {
    /// file, or - for standard input
    #[argh(positional)]
    history: String,
    /// print one JSON object
    #[argh(switch)]
    json: bool,
}

impl Check {
    /// Reads, judges and tells.
    ///
    /// # Errors
    /// [`Failed`] when promises were broken, or when it cannot be read.
    pub fn run(self) -> Result<Said, Failed> {
        let history = self.read()?;
        let violations = judge(&history);
        let mut said = Said::default();
        if self.json {
            said.line(&as_json(&history, &violations).to_string());
        } else {
            said.line(&totals(&history));
            let told = violations.iter().take(TOLD_MAX);
            told.for_each(|violation| tell(&mut said, &history, violation));
        }
        let count = violations.len();
        if count == 0 {
            return Ok(said);
        }
        say(&said.0)?;
        let rest =
            if count > TOLD_MAX && !self.json { format!(", {TOLD_MAX} of which are told") } else { String::new() };
        Err(Failed::refused(format!("{} broken{rest}", counted(count, "promise"))))
    }

    fn read(&self) -> Result<History, Failed> {
        let (name, from): (&str, Box<dyn BufRead>) = match self.history.as_str() {
            "-" => ("standard input", Box::new(io::stdin().lock())),
            path => {
                let file = File::open(path).map_err(|error| Failed::wrong_use(format!("{path}: {error}")))?;
                (path, Box::new(BufReader::new(file)))
            }
        };
        file::read(name, from).map_err(Failed::wrong_use)
    }
}

fn totals(history: &History) -> String {
    let counts = history.outcomes();
    let (operations, _) = history.totals();
    let operations = counted(operations, "operation");
    let keys = counted(history.keys().count(), "key");
    let crate::verify::history::Outcomes { written, shown, refused, unknown } = counts;
    let rests = match history.rests().len() {
        0 => String::new(),
        count => format!(", at rest {}", counted(count, "time")),
    };
    format!(
        "{operations} on {keys}: {written} written, {shown} shown, {refused} refused, {unknown} without a reply{rests}"
    )
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn tell(said: &mut Said, history: &History, violation: &Violation) {
    said.line(&format!("{}: {violation}", violation.promise.name()));
    violation.operations(history).into_iter().for_each(|operation| said.line(&format!("  {operation}")));
}

fn as_json(history: &History, violations: &[Violation]) -> Json {
    let counts = history.outcomes();
    let violation = |violation: &Violation| {
        let operations = violation.operations(history);
        json!({
            "promise": violation.promise.name(),
            "key": violation.key.to_string(),
            "what": violation.what,
            "operations": operations.into_iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    };
    json!({
        "operations": history.totals().0,
        "keys": history.keys().count(),
        "outcomes": {
            "written": counts.written,
            "shown": counts.shown,
            "refused": counts.refused,
            "unknown": counts.unknown,
        },
        "rests": history.rests().len(),
        "violations": violations.iter().map(violation).collect::<Vec<_>>(),
    })
}
