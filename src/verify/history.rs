//! What clients did and what they were told, in one order of real time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::protocol::message;
use crate::protocol::types::{Dot, Key, Value};

/// A place in the order of a history: of two events, the earlier one was over before the later one began. Events of one
/// moment have no order. Where times are recorded it is microseconds of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// After everything.
    pub const NEVER: Moment = Moment(u64::MAX);
}

/// One operation of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Which client.
    pub client: u32,
    /// Which of its operations.
    pub number: u32,
}

/// As `3#17`: the client, and which of its operations.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.client, self.number)
    }
}

/// What a client tells the history: that it begins, before it sends anything; and how that ended, after the reply. And
/// what somebody tells who knows it of the whole store: that it has come to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operation is about to be sent.
    Begin {
        /// Its name.
        name: Name,
        /// Its key.
        key: Key,
        /// What it asks.
        action: Action,
        /// On which terms.
        asked: Asked,
    },
    /// An operation is over. Tries of one operation under one operation id are one operation, over with the last.
    End {
        /// Its name.
        name: Name,
        /// How.
        outcome: Outcome,
    },
    /// All copies of all keys are the same: nothing is owed, under way, or behind. From now on every read shows every
    /// write that was acknowledged before, or what replaced it.
    Rest,
}

/// The terms of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Asked {
    /// The R of a read, the W of a write; 0 for the store's default.
    pub quorum: u8,
    /// Whether only owners count.
    pub strict: bool,
}

/// Whom a reply counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Level {
    /// Copies that the store keeps of the key; 0 where the reply says nothing, and promises nothing.
    pub n: u8,
    /// The R or W that was used.
    pub quorum: u8,
    /// Owners that have it, or were heard.
    pub owners: u8,
    /// Others that stand in for owners.
    pub fallbacks: u8,
}

impl From<message::Level> for Level {
    fn from(level: message::Level) -> Level {
        let message::Level { n, quorum, owners, fallbacks, hedged: _ } = level;
        Level { n, quorum, owners, fallbacks }
    }
}

impl From<message::Terms> for Asked {
    fn from(terms: message::Terms) -> Asked {
        Asked { quorum: terms.quorum, strict: terms.strict }
    }
}

/// What an operation asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A put, or with `None` a delete.
    Write {
        /// The value. No two writes of a key put the same one: it is how a write without a reply is recognised.
        value: Option<Value>,
        /// What it means to replace.
        replaces: Replaces,
    },
    /// A read.
    Read,
}

/// What a write means to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// What its coordinator holds: no context.
    Held,
    /// Nothing: it asks for a sibling.
    Nothing,
    /// What the reply to this operation showed: the context that came with it.
    Shown(Name),
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write was acknowledged.
    Written {
        /// The name that its version got.
        dot: Dot,
        /// The versions that the reply says it replaced.
        superseded: Vec<Dot>,
        /// Who has it.
        level: Level,
        /// Whether it may have been tried more than once. A node that remembers the first try may not know what that
        /// replaced, and two nodes may have taken it, under two names, each in place of what it held.
        retried: bool,
    },
    /// The read was answered.
    Shown {
        /// What it showed.
        versions: Vec<Shown>,
        /// Whether it shows tombstones too: a siblings request does, a GET does not. Then it is one node's own copy.
        tombstones: bool,
        /// Who was heard.
        level: Level,
    },
    /// Refused with an error that promises that nothing was written.
    Refused,
    /// No reply, or one that promises nothing. The judge of one node wants to be told of a write only once nothing can
    /// come of it any more, which means once the process is dead.
    Unknown,
}

/// One version as a read showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub dot: Dot,
    /// Its value; `None` is a tombstone.
    pub value: Option<Value>,
}

/// An operation from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name.
    pub name: Name,
    /// What it asked.
    pub action: Action,
    /// On which terms.
    pub asked: Asked,
    /// When it was about to be sent.
    pub begun: Moment,
    /// When it was over; never, if nobody said so.
    pub ended: Moment,
    /// How.
    pub outcome: Outcome,
}

