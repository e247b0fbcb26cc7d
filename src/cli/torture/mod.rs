//! `sloop torture`: hurts a cluster of real processes for a while, then judges what its clients were told.

mod folder;
mod words;

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;
use tokio::runtime::Builder;

use self::folder::Folder;
use super::signals::Stop;
use super::{Failed, Said, say};
use crate::lab::torture::{self, NODES_MAX, NODES_MIN, Plan, Report};
use crate::runtime::entropy;

/// Longest torture: a week.
const MINUTES_MAX: f64 = 7.0 * 24.0 * 60.0;

/// Hurt a cluster of real processes and judge what its clients were told: nodes are killed, stopped, paused and cut
/// off, join, leave and lose their disks, while clients write and read. Exit code 0 when every promise was kept, 1 when
/// not.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "torture", help_triggers("-h", "--help"))]
pub struct Torture {
    /// minutes with faults; the end, where all is healed and read, takes some seconds more (1)
    #[argh(option, default = "1.0")]
    minutes: f64,
    /// nodes at first, from 3 to 30 (5)
    #[argh(option, default = "5")]
    nodes: usize,
    /// repeats the same faults, as far as processes repeat (drawn, and told)
    #[argh(option)]
    seed: Option<u64>,
    /// writes what clients did and were told to this file, for `sloop check`
    #[argh(option)]
    history: Option<PathBuf>,
    /// an empty folder for the nodes' data and logs (a new one for temporary files)
    #[argh(option)]
    data_dir: Option<PathBuf>,
    /// keep the nodes' data and logs; without this only where a promise is broken
    #[argh(switch)]
    keep: bool,
    /// print one JSON object
    #[argh(switch)]
    json: bool,
}

impl Torture {
    /// # Errors
    /// [`Failed`] when a promise was broken, the machine did not do what was asked of it, it was stopped early, or it
    /// cannot be meant like that.
    pub fn run(self) -> Result<Said, Failed> {
        if !(self.minutes > 0.0 && self.minutes <= MINUTES_MAX) {
            let minutes = self.minutes;
            return Err(Failed::wrong_use(format!("--minutes {minutes}: above 0, at most {MINUTES_MAX}")));
        }
        if !(NODES_MIN..=NODES_MAX).contains(&self.nodes) {
            let nodes = self.nodes;
            return Err(Failed::wrong_use(format!("--nodes {nodes}: from {NODES_MIN} to {NODES_MAX} nodes")));
        }
        let mut folder = Folder::make(self.data_dir.clone())?;
        let plan = Plan {
            program: std::env::current_exe()?,
            folder: folder.path().to_owned(),
            time: Duration::from_secs_f64(60.0 * self.minutes),
            nodes: self.nodes,
            seed: self.seed.unwrap_or_else(drawn),
        };
        if self.keep {
            folder.keep();
        }
        let report = Builder::new_current_thread().enable_all().build()?.block_on(until_stopped(&plan))?;
        let mut said = Said::default();
        if let Some(file) = &self.history {
            fs::copy(plan.history(), file).map_err(|error| Failed::refused(format!("{}: {error}", file.display())))?;
        }
        if !report.complaints().is_empty() {
            folder.keep();
        }
        if self.json {
            said.line(&words::json(&plan, &report, folder.kept()).to_string());
        } else {
            said.bytes(words::summary(&report).as_bytes());
        }
        if report.complaints().is_empty() {
            return Ok(said);
        }
        say(&said.0)?;
        Err(Failed::refused(words::broken(&plan, &report)))
    }
}

/// Tortures until it is over, or until Ctrl-C or SIGTERM: the processes end either way.
async fn until_stopped(plan: &Plan) -> Result<Report, Failed> {
    let mut stop = Stop::here()?;
    tokio::select! {
        report = torture::run(plan, &note) => Ok(report?),
        () = stop.comes() => Err(Failed::refused("stopped early: nothing was judged")),
    }
}

/// How far it is. Nobody is left to be told when this fails.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A seed that is short enough to be typed.
fn drawn() -> u64 {
    entropy::word() >> 32
}
