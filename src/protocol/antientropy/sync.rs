//! One sync of a partition with a peer: from what the trees say to windows of keys, each exchanged with the peer.
//!
//! Handoff takes only: what the source lacks is none of the change's business. A repair takes and gives. What a node
//! does not own is only given, to all owners, and dropped once each of them has it.

use std::collections::{BTreeSet, VecDeque};

use super::exchange::Exchange;
use super::forest::{BRANCHES, LEAVES, Leaf, LeafSet};
use super::work::{JobId, Scanning, Surveying};
use crate::protocol::asks::About;
use crate::protocol::config::SYNC_NAMES;
use crate::protocol::io::{Effects, Name, Scan, ScanPage, ScanWant, Survey, Unreadable};
use crate::protocol::peer::{Ask, Told, Unheard};
use crate::protocol::planted::Bug;
use crate::protocol::ring::Partition;
use crate::protocol::shard::Shard;
use crate::protocol::types::{AppendId, Instant, Key, NodeId, Now};

/// Leaves of one branch.
const WIDTH: u8 = (LEAVES / BRANCHES) as u8;

/// What a sync is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// This node gains the partition: what an old owner holds comes here.
    Fetch,
    /// Both own it, and differ.
    Repair,
    /// Others own it: they get what is left of it here, and then it goes.
    Leftover,
}

/// One sync.
#[derive(Debug)]
pub(in crate::protocol) struct Job {
    why: Why,
    partition: Partition,
    begun: Instant,
    /// One, or for leftovers all owners.
    peers: Vec<NodeId>,
    stage: Stage,
    /// The leaves whose keys are exchanged.
    leaves: LeafSet,
    pub(super) window: Window,
    pub(super) exchange: Exchange,
    /// The last append that it waits for.
    pub(super) append: AppendId,
    /// Keys that are not proven to be with all owners: they changed meanwhile, or are owed to somebody.
    pub(super) unproven: BTreeSet<Key>,
    kept_any: bool,
}

/// Keys that are exchanged at a time.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// It begins behind this one.
    pub(super) after: Option<Key>,
    /// It ends with this one; at `None` with the partition.
    pub(super) through: Option<Key>,
    /// What is held here of it.
    pub(super) names: Vec<Name>,
}

#[derive(Debug)]
enum Stage {
    /// The branches here are looked at, or known while those of the peer are asked for.
    Branches(Option<Vec<u64>>),
    /// Likewise the leaves of the last of these branches.
    Leaves(Vec<u8>, Option<Vec<u64>>),
    /// The keys of the next window are looked at.
    Names,
    /// The window is exchanged with one of the peers.
    Exchange(usize),
    /// What all owners have of the window is dropped.
    Drop(VecDeque<(Key, u64)>),
    /// All is done but for the log.
    Settle,
}

impl Job {
    pub(super) fn why(&self) -> Why {
        self.why
    }

    pub(super) fn partition(&self) -> Partition {
        self.partition
    }

    pub(super) fn peers(&self) -> &[NodeId] {
        &self.peers
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Whether nothing that it looked at stays here.
    pub(super) fn is_emptied(&self) -> bool {
        self.why == Why::Leftover && !self.kept_any
    }

    /// The peer that it is busy with.
    pub(super) fn peer(&self) -> NodeId {
        match self.stage {
            Stage::Exchange(at) => self.peers[at],
            _ => self.peers[0],
        }
    }

    pub(super) fn leaves(&self) -> LeafSet {
        self.leaves
    }

    pub(super) fn is_exchanging(&self) -> bool {
        matches!(self.stage, Stage::Exchange(_))
    }
}

impl Shard {
    pub(super) fn start_job(
        &mut self,
        now: Now,
        why: Why,
        partition: Partition,
        peers: Vec<NodeId>,
        effects: &mut Effects,
    ) {
        self.trees.begun += 1;
        let id = JobId(self.trees.begun);
        let job = Job {
            why,
            partition,
            begun: now.instant,
            peers,
            stage: Stage::Branches(None),
            leaves: LeafSet::ALL,
            window: Window::default(),
            exchange: Exchange::default(),
            append: AppendId::default(),
            unproven: BTreeSet::new(),
            kept_any: false,
        };
        self.trees.jobs.insert(id, job);
        match why {
            Why::Leftover => self.next_window(now, id, None, effects),
            Why::Fetch | Why::Repair => self.survey(Surveying::Job(id), Survey::Branches(partition), effects),
        }
    }

