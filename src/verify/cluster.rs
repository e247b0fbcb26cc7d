//! The judge of clusters: what each read of R owners must show of the writes that W owners had acknowledged before.
//!
//! In a cluster a write without an acknowledgement may be seen by one read and missed by the next, one that fallbacks
//! took is seen when it has been delivered, a write without a context replaces what its coordinator holds, which may be
//! less than others do, and a write that a node handed on twice is there under two names. So a read is accused
//!
//! - that misses a version which counts, unless a version that it shows replaced it, step by step, or a deletion did;
//! - that shows a version which one that counts is known to have replaced;
//! - that shows what nobody wrote, or what was refused.
//!
//! And a write is accused whose reply says that it replaced what its context cannot have seen, or that fewer have it
//! than were asked for.
//!
//! A write counts for a read that began after it was acknowledged when R + W > N and W owners have it; once all has
//! come to rest also when others stand in for owners. What a write may have replaced:
//!
//! | the write | may have replaced |
//! |---|---|
//! | acknowledged | what its reply names |
//! | with a context | what the reply that gave the context showed, or wrote and replaced |
//! | without one, and without a reply or tried again | anything |
//! | that names one which nobody was told | also every write without a reply, and every one that was tried again |
//!
//! Anything, since the other try may be done by a node that stood still, in place of what that holds, long after.

mod missed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::history::{Action, History, Level, List, Moment, Name, Operation, Outcome, Replaces, Shown};
use crate::protocol::types::{Dot, Key, Value};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: Key,
    /// Which promise.
    pub promise: Broken,
    /// The operation in which it shows.
    pub shown_by: Name,
    /// Other operations that matter, few.
    pub others: Vec<Name>,
    /// What is wrong, in a sentence.
    pub what: String,
}

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// A read misses an acknowledged write, and shows nothing that may have replaced it.
    Missed,
    /// A version is shown after a write that counts had replaced it.
    CameBack,
    /// A version is there that no client wrote, or had not yet written.
    Invented,
    /// A write is there whose reply said that nothing was written.
    RefusedButWritten,
    /// Two writes under one dot.
    NotOneDot,
    /// A write replaced what its context cannot have seen.
    ReplacedUnseen,
    /// A reply that counts fewer than were asked for.
    TooFew,
}

impl Broken {
    /// Its name: words with dashes.
    pub fn name(self) -> &'static str {
        match self {
            Broken::Missed => "missed",
            Broken::CameBack => "came-back",
            Broken::Invented => "invented",
            Broken::RefusedButWritten => "refused-but-written",
            Broken::NotOneDot => "not-one-dot",
            Broken::ReplacedUnseen => "replaced-unseen",
            Broken::TooFew => "too-few",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

impl Violation {
    /// The operations that matter, in the order in which they began.
    pub fn operations<'a>(&self, history: &'a History) -> Vec<&'a Operation> {
        let matters = |operation: &&Operation| operation.name == self.shown_by || self.others.contains(&operation.name);
        let mut operations: Vec<&Operation> = history.of_key(&self.key).iter().filter(matters).collect();
        operations.sort_by_key(|operation| operation.begun);
        operations
    }
}

/// Every broken promise of a history, by key. A write that is missed is told once, by the first read that misses it.
pub fn judge(history: &History) -> Vec<Violation> {
    history.keys().flat_map(|(key, operations)| Case::new(key, operations, history.rests()).verdict()).collect()
}

/// One key.
struct Case<'a> {
    key: &'a Key,
    /// When all was at rest, in their order.
    rests: Vec<Moment>,
    operations: BTreeMap<Name, &'a Operation>,
    /// In the order in which they began.
    writes: Vec<Write<'a>>,
    /// In the order in which they began.
    reads: Vec<Read<'a>>,
    values: BTreeMap<&'a Value, usize>,
    /// The write behind each name of a version.
    dots: BTreeMap<Dot, usize>,
    violations: Vec<Violation>,
}

struct Write<'a> {
    operation: &'a Operation,
    value: Option<&'a Value>,
    replaces: Replaces,
    /// Versions that it is known to have replaced, if it was acknowledged.
    replaced: BTreeSet<Dot>,
    /// Further versions that it may have replaced.
    maybe: BTreeSet<Dot>,
    /// Whether there may be more of it than its reply says.
    is_vague: bool,
}

#[derive(Clone, Copy)]
struct Read<'a> {
    operation: &'a Operation,
    versions: &'a [Shown],
    tombstones: bool,
    level: Level,
}

