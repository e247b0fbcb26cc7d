//! The judge of a cluster: what each read of R owners must show of the writes that W owners had acknowledged before.
//!
//! [`sloop::verify::judge`] knows one node, where a write is there for every reader or for none. Here a write without
//! an acknowledgement may be seen by one read and missed by the next, one that fallbacks took is seen when it has been
//! delivered, a write without a context replaces what its coordinator holds, which may be less than others do, and a
//! write that a node handed on twice is there under two names. So this one accuses a read
//!
//! - that misses a version which counts, unless a version that it shows replaced it, step by step, or a deletion did;
//! - that shows a version which one that counts is known to have replaced;
//! - that shows what nobody wrote, or what was refused.
//!
//! A write counts for a read when W owners acknowledged it before the read began; at the end, when everything has come
//! to rest, also when it was acknowledged with the help of fallbacks.

use std::collections::{BTreeMap, BTreeSet};

use sloop::client::{Key, Value};
use sloop::protocol::types::Dot;
use sloop::verify::history::Operation;
use sloop::verify::{Action, History, Name, Outcome, Replaces, Shown};

/// What clients did and were told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) history: History,
    /// The writes whose replies say that W owners acknowledged them.
    pub(super) by_owners: BTreeSet<Name>,
    /// The writes that may have been tried again. A node that remembers one may not know what it replaced, and two
    /// nodes may have taken it, under two names, each in place of what it held.
    pub(super) retried: BTreeSet<Name>,
}

/// Every broken promise, a line each. Clients from this number on read when all had come to rest.
pub(super) fn judge(told: &Told, rested: u32) -> Vec<String> {
    told.history.keys().flat_map(|(key, operations)| Case::new(told, rested, key, operations).verdict()).collect()
}

/// All that clients did with the first key of which there are complaints, a line each.
pub(super) fn show(told: &Told, broken: &[String]) -> String {
    let is_it = |key: &Key| broken.first().is_some_and(|complaint| complaint.starts_with(&format!("{key}: ")));
    let operations = told.history.keys().find(|(key, _)| is_it(key)).map_or(&[][..], |(_, operations)| operations);
    let line = |operation: &Operation| {
        let Operation { name, action, begun, ended, outcome } = operation;
        format!("  {begun:?} to {ended:?}: {name:?} {action:?}: {outcome:?}\n")
    };
    operations.iter().map(line).collect()
}

/// One key.
struct Case<'a> {
    told: &'a Told,
    rested: u32,
    key: &'a Key,
    /// In the order in which they began.
    writes: Vec<Write<'a>>,
    reads: Vec<(&'a Operation, &'a [Shown])>,
    values: BTreeMap<&'a Value, usize>,
    /// The write behind each name of a version.
    dots: BTreeMap<Dot, usize>,
    broken: Vec<String>,
}

struct Write<'a> {
    operation: &'a Operation,
    value: Option<&'a Value>,
    /// Versions that it is known to have replaced.
    replaced: BTreeSet<Dot>,
    /// Whether it may have replaced anything: its other try may lie in the queue of a node that stands still, and be
    /// done there, in place of what that node holds, long after it was acknowledged.
    may_be_all: bool,
}