    /// What the trees here say of it.
    pub(super) fn on_job_surveyed(&mut self, now: Now, id: JobId, digests: Vec<u64>, effects: &mut Effects) {
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        let branch = match &mut job.stage {
            // Nothing is held here: all that the peer has is lacking.
            Stage::Branches(_) if digests.iter().all(|branch| *branch == 0) => {
                return self.next_window(now, id, None, effects);
            }
            Stage::Branches(mine) => {
                *mine = Some(digests);
                None
            }
            Stage::Leaves(branches, mine) => {
                *mine = Some(digests);
                branches.last().copied()
            }
            other => unreachable!("trees are not looked at in {other:?}"),
        };
        let (partition, peer) = (job.partition, job.peer());
        self.ask(now, peer, partition, Ask::Tree { partition, branch }, About::Synced(id), effects);
    }

    /// The peer says something of its trees, or of its keys.
    pub(in crate::protocol) fn on_synced(
        &mut self,
        now: Now,
        id: JobId,
        told: Result<Told, Unheard>,
        effects: &mut Effects,
    ) {
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        match (told, &mut job.stage) {
            (Ok(Told::Digests(theirs)), Stage::Branches(Some(mine))) if theirs.len() == mine.len() => {
                if theirs.iter().all(|branch| *branch == 0) {
                    return self.next_window(now, id, None, effects);
                }
                let differ = (0..).zip(mine.iter().zip(&theirs)).filter(|(_, (one, other))| one != other);
                job.stage = Stage::Leaves(differ.map(|(at, _)| at).collect(), None);
                job.leaves = LeafSet::default();
                self.next_branch(now, id, effects);
            }
            (Ok(Told::Digests(theirs)), Stage::Leaves(branches, mine)) if theirs.len() == usize::from(WIDTH) => {
                let first = branches.pop().unwrap_or_default() * WIDTH;
                let mine = mine.take().unwrap_or_default();
                let differ = (first..=u8::MAX).zip(mine.iter().zip(&theirs)).filter(|(_, (one, other))| one != other);
                differ.for_each(|(at, _)| job.leaves.insert(Leaf(at)));
                self.next_branch(now, id, effects);
            }
            (Ok(Told::Page(page)), Stage::Exchange(_)) => self.on_page(now, id, *page, effects),
            _ => self.fail_job(now, id, effects),
        }
    }

    fn next_branch(&mut self, now: Now, id: JobId, effects: &mut Effects) {
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        let Stage::Leaves(branches, _) = &job.stage else { return };
        match branches.last() {
            Some(branch) => {
                let of = Survey::Leaves(job.partition, *branch);
                self.survey(Surveying::Job(id), of, effects);
            }
            None if job.leaves.is_empty() => self.end_job(now, id, effects),
            None => self.next_window(now, id, None, effects),
        }
    }

    /// Looks at the next keys.
    fn next_window(&mut self, now: Now, id: JobId, after: Option<Key>, effects: &mut Effects) {
        if self.stopped {
            return self.fail_job(now, id, effects);
        }
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        job.stage = Stage::Names;
        if job.why == Why::Leftover {
            job.leaves = LeafSet::ALL;
        }
        job.window = Window { after: after.clone(), ..Window::default() };
        let Job { partition, leaves, .. } = *job;
        let of = Scan { partition, leaves, after, want: ScanWant::Names { max: SYNC_NAMES } };
        self.scan(Scanning::Job(id), of, effects);
    }

