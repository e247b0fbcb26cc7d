//! The judge of one node: one key at a time, each read against every write that was over before it began.
//!
//! A version that a read does not show must have been replaced, step by step, by a version that it does show (or by a
//! tombstone, where the read shows none). Each step must be licensed:
//!
//! | the later write | may have replaced |
//! |---|---|
//! | acknowledged | what its reply names |
//! | acknowledged or unknown, with a context | what the reply that gave the context showed |
//! | unknown, without a context | whatever had begun before it was given up |
//! | asking for a sibling | nothing |
//!
//! A version under a dot that no reply named belongs to some write whose outcome is unknown. Its value tells which one;
//! a tombstone may belong to any delete, and a dot that no read showed to any write. So the judge never accuses a node
//! that is right, and misses little: unknown outcomes come only with a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::history::{Action, History, Moment, Name, Operation, Outcome, Replaces, Shown};
use crate::protocol::types::{Dot, Key, Value};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: Key,
    /// The operation in which it shows.
    pub shown_by: Name,
    /// The version that it is about.
    pub dot: Dot,
    /// Which promise.
    pub promise: Broken,
}

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// An acknowledged or already shown version is gone, and nothing that is there may have replaced it.
    Lost,
    /// A version is there again after it was replaced or gone.
    CameBack,
    /// A version is there that no client wrote.
    Invented,
    /// A write is there whose reply said that nothing was written.
    RefusedButWritten,
    /// Two writes under one dot, or one under two.
    NotOneDot,
    /// A write replaced what its context had not seen, or anything when it asked for a sibling.
    ReplacedUnseen,
    /// A version stands beside a write that had seen it, or that came without a context after it.
    LeftBeside,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { key, shown_by, dot, promise } = self;
        write!(f, "{promise:?}: version {dot} of key {key}, shown by {shown_by:?}")
    }
}

/// Every broken promise of a history, by key.
pub fn judge(history: &History) -> Vec<Violation> {
    history.keys().flat_map(|(key, operations)| Case::new(key, operations).verdict()).collect()
}

/// One key.
struct Case<'a> {
    key: &'a Key,
    operations: BTreeMap<Name, &'a Operation>,
    /// Writes in the order in which they began.
    writes: Vec<Written<'a>>,
    /// Whose version stands under a dot: an index into `writes`.
    dots: BTreeMap<Dot, usize>,
    /// Dots of tombstones that may belong to any delete whose outcome is unknown.
    tombstones: BTreeSet<Dot>,
    /// What each write may have replaced.
    replaced: Vec<Vec<usize>>,
    reads: Vec<Read<'a>>,
    violations: Vec<Violation>,
}

struct Written<'a> {
    operation: &'a Operation,
    value: Option<&'a Value>,
    replaces: Replaces,
    dot: Option<Dot>,
    /// From when on the write is known to have happened: acknowledged, or shown by a read.
    certain: Moment,
    /// From when on it is known to be replaced.
    gone: Moment,
}

struct Read<'a> {
    operation: &'a Operation,
    versions: &'a [Shown],
    tombstones: bool,
}

