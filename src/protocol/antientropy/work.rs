//! What one core has under way so that copies come to hold the same.

use std::collections::BTreeMap;
use std::time::Duration;

use super::compare::Comparing;
use super::handoff::{Fetching, Gains};
use super::leftovers::Leftovers;
use super::sync::Job;
use crate::protocol::io::{Effect, Effects, Scan, ScanPage, Survey, Surveyed, Unreadable};
use crate::protocol::peer::Pull;
use crate::protocol::ring::Partition;
use crate::protocol::shard::{Shard, Whom};
use crate::protocol::stats::Stats;
use crate::protocol::tombstones;
use crate::protocol::types::{CoreId, Instant, NodeId, Now, ScanId, SurveyId};

/// A page may go out so long before the ones before it are paid for: a core that has nothing else to do ticks no more
/// often.
const SLACK: Duration = Duration::from_millis(120);

/// What is set at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol) struct Tuning {
    /// Between two comparisons with a core of another node.
    pub(in crate::protocol) compare_period: Duration,
    /// Bytes a second that this core fetches for a change of owners, from 1.
    pub(in crate::protocol) transfer_rate: u64,
}

/// One sync of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::protocol) struct JobId(pub(super) u64);

/// A core of another node.
pub(super) type Peering = (NodeId, CoreId);

/// One comparison, and with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol) struct LookId(pub(super) Peering, pub(super) u64);

/// All of it.
#[derive(Debug)]
pub(in crate::protocol) struct AntiEntropy {
    pub(super) seed: u64,
    pub(super) tuning: Tuning,
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) begun: u64,
    surveys: BTreeMap<SurveyId, Surveying>,
    scans: BTreeMap<ScanId, Scanning>,
    pub(super) looks_begun: u64,
    pub(super) comparing: Comparing,
    pub(super) fetching: Option<Fetching>,
    pub(super) leftovers: Leftovers,
    pub(super) paid_until: Instant,
}

/// What the trees are looked at for.
#[derive(Debug)]
pub(in crate::protocol) enum Surveying {
    /// A peer holds the same of some partitions if their roots have this digest.
    Compare(Whom, u64),
    /// A peer asks for parts of a tree.
    Tree(Whom),
    /// A comparison that this core makes.
    Group(LookId),
    /// A sync that this core makes.
    Job(JobId),
    /// What a change gives this core, beside what its source holds.
    Gains(Box<Gains>),
    /// Partitions that this node does not own.
    Leftovers,
    /// Tombstones that may be forgotten.
    Tombstones(tombstones::Surveying),
}

/// What the keys are looked at for.
#[derive(Debug)]
pub(in crate::protocol) enum Scanning {
    /// A peer pulls.
    Pull(Whom, Box<Pull>),
    /// A sync that this core makes.
    Job(JobId),
    /// Tombstones that may be forgotten.
    Tombstones(tombstones::Scanning),
}

impl AntiEntropy {
    /// Nothing under way.
    pub(in crate::protocol) fn new(seed: u64, tuning: Tuning) -> AntiEntropy {
        AntiEntropy {
            seed,
            tuning,
            jobs: BTreeMap::new(),
            begun: 0,
            surveys: BTreeMap::new(),
            scans: BTreeMap::new(),
            looks_begun: 0,
            comparing: Comparing::default(),
            fetching: None,
            leftovers: Leftovers::default(),
            paid_until: Instant::default(),
        }
    }

    /// Adds what is known of differences, transfers and leftovers.
    pub(in crate::protocol) fn count(&self, stats: Stats) -> Stats {
        let stats = self.comparing.count(stats);
        let stats = self.fetching.as_ref().map_or(stats, |fetching| fetching.count(stats));
        Stats { leftover_partitions: self.leftovers.found(), ..stats }
    }

    /// Changes how fast it fetches.
    #[cfg(all(test, feature = "sim"))]
    pub(in crate::protocol) fn fetch_at(&mut self, transfer_rate: u64) {
        self.tuning.transfer_rate = transfer_rate;
    }

    /// Changes how often it compares.
    #[cfg(all(test, feature = "sim"))]
    pub(in crate::protocol) fn compare_each(&mut self, compare_period: Duration) {
        self.tuning.compare_period = compare_period;
    }

    /// What is in its tables.
    #[cfg(feature = "sim")]
    pub(in crate::protocol) fn under_way(&self) -> usize {
        self.jobs.len() + self.surveys.len() + self.scans.len()
    }

