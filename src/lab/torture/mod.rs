//! Real processes, real faults, and the judge: what `sloop torture` does.
//!
//! A fleet of nodes runs behind [proxies](proxy), a [`crowd`] of clients writes, reads and records. Two lanes of
//! accidents kill, stop, pause, cut and delay; one of changes lets nodes join and leave, and takes disks. All is drawn
//! from a seed, which repeats the faults and not their moments: processes have their own. At the end all is healed,
//! everything must come to rest, is read through every node, and judged.
//!
//! What is fair: a disk is lost only after everything has come to rest, and the next one only when it has again. So of
//! W = 2 copies of a write one is always left.

pub mod links;
pub mod place;
pub mod proxy;
pub mod crowd;
mod worker;
mod fleet;
mod log;
mod trial;
mod accidents;
mod changes;
mod rest;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use self::trial::run;
pub use self::worker::Tally;
use crate::verify::cluster::Violation;

/// Fewest nodes: as many as there are copies.
pub const NODES_MIN: usize = 3;
/// Most nodes: so many processes are a mistake on one machine.
pub const NODES_MAX: usize = 30;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The binary that the nodes run.
    pub program: PathBuf,
    /// An empty folder for data, logs and the record of faults.
    pub folder: PathBuf,
    /// For how long there are faults. The end, where all is healed and read, comes on top.
    pub time: Duration,
    /// Nodes at first: from [`NODES_MIN`] to [`NODES_MAX`].
    pub nodes: usize,
    /// The seed of everything that is drawn.
    pub seed: u64,
}

impl Plan {
    /// The file in the folder where everything stands that clients did and were told (docs/HISTORY.md).
    pub fn history(&self) -> PathBuf {
        self.folder.join("history")
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// How often there was each kind of fault, those that never were among them.
    pub faults: BTreeMap<&'static str, u64>,
    /// Messages between nodes that were held back.
    pub delayed: u64,
    /// How often everything came to rest and was read.
    pub rests: u64,
    /// How calls ended.
    pub tally: Tally,
    /// What ended it early, if anything did: a node that died, or what did not come to rest.
    pub broken: Option<String>,
    /// Every promise to a client that was broken.
    pub violations: Vec<Violation>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// What is wrong, a line or some each; none where all is well.
    pub fn complaints(&self) -> Vec<String> {
        self.broken.iter().cloned().chain(self.violations.iter().map(Violation::to_string)).collect()
    }
}

/// Why there is no verdict: the machine does not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum TortureError {
    /// What the system says.
    #[error("the machine: {0}")]
    Machine(#[from] std::io::Error),
}

#[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
fn now() -> Instant {
    Instant::now()
}