impl Write<'_> {
    /// Who has it, if it was acknowledged.
    fn level(&self) -> Option<Level> {
        match self.operation.outcome {
            Outcome::Written { level, .. } => Some(level),
            _ => None,
        }
    }

    /// Whether it may have replaced anything.
    fn may_be_all(&self) -> bool {
        self.is_vague && self.replaces == Replaces::Held
    }

    /// A read does not show a tombstone, and what that replaced is not missed.
    fn hides_from(&self, read: &Operation) -> bool {
        self.value.is_none() && self.operation.outcome != Outcome::Refused && self.operation.begun < read.ended
    }
}

impl<'a> Case<'a> {
    fn new(key: &'a Key, operations: &'a [Operation], rests: &[Moment]) -> Case<'a> {
        let mut rests = rests.to_vec();
        rests.sort();
        let mut case = Case {
            key,
            rests,
            operations: operations.iter().map(|operation| (operation.name, operation)).collect(),
            writes: vec![],
            reads: vec![],
            values: BTreeMap::new(),
            dots: BTreeMap::new(),
            violations: vec![],
        };
        let mut operations: Vec<&Operation> = operations.iter().collect();
        operations.sort_by_key(|operation| operation.begun);
        operations.into_iter().for_each(|operation| case.add(operation));
        case
    }

    fn add(&mut self, operation: &'a Operation) {
        match &operation.action {
            Action::Write { value, replaces } => self.add_write(operation, value.as_ref(), *replaces),
            Action::Read => {
                if let Outcome::Shown { versions, tombstones, level } = &operation.outcome {
                    self.reads.push(Read { operation, versions, tombstones: *tombstones, level: *level });
                }
            }
        }
    }

    fn add_write(&mut self, operation: &'a Operation, value: Option<&'a Value>, replaces: Replaces) {
        let at = self.writes.len();
        let (mut replaced, mut maybe) = (BTreeSet::new(), BTreeSet::new());
        if let Replaces::Shown(name) = replaces {
            match self.operations.get(&name).map(|operation| &operation.outcome) {
                Some(Outcome::Shown { versions, .. }) => replaced.extend(versions.iter().map(|version| version.dot)),
                // Its dot may stand apart in the context: it is replaced only where the coordinator has met it.
                Some(Outcome::Written { dot, superseded, .. }) => maybe.extend(superseded.iter().chain([dot])),
                Some(Outcome::Refused | Outcome::Unknown) | None => {}
            }
        }
        let mut is_vague = operation.outcome == Outcome::Unknown;
        if let Outcome::Written { dot, superseded, retried, .. } = &operation.outcome {
            replaced.extend(superseded);
            is_vague |= retried;
            self.name(*dot, at, operation);
        }
        if let Some(value) = value {
            self.values.insert(value, at);
        }
        self.writes.push(Write { operation, value, replaces, replaced, maybe, is_vague });
    }

    fn name(&mut self, dot: Dot, at: usize, by: &Operation) {
        if let Some(other) = self.dots.insert(dot, at).filter(|other| *other != at) {
            let others = vec![self.writes[other].operation.name];
            self.accuse(Broken::NotOneDot, by.name, others, format!("two writes have the name {dot}"));
        }
    }

    fn accuse(&mut self, promise: Broken, shown_by: Name, others: Vec<Name>, what: String) {
        self.violations.push(Violation { key: self.key.clone(), promise, shown_by, others, what });
    }

    fn verdict(mut self) -> Vec<Violation> {
        for read in self.reads.clone() {
            read.versions.iter().for_each(|version| self.name_shown(read.operation, version));
        }
        self.check_replies();
        self.check_missed();
        self.check_came_back();
        self.violations
    }

    fn name_shown(&mut self, read: &Operation, version: &Shown) {
        let Some(value) = &version.value else { return self.name_tombstone(read, version.dot) };
        let by = read.name;
        let Some(&at) = self.values.get(value) else {
            let what = format!("{by} shows {value:?}, which nobody wrote");
            return self.accuse(Broken::Invented, by, vec![], what);
        };
        let write = self.writes[at].operation;
        if write.outcome == Outcome::Refused {
            let what = format!("{by} shows {value:?}, which was refused");
            self.accuse(Broken::RefusedButWritten, by, vec![write.name], what);
        }
        if read.ended < write.begun {
            let what = format!("{by} shows {value:?} before it was written");
            self.accuse(Broken::Invented, by, vec![write.name], what);
        }
        self.name(version.dot, at, read);
    }

    /// Which delete a tombstone belongs to tells only a reply.
    fn name_tombstone(&mut self, read: &Operation, dot: Dot) {
        let by = read.name;
        if let Some(write) = self.dots.get(&dot).map(|at| &self.writes[*at])
            && write.value.is_some()
        {
            let (what, others) = (format!("{by} shows a value's name {dot} as deleted"), vec![write.operation.name]);
            self.accuse(Broken::NotOneDot, by, others, what);
        } else if !self.writes.iter().any(|write| write.hides_from(read)) {
            self.accuse(Broken::Invented, by, vec![], format!("{by} shows the deletion {dot}, which nobody asked for"));
        }
    }

    /// What each reply says that it replaced, and who has it, against what was asked.
    fn check_replies(&mut self) {
        for at in 0..self.writes.len() {
            let Write { operation, replaces, .. } = self.writes[at];
            let Outcome::Written { superseded, level, retried, .. } = &operation.outcome else { continue };
            let name = operation.name;
            for dot in superseded {
                if let Some((what, other)) = self.cannot_have_seen(replaces, *dot) {
                    let what = format!("{name} says that it replaced {dot}, {what}");
                    self.accuse(Broken::ReplacedUnseen, name, other.into_iter().collect(), what);
                }
            }
            let got = if operation.asked.strict { level.owners } else { level.owners.saturating_add(level.fallbacks) };
            if level.n > 0 && !retried && got < level.quorum {
                let what = format!("{name} was acknowledged by {got} of {} that it needs", level.quorum);
                self.accuse(Broken::TooFew, name, vec![], what);
            }
        }
    }

    /// Why a write that replaces this much cannot have seen a version, and whose that is.
    fn cannot_have_seen(&self, replaces: Replaces, dot: Dot) -> Option<(String, Option<Name>)> {
        let other = self.dots.get(&dot).map(|at| self.writes[*at].operation);
        match replaces {
            Replaces::Held => None,
            Replaces::Nothing => Some(("and was to replace nothing".to_owned(), other.map(|other| other.name))),
            Replaces::Shown(context) => {
                let seen_by = self.operations.get(&context).map_or(Moment::NEVER, |context| context.ended);
                let other = other.filter(|other| seen_by < other.begun)?;
                Some((format!("which began after its context, that of {context}"), Some(other.name)))
            }
        }
    }

    /// Whether every read that began like this one has this write, or what replaced it, if it ended before. What was
    /// acknowledged under one layout is fetched by all who are new in the next; majorities meet across layouts.
    fn counts(&self, write: &Write<'_>, read: &Read<'_>) -> bool {
        let Some(level) = write.level() else { return false };
        write.operation.ended < read.operation.begun
            && (meets(level, read.level) || self.has_rested(write.operation.ended, read.operation.begun))
    }

    fn has_rested(&self, after: Moment, before: Moment) -> bool {
        let next = self.rests.partition_point(|rest| *rest <= after);
        self.rests.get(next).is_some_and(|rest| *rest < before)
    }

    fn check_came_back(&mut self) {
        let mut replacers: BTreeMap<Dot, Vec<usize>> = BTreeMap::new();
        for (at, write) in self.writes.iter().enumerate() {
            for dot in &write.replaced {
                replacers.entry(*dot).or_default().push(at);
            }
        }
        for read in self.reads.clone().into_iter().filter(|read| !read.tombstones) {
            for version in read.versions {
                let by = replacers.get(&version.dot).into_iter().flatten().map(|at| &self.writes[*at]);
                let Some(by) = by.into_iter().find(|by| self.counts(by, &read)) else { continue };
                let (name, by, replaces) = (read.operation.name, by.operation.name, by.replaces);
                let mut others = vec![by];
                others.extend(self.dots.get(&version.dot).map(|at| self.writes[*at].operation.name));
                others.extend(if let Replaces::Shown(context) = replaces { Some(context) } else { None });
                let what = format!("{name} shows {}, which {by} had replaced", List(std::slice::from_ref(version)));
                self.accuse(Broken::CameBack, name, others, what);
            }
        }
    }
}

/// Whether a read meets a write in one owner at least.
fn meets(write: Level, read: Level) -> bool {
    let is_majority = |level: Level| u16::from(level.n) < 2 * u16::from(level.quorum);
    let overlaps = u16::from(write.n) < u16::from(write.quorum) + u16::from(read.quorum);
    0 < write.n
        && 0 < read.n
        && write.quorum <= write.owners
        && read.quorum <= read.owners
        && overlaps
        && (write.n == read.n || is_majority(write) && is_majority(read))
}
