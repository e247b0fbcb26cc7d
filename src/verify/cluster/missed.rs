//! Which writes a read misses, without a look at every write for every read.
//!
//! If a write that counts may have replaced an earlier one, then whoever explains the later explains the earlier: only
//! those with none above them need a look, the *frontier*, which is small however long a history is. One of it is
//! explained by what the read shows, or by a deletion; the way there is looked for upwards, through those that may have
//! replaced it, of which few do not count themselves.

use std::collections::{BTreeSet, BinaryHeap};

use super::{Broken, Case, Level, Read, Write, meets};
use crate::verify::history::{List, Moment, Operation};

/// Other operations that a violation names.
const OTHERS_MAX: usize = 6;

/// What each write may have replaced, and by what it may have been.
struct Licenses {
    /// Downwards: indices of writes.
    replaced: Vec<Vec<usize>>,
    /// Upwards.
    replacers: Vec<Vec<usize>>,
    /// Those that may have replaced a write of which there may be more than its reply says.
    of_vague: Vec<bool>,
    /// All of the same.
    replacers_of_vague: Vec<usize>,
    /// Those that may have replaced anything.
    of_all: Vec<usize>,
    /// Those of which there may be more than their replies say.
    vague: Vec<usize>,
}

impl Licenses {
    fn of(case: &Case<'_>) -> Licenses {
        let writes = &case.writes;
        let at_all = |is: fn(&Write<'_>) -> bool| (0..writes.len()).filter(|at| is(&writes[*at])).collect();
        let mut licenses = Licenses {
            replaced: vec![vec![]; writes.len()],
            replacers: vec![vec![]; writes.len()],
            of_vague: vec![false; writes.len()],
            replacers_of_vague: vec![],
            of_all: at_all(|write| write.may_be_all()),
            vague: at_all(|write| write.is_vague),
        };
        for (at, write) in writes.iter().enumerate() {
            for dot in write.replaced.union(&write.maybe) {
                match case.dots.get(dot) {
                    Some(other) if *other == at => {}
                    Some(other) => {
                        licenses.replaced[at].push(*other);
                        licenses.replacers[*other].push(at);
                    }
                    // A name that nobody was told.
                    None => licenses.of_vague[at] = true,
                }
            }
        }
        licenses.replacers_of_vague = (0..writes.len()).filter(|at| licenses.of_vague[*at]).collect();
        licenses
    }
}

/// The reads of one level, in their order, and what counts for them so far.
struct Pass<'a> {
    case: &'a Case<'a>,
    licenses: &'a Licenses,
    counted: Vec<bool>,
    frontier: Vec<usize>,
    /// Those below one that counts.
    covered: Vec<bool>,
    /// All writes before this one are.
    covered_before: usize,
    /// Of those of which there may be more than their replies say, all before this one are.
    vague_covered_before: usize,
    expanded: Vec<bool>,
    /// Those that a write leads to and that began behind it: whoever leads to it and began still later covers them.
    behind: Vec<Vec<usize>>,
    /// So many of those of which there may be more than their replies say have been come to.
    vague_met: usize,
    /// In which question each write was looked at.
    looked: Vec<usize>,
    question: usize,
}