    /// The newest sync that was begun.
    pub(in crate::protocol) fn newest_job(&self) -> JobId {
        JobId(self.begun)
    }

    /// Whether a sync of the partition is under way that is no newer than this one.
    pub(in crate::protocol) fn has_job(&self, partition: Partition, newest: JobId) -> bool {
        self.jobs.range(..=newest).any(|(_, job)| job.partition() == partition)
    }

    /// Whether one more look for a peer may be under way.
    pub(super) fn has_room(&self, max: usize) -> bool {
        self.surveys.len() + self.scans.len() < max
    }

    /// Whether the next page may be fetched.
    pub(super) fn may_fetch(&self, now: Instant) -> bool {
        self.paid_until <= now + SLACK
    }

    /// So many bytes were fetched.
    pub(super) fn pay(&mut self, now: Instant, bytes: usize) {
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.tuning.transfer_rate.max(1);
        self.paid_until = self.paid_until.max(now) + Duration::from_micros(micros);
    }
}

impl Shard {
    /// Looks at the trees.
    pub(in crate::protocol) fn survey(&mut self, why: Surveying, of: Survey, effects: &mut Effects) {
        self.trees.looks_begun += 1;
        let survey = SurveyId(self.trees.looks_begun);
        self.trees.surveys.insert(survey, why);
        effects.push(Effect::Survey { survey, of });
    }

    /// Goes over the keys of a partition.
    pub(in crate::protocol) fn scan(&mut self, why: Scanning, of: Scan, effects: &mut Effects) {
        self.trees.looks_begun += 1;
        let scan = ScanId(self.trees.looks_begun);
        self.trees.scans.insert(scan, why);
        effects.push(Effect::Scan { scan, of });
    }

    /// What the trees say has come in.
    pub(in crate::protocol) fn on_surveyed(
        &mut self,
        now: Now,
        survey: SurveyId,
        found: Surveyed,
        effects: &mut Effects,
    ) {
        match (self.trees.surveys.remove(&survey), found) {
            (Some(Surveying::Compare(whom, digest)), Surveyed::Sums(sums)) => {
                self.tell_compared(whom, digest, &sums, effects);
            }
            (Some(Surveying::Tree(whom)), Surveyed::Digests(digests)) => self.tell_tree(whom, digests, effects),
            (Some(Surveying::Group(look)), Surveyed::Sums(sums)) => self.compare(now, look, &sums, effects),
            (Some(Surveying::Job(job)), Surveyed::Digests(digests)) => {
                self.on_job_surveyed(now, job, digests, effects);
            }
            (Some(Surveying::Gains(gains)), Surveyed::Sums(sums)) => self.compare_gains(now, gains, &sums, effects),
            (Some(Surveying::Leftovers), Surveyed::Sums(sums)) => self.on_leftovers_found(now, &sums),
            (Some(Surveying::Tombstones(why)), Surveyed::Sums(sums)) => {
                self.on_tombstones_surveyed(now, why, sums, effects);
            }
            (why, found) => unreachable!("survey {survey:?} for {why:?} ended with {found:?}"),
        }
    }

    /// What the keys of a partition are has come in.
    pub(in crate::protocol) fn on_scanned(
        &mut self,
        now: Now,
        scan: ScanId,
        page: Result<ScanPage, Unreadable>,
        effects: &mut Effects,
    ) {
        match self.trees.scans.remove(&scan) {
            Some(Scanning::Pull(whom, pull)) => self.tell_page(whom, &pull, page, effects),
            Some(Scanning::Job(job)) => self.on_job_scanned(now, job, page, effects),
            Some(Scanning::Tombstones(why)) => self.on_tombstones_scanned(now, why, page, effects),
            None => unreachable!("scan {scan:?} ended twice"),
        }
    }

    /// The cluster is seen otherwise: what is shared with whom, what is gained, what is left over.
    pub(in crate::protocol) fn share_out(&mut self, now: Now) {
        self.plan_comparisons(now);
        self.plan_fetching(now);
        self.plan_leftovers(now);
        self.end_outdated_jobs();
    }

    /// Does what is due.
    pub(in crate::protocol) fn converge(&mut self, now: Now, effects: &mut Effects) {
        if self.stopped {
            self.trees.jobs.clear();
            return;
        }
        self.compare_what_is_due(now, effects);
        self.look_for_leftovers(now, effects);
        self.look_at_sources(effects);
        self.go_on_fetching(now, effects);
        self.start_jobs(now, effects);
    }
}