impl<'a> Case<'a> {
    fn new(key: &'a Key, operations: &'a [Operation]) -> Case<'a> {
        let mut case = Case {
            key,
            operations: operations.iter().map(|operation| (operation.name, operation)).collect(),
            writes: vec![],
            dots: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            replaced: vec![],
            reads: vec![],
            violations: vec![],
        };
        operations.iter().for_each(|operation| case.add(operation));
        case
    }

    fn add(&mut self, operation: &'a Operation) {
        match &operation.action {
            Action::Write { value, replaces } => self.writes.push(Written {
                operation,
                value: value.as_ref(),
                replaces: *replaces,
                dot: None,
                certain: Moment::NEVER,
                gone: Moment::NEVER,
            }),
            Action::Read => {
                if let Outcome::Shown { versions, tombstones, .. } = &operation.outcome {
                    self.reads.push(Read { operation, versions, tombstones: *tombstones });
                }
            }
        }
    }

    fn verdict(mut self) -> Vec<Violation> {
        self.name_acknowledged();
        self.name_shown();
        self.check_replies();
        self.find_gone();
        self.replaced = (0..self.writes.len()).map(|at| self.may_have_replaced(at)).collect();
        for read in 0..self.reads.len() {
            self.check_lost(read);
            self.check_came_back(read);
            self.check_left_beside(read);
        }
        self.violations
    }

    fn accuse(&mut self, shown_by: Name, dot: Dot, promise: Broken) {
        let violation = Violation { key: self.key.clone(), shown_by, dot, promise };
        if !self.violations.contains(&violation) {
            self.violations.push(violation);
        }
    }

    fn name_acknowledged(&mut self) {
        for at in 0..self.writes.len() {
            let operation = self.writes[at].operation;
            if let Outcome::Written { dot, .. } = operation.outcome {
                self.writes[at].dot = Some(dot);
                self.writes[at].certain = operation.ended;
                if self.dots.insert(dot, at).is_some() {
                    self.accuse(operation.name, dot, Broken::NotOneDot);
                }
            }
        }
    }

    /// Finds the write behind every version that a read shows.
    fn name_shown(&mut self) {
        for read in 0..self.reads.len() {
            let Read { operation, versions, .. } = self.reads[read];
            for shown in versions {
                let known = match &shown.value {
                    Some(value) => self.name_value(shown.dot, value, operation),
                    None => self.name_tombstone(shown.dot, operation),
                };
                if let Err(promise) = known {
                    self.accuse(operation.name, shown.dot, promise);
                }
            }
        }
    }

    fn name_value(&mut self, dot: Dot, value: &Value, read: &Operation) -> Result<(), Broken> {
        let wrote_it = |write: &Written<'_>| write.value == Some(value) && write.operation.begun < read.ended;
        let at = self.writes.iter().position(wrote_it).ok_or(Broken::Invented)?;
        let write = &mut self.writes[at];
        if write.operation.outcome == Outcome::Refused {
            return Err(Broken::RefusedButWritten);
        }
        let is_other = self.tombstones.contains(&dot) || self.dots.get(&dot).is_some_and(|other| *other != at);
        if is_other || *write.dot.get_or_insert(dot) != dot {
            return Err(Broken::NotOneDot);
        }
        write.certain = write.certain.min(read.ended);
        self.dots.insert(dot, at);
        Ok(())
    }

    fn name_tombstone(&mut self, dot: Dot, read: &Operation) -> Result<(), Broken> {
        if let Some(&at) = self.dots.get(&dot) {
            let write = &mut self.writes[at];
            write.certain = write.certain.min(read.ended);
            return if write.value.is_none() { Ok(()) } else { Err(Broken::NotOneDot) };
        }
        self.tombstones.insert(dot);
        let possible = self.unknown_deletes(read).count();
        if self.tombstones.len() <= possible { Ok(()) } else { Err(Broken::Invented) }
    }

    fn unknown_deletes(&self, read: &Operation) -> impl Iterator<Item = usize> {
        let before = read.ended;
        let may_be = move |write: &Written<'_>| {
            write.value.is_none() && write.operation.outcome == Outcome::Unknown && write.operation.begun < before
        };
        (0..self.writes.len()).filter(move |at| may_be(&self.writes[*at]))
    }

    /// What each reply says that it replaced, against what the write meant to replace.
    fn check_replies(&mut self) {
        for at in 0..self.writes.len() {
            let Written { operation, replaces, .. } = self.writes[at];
            let Outcome::Written { superseded, .. } = &operation.outcome else { continue };
            let seen = match replaces {
                Replaces::Held => continue,
                Replaces::Nothing => BTreeSet::new(),
                Replaces::Shown(name) => self.shown_by(name),
            };
            for dot in superseded {
                // A GET does not show the tombstone that it has seen.
                let may_be_a_tombstone = self.dots.get(dot).is_none_or(|at| self.writes[*at].value.is_none());
                let excused = may_be_a_tombstone && replaces != Replaces::Nothing;
                if !seen.contains(dot) && !excused {
                    self.accuse(operation.name, *dot, Broken::ReplacedUnseen);
                }
            }
        }
    }

    /// The versions that the context of a reply has certainly seen. That of a write has seen more, but nothing that its
    /// write did not find replaced already.
    fn shown_by(&self, name: Name) -> BTreeSet<Dot> {
        match self.operations.get(&name).map(|operation| &operation.outcome) {
            Some(Outcome::Shown { versions, .. }) => versions.iter().map(|version| version.dot).collect(),
            Some(Outcome::Written { dot, superseded, .. }) => superseded.iter().chain([dot]).copied().collect(),
            Some(Outcome::Refused | Outcome::Unknown) | None => BTreeSet::new(),
        }
    }

    /// The deletes that it may have seen besides: a GET does not show tombstones, and its context covers them.
    fn hidden_from(&self, name: Name) -> impl Iterator<Item = usize> {
        let hides = |operation: &&&Operation| matches!(operation.outcome, Outcome::Shown { tombstones: false, .. });
        let before = self.operations.get(&name).filter(hides).map(|read| read.ended);
        (0..self.writes.len()).filter(move |at| {
            let write = &self.writes[*at];
            write.value.is_none() && before.is_some_and(|before| write.operation.begun < before)
        })
    }

    /// From when on each version is known to be replaced: a reply says so, or a read that must show it does not.
    fn find_gone(&mut self) {
        for at in 0..self.writes.len() {
            let operation = self.writes[at].operation;
            let Outcome::Written { superseded, .. } = &operation.outcome else { continue };
            for dot in superseded {
                if let Some(&replaced) = self.dots.get(dot) {
                    let gone = &mut self.writes[replaced].gone;
                    *gone = operation.ended.min(*gone);
                }
            }
        }
        for read in &self.reads {
            let shown: BTreeSet<Dot> = read.versions.iter().map(|version| version.dot).collect();
            for write in &mut self.writes {
                let visible = read.tombstones || write.value.is_some();
                let missing = write.dot.is_none_or(|dot| !shown.contains(&dot));
                if visible && missing && write.certain < read.operation.begun {
                    write.gone = write.gone.min(read.operation.ended);
                }
            }
        }
    }

    fn check_lost(&mut self, read: usize) {
        let explained = self.explained(&self.reads[read]);
        let Read { operation, .. } = self.reads[read];
        let is_lost = |(at, write): &(usize, &Written<'_>)| write.certain < operation.begun && !explained[*at];
        let lost: Vec<Dot> =
            self.writes.iter().enumerate().filter(is_lost).filter_map(|(_, write)| write.dot).collect();
        lost.into_iter().for_each(|dot| self.accuse(operation.name, dot, Broken::Lost));
    }

    /// For each write whether it is there, by what a read shows, or may have been replaced, step by step, by one that
    /// is.
    fn explained(&self, read: &Read<'_>) -> Vec<bool> {
        let mut explained = vec![false; self.writes.len()];
        let mut next: Vec<usize> =
            read.versions.iter().filter_map(|shown| self.dots.get(&shown.dot).copied()).collect();
        if read.versions.iter().any(|shown| self.tombstones.contains(&shown.dot)) {
            next.extend(self.unknown_deletes(read.operation));
        }
        if !read.tombstones {
            let hidden = |write: &Written<'_>| {
                write.value.is_none()
                    && write.operation.begun < read.operation.ended
                    && write.operation.outcome != Outcome::Refused
            };
            next.extend((0..self.writes.len()).filter(|at| hidden(&self.writes[*at])));
        }
        while let Some(at) = next.pop() {
            if !std::mem::replace(&mut explained[at], true) {
                next.extend(self.replaced[at].iter().filter(|replaced| !explained[**replaced]));
            }
        }
        explained
    }

    fn may_have_replaced(&self, at: usize) -> Vec<usize> {
        let Written { operation, replaces, .. } = self.writes[at];
        let mut replaced = vec![];
        let mut dots = BTreeSet::new();
        if let Outcome::Written { superseded, .. } = &operation.outcome {
            dots.extend(superseded);
        }
        match replaces {
            Replaces::Nothing => {}
            Replaces::Shown(name) => {
                dots.extend(self.shown_by(name));
                replaced.extend(self.hidden_from(name));
            }
            Replaces::Held if operation.outcome == Outcome::Unknown => {
                let begun = |other: &usize| self.writes[*other].operation.begun < operation.ended;
                replaced.extend((0..self.writes.len()).filter(begun));
            }
            Replaces::Held => {}
        }
        replaced.extend(dots.iter().filter_map(|dot| self.dots.get(dot)));
        if dots.iter().any(|dot| !self.dots.contains_key(dot)) {
            replaced.extend(self.nameless());
        }
        replaced
    }

    /// Writes that may stand behind a dot that nobody has named.
    fn nameless(&self) -> impl Iterator<Item = usize> {
        let is_nameless = |write: &Written<'_>| write.dot.is_none() && write.operation.outcome == Outcome::Unknown;
        (0..self.writes.len()).filter(move |at| is_nameless(&self.writes[*at]))
    }

    fn check_came_back(&mut self, read: usize) {
        let Read { operation, versions, .. } = self.reads[read];
        for shown in versions {
            let gone = self.dots.get(&shown.dot).map_or(Moment::NEVER, |at| self.writes[*at].gone);
            if gone < operation.begun {
                self.accuse(operation.name, shown.dot, Broken::CameBack);
            }
        }
    }

    fn check_left_beside(&mut self, read: usize) {
        let Read { operation, versions, .. } = self.reads[read];
        let there: Vec<usize> = versions.iter().filter_map(|shown| self.dots.get(&shown.dot).copied()).collect();
        for &later in &there {
            let write = &self.writes[later];
            let seen = match write.replaces {
                Replaces::Shown(name) => self.shown_by(name),
                Replaces::Held | Replaces::Nothing => BTreeSet::new(),
            };
            let is_left = |earlier: &&usize| {
                let Written { dot, certain, .. } = self.writes[**earlier];
                let held = write.replaces == Replaces::Held && certain < write.operation.begun;
                held || dot.is_some_and(|dot| seen.contains(&dot))
            };
            let left: Vec<Dot> = there.iter().filter(is_left).filter_map(|at| self.writes[*at].dot).collect();
            left.into_iter().for_each(|dot| self.accuse(operation.name, dot, Broken::LeftBeside));
        }
    }
}

#[cfg(test)]
mod tests;