    pub(super) fn on_job_scanned(
        &mut self,
        now: Now,
        id: JobId,
        found: Result<ScanPage, Unreadable>,
        effects: &mut Effects,
    ) {
        let Some(job) = self.trees.jobs.get(&id) else { return };
        let why = job.why;
        let Ok(ScanPage { names, next, .. }) = found else {
            return self.fail_job(now, id, effects);
        };
        let is_owed = |name: &Name| why == Why::Leftover && self.hints.is_owed(&name.key);
        let all = names.len();
        let names: Vec<Name> =
            names.into_iter().filter(|name| !is_owed(name) && !self.is_retired(&name.key, name.digest)).collect();
        let ring = self.ring;
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        job.kept_any |= names.len() < all;
        job.window.through = next.clone();
        if why == Why::Leftover {
            let Some(last) = names.last() else {
                return match next {
                    Some(next) => self.next_window(now, id, Some(next), effects),
                    None => self.end_job(now, id, effects),
                };
            };
            // Owners need not look any further than this; whether there is more here is known by the window's end.
            job.leaves = names.iter().map(|name| Leaf::of(ring, &name.key)).collect();
            job.window.through = next.or_else(|| Some(last.key.clone()));
        }
        job.window.names = names;
        if why == Why::Leftover && self.planted.is(Bug::EarlyCleanup) {
            return self.on_exchanged(now, id, effects);
        }
        self.begin_exchange(now, id, 0, effects);
    }

    /// Exchanges the window with the peer at this place.
    fn begin_exchange(&mut self, now: Now, id: JobId, at: usize, effects: &mut Effects) {
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        job.stage = Stage::Exchange(at);
        job.exchange = Exchange::behind(job.window.after.clone());
        self.pull(now, id, effects);
    }

    /// The window is exchanged with one peer: on to the next peer, to what can be dropped, or to the next window.
    pub(super) fn on_exchanged(&mut self, now: Now, id: JobId, effects: &mut Effects) {
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        match job.stage {
            Stage::Exchange(at) if at + 1 < job.peers.len() => self.begin_exchange(now, id, at + 1, effects),
            _ if job.why == Why::Leftover => {
                let Job { window, unproven, .. } = job;
                let proven = window.names.drain(..).filter(|name| !unproven.contains(&name.key));
                let proven: VecDeque<_> = proven.map(|name| (name.key, name.digest)).collect();
                job.kept_any |= !job.unproven.is_empty();
                job.unproven.clear();
                job.stage = Stage::Drop(proven);
                self.drop_more(now, id, effects);
            }
            _ => self.on_window_done(now, id, effects),
        }
    }

    fn on_window_done(&mut self, now: Now, id: JobId, effects: &mut Effects) {
        let Some(job) = self.trees.jobs.get_mut(&id) else { return };
        match job.window.through.take() {
            Some(through) => self.next_window(now, id, Some(through), effects),
            None => self.end_job(now, id, effects),
        }
    }

    /// Drops what all owners have, some at a time; each only if it is so still.
    pub(super) fn drop_more(&mut self, now: Now, id: JobId, effects: &mut Effects) {
        loop {
            let Some(job) = self.trees.jobs.get_mut(&id) else { return };
            let Stage::Drop(proven) = &mut job.stage else { return };
            if !job.exchange.has_room() {
                return;
            }
            let Some((key, digest)) = proven.pop_front() else {
                if job.exchange.is_idle() {
                    self.on_window_done(now, id, effects);
                }
                return;
            };
            job.exchange.taking += 1;
            self.begin_drop(id, key, digest, effects);
        }
    }

    /// All that is to be said and heard is: what came must be durable before it counts.
    fn end_job(&mut self, now: Now, id: JobId, effects: &mut Effects) {
        if let Some(job) = self.trees.jobs.get_mut(&id) {
            job.stage = Stage::Settle;
            self.settle_jobs(now, effects);
        }
    }

    /// More is durable: what waited for it is done.
    pub(in crate::protocol) fn settle_jobs(&mut self, now: Now, effects: &mut Effects) {
        let durable = self.durable;
        let is_settled = |job: &Job| matches!(job.stage, Stage::Settle) && job.append <= durable;
        while let Some(id) = self.trees.jobs.iter().find(|(_, job)| is_settled(job)).map(|(id, _)| *id) {
            self.leave_job(now, id, !self.stopped, effects);
        }
    }

    /// It comes to nothing, and is tried again.
    pub(in crate::protocol) fn fail_job(&mut self, now: Now, id: JobId, effects: &mut Effects) {
        self.leave_job(now, id, false, effects);
    }

    fn leave_job(&mut self, now: Now, id: JobId, is_done: bool, effects: &mut Effects) {
        if let Some(job) = self.trees.jobs.remove(&id) {
            self.on_job_ended(now, &job, is_done, effects);
        }
    }
}
