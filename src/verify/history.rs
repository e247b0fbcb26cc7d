//! What clients did and what they were told, in one order of real time.

use std::collections::BTreeMap;

use crate::protocol::types::{Dot, Key, Value};

/// A place in the order of a history: of two events, the earlier one was over before the later one began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

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

/// What a client tells the history: that it begins, before it sends anything; and how that ended, after the reply.
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
    },
    /// An operation is over. Tries of one operation under one operation id are one operation, over with the last.
    End {
        /// Its name.
        name: Name,
        /// How.
        outcome: Outcome,
    },
}

/// What an operation asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A put, or with `None` a delete.
    Write {
        /// The value. No two writes of a history put the same one: it is how a write without a reply is recognised.
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
    },
    /// The read was answered.
    Shown {
        /// What it showed.
        versions: Vec<Shown>,
        /// Whether it shows tombstones too: a siblings request does, a GET does not.
        tombstones: bool,
    },
    /// Refused with an error that promises that nothing was written.
    Refused,
    /// No reply, or one that promises nothing. For a write it is told only once nothing can come of it any more, which
    /// for one node means once its process is dead.
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
    /// When it was about to be sent.
    pub begun: Moment,
    /// When it was over; never, if nobody said so.
    pub ended: Moment,
    /// How.
    pub outcome: Outcome,
}

/// All operations, by key.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<Key, Vec<Operation>>,
    places: BTreeMap<Name, (Key, usize)>,
    events: u64,
}

impl History {
    /// Takes the next event.
    ///
    /// # Panics
    /// When an operation begins twice, or ends before it begins: the recorder is wrong then, and no verdict is worth
    /// anything.
    pub fn record(&mut self, event: Event) {
        self.events += 1;
        let now = Moment(self.events);
        match event {
            Event::Begin { name, key, action } => {
                let operations = self.keys.entry(key.clone()).or_default();
                let before = self.places.insert(name, (key, operations.len()));
                assert!(before.is_none(), "{name:?} begins a second time");
                operations.push(Operation {
                    name,
                    action,
                    begun: now,
                    ended: Moment::NEVER,
                    outcome: Outcome::Unknown,
                });
            }
            Event::End { name, outcome } => {
                let (key, at) = self.places.get(&name).unwrap_or_else(|| panic!("{name:?} ends before it begins"));
                let operation = &mut self.keys.get_mut(key).expect("begun under this key")[*at];
                operation.ended = now;
                operation.outcome = outcome;
            }
        }
    }

    /// Every key with its operations, in the order in which they began.
    pub fn keys(&self) -> impl Iterator<Item = (&Key, &[Operation])> {
        self.keys.iter().map(|(key, operations)| (key, &operations[..]))
    }

    /// How many operations there are, acknowledged writes among them.
    pub fn totals(&self) -> (usize, usize) {
        let all = || self.keys.values().flatten();
        let written = all().filter(|operation| matches!(operation.outcome, Outcome::Written { .. }));
        (all().count(), written.count())
    }
}