/// In one line, its key left out: when, who, what, and what came of it.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { name, action, asked, begun, ended, outcome } = self;
        write!(f, "{} to ", begun.0)?;
        if *ended == Moment::NEVER {
            write!(f, "?")?
        } else {
            write!(f, "{}", ended.0)?
        }
        write!(f, ": {name} {action}{asked}: {outcome}")
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replaces = match self {
            Action::Read => return write!(f, "read"),
            Action::Write { value: Some(value), replaces } => {
                write!(f, "put {value:?}")?;
                replaces
            }
            Action::Write { value: None, replaces } => {
                write!(f, "delete")?;
                replaces
            }
        };
        match replaces {
            Replaces::Held => Ok(()),
            Replaces::Nothing => write!(f, " beside all others"),
            Replaces::Shown(name) => write!(f, " with the context of {name}"),
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.quorum > 0 {
            write!(f, " of {}", self.quorum)?;
        }
        if self.strict { write!(f, " owners only") } else { Ok(()) }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Written { dot, superseded, level, retried } => {
                write!(f, "written as {dot}")?;
                if !superseded.is_empty() {
                    write!(f, ", replaced {superseded:?}")?;
                }
                write!(f, "{level}{}", if *retried { ", maybe tried again" } else { "" })
            }
            Outcome::Shown { versions, level, .. } => write!(f, "shows {}{level}", List(versions)),
            Outcome::Refused => write!(f, "refused"),
            Outcome::Unknown => write!(f, "no reply"),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Level { n, quorum, owners, fallbacks } = self;
        match (n, fallbacks) {
            (0, _) => Ok(()),
            (_, 0) => write!(f, ", {owners} of {n} owners for {quorum}"),
            _ => write!(f, ", {owners} of {n} owners and {fallbacks} fallbacks for {quorum}"),
        }
    }
}

/// Versions with commas between them.
pub(super) struct List<'a>(pub(super) &'a [Shown]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "nothing");
        }
        for (at, Shown { dot, value }) in self.0.iter().enumerate() {
            let before = if at == 0 { "" } else { ", " };
            match value {
                Some(value) => write!(f, "{before}{value:?} ({dot})")?,
                None => write!(f, "{before}a deletion ({dot})")?,
            }
        }
        Ok(())
    }
}

/// All operations, by key.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<Key, Vec<Operation>>,
    places: BTreeMap<Name, (Key, usize)>,
    values: BTreeSet<(Key, Value)>,
    rests: Vec<Moment>,
    last: u64,
}

/// How many operations ended in which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Outcomes {
    /// Acknowledged writes.
    pub written: usize,
    /// Answered reads.
    pub shown: usize,
    /// Refused ones.
    pub refused: usize,
    /// Those without a reply that says what came of them.
    pub unknown: usize,
}

/// An event that cannot be: the recorder is wrong then, and no verdict is worth anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misrecorded {
    /// Two operations of one name.
    #[error("{0} begins a second time")]
    BeginsTwice(Name),
    /// Not only the reply would tell whose value it is.
    #[error("{0} writes the value {1:?}, which was written to {2} before")]
    SameValue(Name, Value, Key),
    /// A context of nowhere.
    #[error("{0} replaces what {1} showed, which has shown nothing of {2} before")]
    NoContext(Name, Name, Key),
    /// An end without a beginning, or before it.
    #[error("{0} ends before it begins")]
    EndsEarly(Name),
    /// Two ends.
    #[error("{0} ends a second time")]
    EndsTwice(Name),
    /// A read that was written, or a write that was shown.
    #[error("{0} ends as what it is not: writes are written, reads are shown")]
    EndsOtherwise(Name),
}