impl<'a> Case<'a> {
    fn new(told: &'a Told, rested: u32, key: &'a Key, operations: &'a [Operation]) -> Case<'a> {
        let mut case = Case {
            told,
            rested,
            key,
            writes: vec![],
            reads: vec![],
            values: BTreeMap::new(),
            dots: BTreeMap::new(),
            broken: vec![],
        };
        let shown: BTreeMap<Name, &[Shown]> = operations.iter().filter_map(shown_by).collect();
        for operation in operations {
            match &operation.action {
                Action::Write { value, replaces } => case.add_write(operation, value.as_ref(), *replaces, &shown),
                Action::Read => case.reads.extend(shown.get(&operation.name).map(|shown| (operation, *shown))),
            }
        }
        case
    }

    fn add_write(
        &mut self,
        operation: &'a Operation,
        value: Option<&'a Value>,
        replaces: Replaces,
        shown: &BTreeMap<Name, &'a [Shown]>,
    ) {
        let at = self.writes.len();
        let mut replaced = BTreeSet::new();
        if let Replaces::Shown(name) = replaces {
            replaced.extend(shown.get(&name).into_iter().flat_map(|shown| shown.iter().map(|version| version.dot)));
        }
        if let Outcome::Written { dot, superseded } = &operation.outcome {
            replaced.extend(superseded);
            self.name(*dot, at);
        }
        let may_be_all = replaces == Replaces::Held && self.is_vague(operation);
        if let Some(value) = value {
            assert!(self.values.insert(value, at).is_none(), "no two writes put the same value");
        }
        self.writes.push(Write { operation, value, replaced, may_be_all });
    }

    /// Whether there may be more of a write than its reply says.
    fn is_vague(&self, write: &Operation) -> bool {
        write.outcome == Outcome::Unknown || self.told.retried.contains(&write.name)
    }

    fn name(&mut self, dot: Dot, at: usize) {
        if self.dots.insert(dot, at).is_some_and(|other| other != at) {
            self.accuse(&format!("two writes have the name {dot}"));
        }
    }

    fn accuse(&mut self, what: &str) {
        self.broken.push(format!("{}: {what}", self.key));
    }

    fn verdict(mut self) -> Vec<String> {
        for (read, shown) in self.reads.clone() {
            for version in shown {
                self.name_shown(read, version);
            }
        }
        let licenses: Vec<Vec<usize>> = (0..self.writes.len()).map(|at| self.license(at)).collect();
        let replacers = self.replacers();
        for (read, shown) in self.reads.clone() {
            self.check_missed(read, shown, &licenses);
            self.check_came_back(read, shown, &replacers);
        }
        self.broken
    }

    fn name_shown(&mut self, read: &Operation, version: &Shown) {
        let value = version.value.as_ref().expect("a GET shows values");
        let Some(&at) = self.values.get(value) else {
            return self.accuse(&format!("{:?} shows {value:?}, which nobody wrote", read.name));
        };
        let write = self.writes[at].operation;
        if write.outcome == Outcome::Refused {
            self.accuse(&format!("{:?} shows {value:?}, which was refused", read.name));
        }
        if read.ended < write.begun {
            self.accuse(&format!("{:?} shows {value:?} before it was written", read.name));
        }
        self.name(version.dot, at);
    }

    /// Writes that this one may have replaced.
    fn license(&self, at: usize) -> Vec<usize> {
        let write = &self.writes[at];
        if write.may_be_all {
            return (0..self.writes.len()).filter(|other| *other != at).collect();
        }
        let replaced = &write.replaced;
        let mut licensed: BTreeSet<usize> = replaced.iter().filter_map(|dot| self.dots.get(dot).copied()).collect();
        // A name that nobody was told belongs to a write without a reply, or to one that was tried twice.
        if replaced.iter().any(|dot| !self.dots.contains_key(dot)) {
            licensed.extend((0..self.writes.len()).filter(|other| self.is_vague(self.writes[*other].operation)));
        }
        licensed.remove(&at);
        licensed.into_iter().collect()
    }

    /// For each version the writes that are known to have replaced it.
    fn replacers(&self) -> BTreeMap<Dot, Vec<usize>> {
        let mut replacers: BTreeMap<Dot, Vec<usize>> = BTreeMap::new();
        for (at, write) in self.writes.iter().enumerate() {
            for dot in &write.replaced {
                replacers.entry(*dot).or_default().push(at);
            }
        }
        replacers
    }

    /// Whether every read that begins like this one has this write, or what replaced it.
    fn counts(&self, write: &Operation, read: &Operation) -> bool {
        let is_acknowledged = matches!(write.outcome, Outcome::Written { .. });
        let is_enough = self.told.by_owners.contains(&write.name) || self.rested <= read.name.client;
        is_acknowledged && is_enough && write.ended < read.begun
    }

    fn check_missed(&mut self, read: &Operation, shown: &[Shown], licenses: &[Vec<usize>]) {
        let mut explained = vec![false; self.writes.len()];
        let values = shown.iter().filter_map(|version| self.dots.get(&version.dot).copied());
        let is_hidden = |write: &Write<'_>| {
            let is_done = write.operation.outcome != Outcome::Refused && write.operation.begun < read.ended;
            write.value.is_none() && is_done
        };
        let deletions = (0..self.writes.len()).filter(|at| is_hidden(&self.writes[*at]));
        let mut next: Vec<usize> = values.chain(deletions).collect();
        while let Some(at) = next.pop() {
            if !std::mem::replace(&mut explained[at], true) {
                next.extend(licenses[at].iter().filter(|other| !explained[**other]));
            }
        }
        let missed: Vec<usize> = (0..self.writes.len())
            .filter(|at| !explained[*at] && self.counts(self.writes[*at].operation, read))
            .collect();
        for at in missed {
            let (name, outcome) = (self.writes[at].operation.name, &self.writes[at].operation.outcome);
            self.accuse(&format!("{:?} misses {name:?} ({outcome:?}) and shows {shown:?}", read.name));
        }
    }

    fn check_came_back(&mut self, read: &Operation, shown: &[Shown], replacers: &BTreeMap<Dot, Vec<usize>>) {
        for version in shown {
            let by = replacers.get(&version.dot).into_iter().flatten();
            let by = by.map(|at| self.writes[*at].operation).find(|by| self.counts(by, read)).map(|by| by.name);
            if let Some(by) = by {
                self.accuse(&format!("{:?} shows {version:?}, which {by:?} had replaced", read.name));
            }
        }
    }
}

fn shown_by(operation: &Operation) -> Option<(Name, &[Shown])> {
    match &operation.outcome {
        Outcome::Shown { versions, tombstones: false } => Some((operation.name, versions)),
        _ => None,
    }
}

mod tests;