impl<'a> Pass<'a> {
    fn new(case: &'a Case<'a>, licenses: &'a Licenses) -> Pass<'a> {
        let writes = case.writes.len();
        Pass {
            case,
            licenses,
            counted: vec![false; writes],
            frontier: vec![],
            covered: vec![false; writes],
            covered_before: 0,
            vague_covered_before: 0,
            expanded: vec![false; writes],
            behind: vec![vec![]; writes],
            vague_met: 0,
            looked: vec![0; writes],
            question: 0,
        }
    }

    /// From here on a write counts.
    fn count(&mut self, at: usize) {
        if std::mem::replace(&mut self.counted[at], true) {
            return;
        }
        self.cover_below(at);
        if self.case.writes[at].value.is_some() {
            self.frontier.push(at);
        }
    }

    /// What may have been replaced by this one, step by step, and began before it. A write is expanded once, for the
    /// first that comes to it: those that come later may cover less than they could.
    fn cover_below(&mut self, top: usize) {
        let mut next = vec![top];
        while let Some(at) = next.pop() {
            if top < at {
                self.behind[top].push(at);
                continue;
            }
            self.covered[at] |= at < top;
            let is_one_of_all = self.licenses.of_vague[at] && !self.licenses.of_all.is_empty();
            if self.case.writes[at].may_be_all() || is_one_of_all {
                self.covered_before = self.covered_before.max(top);
            }
            if self.licenses.of_vague[at] {
                self.vague_covered_before = self.vague_covered_before.max(top);
                let vague = &self.licenses.vague;
                while self.vague_met < vague.len() && vague[self.vague_met] < top {
                    next.push(vague[self.vague_met]);
                    self.vague_met += 1;
                }
            }
            if std::mem::replace(&mut self.expanded[at], true) {
                next.append(&mut self.behind[at]);
            } else {
                next.extend(&self.licenses.replaced[at]);
            }
        }
    }

    fn is_covered(&self, at: usize) -> bool {
        let is_vague_below = at < self.vague_covered_before && self.case.writes[at].is_vague;
        self.covered[at] || at < self.covered_before || is_vague_below
    }

    /// The writes that a read misses.
    fn missed_by(&mut self, read: &Read<'_>) -> Vec<usize> {
        let shown = read.versions.iter().filter_map(|version| self.case.dots.get(&version.dot).copied()).collect();
        let mut frontier = std::mem::take(&mut self.frontier);
        frontier.retain(|at| !self.is_covered(*at));
        let missed: Vec<usize> = frontier.iter().copied().filter(|at| !self.explains(read, &shown, *at)).collect();
        frontier.retain(|at| !missed.contains(at));
        self.frontier = frontier;
        missed
    }

    /// Whether a read shows this write, or what may have replaced it, step by step. What began when the read was over
    /// had replaced nothing.
    fn explains(&mut self, read: &Read<'_>, shown: &BTreeSet<usize>, at: usize) -> bool {
        let end = self.case.writes.partition_point(|write| write.operation.begun < read.operation.ended);
        self.question += 1;
        let mut next = BinaryHeap::from([at]);
        let mut by_vague = false;
        if self.climb(read, shown, &mut next, end, |_| {}) {
            return true;
        }
        // These are rarely needed, and lead far.
        self.question += 1;
        next.push(at);
        let licenses = self.licenses;
        next.extend(licenses.of_all.iter().filter(|at| **at < end));
        self.climb(read, shown, &mut next, end, |next| {
            if !std::mem::replace(&mut by_vague, true) {
                next.extend(licenses.replacers_of_vague.iter().filter(|at| **at < end));
            }
        })
    }

    /// Whether a way up from these leads to what a read shows, or to a deletion, by writes before `end`. The latest are
    /// tried first, since what is shown is mostly late. `vague` is told of each write of which there may be more than
    /// its reply says.
    fn climb(
        &mut self,
        read: &Read<'_>,
        shown: &BTreeSet<usize>,
        next: &mut BinaryHeap<usize>,
        end: usize,
        mut vague: impl FnMut(&mut BinaryHeap<usize>),
    ) -> bool {
        while let Some(at) = next.pop() {
            if std::mem::replace(&mut self.looked[at], self.question) == self.question {
                continue;
            }
            let write = &self.case.writes[at];
            if shown.contains(&at) || write.hides_from(read.operation) {
                return true;
            }
            next.extend(self.licenses.replacers[at].iter().filter(|at| **at < end));
            if write.is_vague {
                vague(next);
            }
        }
        false
    }
}

impl Case<'_> {
    pub(super) fn check_missed(&mut self) {
        let mut missed = self.find_missed();
        missed.sort();
        let mut told = BTreeSet::new();
        missed.retain(|(_, at)| told.insert(*at));
        missed.into_iter().for_each(|(read, at)| self.accuse_missed(read, at));
    }

    /// Reads and the writes that they miss.
    fn find_missed(&self) -> Vec<(usize, usize)> {
        let licenses = Licenses::of(self);
        let of_quorums = |read: &&Read<'_>| !read.tombstones;
        let level = |read: &Read<'_>| (read.level.n, read.level.quorum, read.level.owners);
        let levels: BTreeSet<_> = self.reads.iter().filter(of_quorums).map(level).collect();
        let mut by_end: Vec<usize> = (0..self.writes.len()).filter(|at| self.writes[*at].level().is_some()).collect();
        by_end.sort_by_key(|at| self.writes[*at].operation.ended);
        let mut missed = vec![];
        for each in levels {
            let mut pass = Pass::new(self, &licenses);
            let (mut next, mut next_rested) = (0, 0);
            for (at, read) in self.reads.iter().enumerate().filter(|(_, read)| !read.tombstones && level(read) == each)
            {
                let begun = read.operation.begun;
                self.pass_by(&by_end, &mut next, begun, |at, written| {
                    if meets(written, read.level) {
                        pass.count(at);
                    }
                });
                let rests = self.rests.partition_point(|rest| *rest < begun);
                if let Some(rest) = rests.checked_sub(1).map(|at| self.rests[at]) {
                    self.pass_by(&by_end, &mut next_rested, rest, |at, _| pass.count(at));
                }
                missed.extend(pass.missed_by(read).into_iter().map(|write| (at, write)));
            }
        }
        missed
    }

    /// All further writes that ended before this moment.
    fn pass_by(&self, by_end: &[usize], next: &mut usize, before: Moment, mut each: impl FnMut(usize, Level)) {
        while let Some(at) = by_end.get(*next).filter(|at| self.writes[**at].operation.ended < before) {
            each(*at, self.writes[*at].level().unwrap_or_default());
            *next += 1;
        }
    }

    fn accuse_missed(&mut self, read: usize, at: usize) {
        let Read { operation: read, versions, .. } = self.reads[read];
        let missed = self.writes[at].operation;
        let shown = versions.iter().filter_map(|version| self.dots.get(&version.dot)).map(|at| &self.writes[*at]);
        let is_after = |write: &&Write<'_>| {
            let Operation { begun, ended, .. } = *write.operation;
            missed.begun < ended && begun < read.ended && write.operation.name != missed.name
        };
        let later = self.writes[at..].iter().filter(is_after);
        let mut others = vec![missed.name];
        for name in shown.chain(later).map(|write| write.operation.name) {
            if others.len() < OTHERS_MAX && !others.contains(&name) {
                others.push(name);
            }
        }
        let what = format!("{} misses {} ({}) and shows {}", read.name, missed.name, missed.action, List(versions));
        self.accuse(Broken::Missed, read.name, others, what);
    }
}