impl History {
    /// Takes the next event, behind all others.
    ///
    /// # Panics
    /// When it is [`Misrecorded`].
    pub fn record(&mut self, event: Event) {
        let next = Moment(self.last + 1);
        self.record_at(next, event).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Takes an event of that moment. Moments may come in any order, but each operation begins before it ends.
    ///
    /// # Errors
    /// [`Misrecorded`]; the event is not taken.
    pub fn record_at(&mut self, at: Moment, event: Event) -> Result<(), Misrecorded> {
        match event {
            Event::Begin { name, key, action, asked } => self.begin(at, name, key, action, asked)?,
            Event::End { name, outcome } => self.end(at, name, outcome)?,
            Event::Rest => self.rests.push(at),
        }
        self.last = self.last.max(at.0);
        Ok(())
    }

    fn begin(&mut self, at: Moment, name: Name, key: Key, action: Action, asked: Asked) -> Result<(), Misrecorded> {
        if self.places.contains_key(&name) {
            return Err(Misrecorded::BeginsTwice(name));
        }
        if let Action::Write { replaces: Replaces::Shown(shown), .. } = &action
            && !self.has_shown(*shown, &key)
        {
            return Err(Misrecorded::NoContext(name, *shown, key));
        }
        if let Action::Write { value: Some(value), .. } = &action
            && !self.values.insert((key.clone(), value.clone()))
        {
            return Err(Misrecorded::SameValue(name, value.clone(), key));
        }
        let operations = self.keys.entry(key.clone()).or_default();
        self.places.insert(name, (key, operations.len()));
        let outcome = Outcome::Unknown;
        operations.push(Operation { name, action, asked, begun: at, ended: Moment::NEVER, outcome });
        Ok(())
    }

    /// Whether the reply to an operation came, and had a context of this key.
    fn has_shown(&self, name: Name, key: &Key) -> bool {
        let place = self.places.get(&name).filter(|(of, _)| of == key);
        let outcome = place.map(|(_, at)| &self.of_key(key)[*at].outcome);
        matches!(outcome, Some(Outcome::Shown { .. } | Outcome::Written { .. }))
    }

    fn end(&mut self, at: Moment, name: Name, outcome: Outcome) -> Result<(), Misrecorded> {
        let Some((key, place)) = self.places.get(&name) else { return Err(Misrecorded::EndsEarly(name)) };
        let operation = &mut self.keys.get_mut(key).expect("begun under this key")[*place];
        match (&operation.action, &outcome) {
            _ if operation.ended != Moment::NEVER => return Err(Misrecorded::EndsTwice(name)),
            _ if at < operation.begun => return Err(Misrecorded::EndsEarly(name)),
            (Action::Read, Outcome::Written { .. }) | (Action::Write { .. }, Outcome::Shown { .. }) => {
                return Err(Misrecorded::EndsOtherwise(name));
            }
            _ => {}
        }
        operation.ended = at;
        operation.outcome = outcome;
        Ok(())
    }

    /// Every key with its operations, in the order in which they were told.
    pub fn keys(&self) -> impl Iterator<Item = (&Key, &[Operation])> {
        self.keys.iter().map(|(key, operations)| (key, &operations[..]))
    }

    /// The operations of one key, in the order in which they were told.
    pub fn of_key(&self, key: &Key) -> &[Operation] {
        self.keys.get(key).map_or(&[], |operations| &operations[..])
    }

    /// When the store was at rest, in the order in which it was told.
    pub fn rests(&self) -> &[Moment] {
        &self.rests
    }

    /// How many operations there are of each outcome.
    pub fn outcomes(&self) -> Outcomes {
        self.keys.values().flatten().fold(Outcomes::default(), |mut counts, operation| {
            *match operation.outcome {
                Outcome::Written { .. } => &mut counts.written,
                Outcome::Shown { .. } => &mut counts.shown,
                Outcome::Refused => &mut counts.refused,
                Outcome::Unknown => &mut counts.unknown,
            } += 1;
            counts
        })
    }

    /// How many operations there are, acknowledged writes among them.
    pub fn totals(&self) -> (usize, usize) {
        let all = || self.keys.values().flatten();
        let written = all().filter(|operation| matches!(operation.outcome, Outcome::Written { .. }));
        (all().count(), written.count())
    }
}
