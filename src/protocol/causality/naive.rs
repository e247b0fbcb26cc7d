//! The naive twin: causality by full histories, slow and obvious.
//!
//! A [`History`] is every write that a replica knows of, and each write names every dot in its past. Joining is the
//! union of two histories; a version is gone when a known write has it in its past. No vector, no order, no
//! cleverness: what [`Siblings`] does in a few comparisons must come out the same. The property tests and the fuzz
//! target `clock` drive both through one [`World`] of coordinators, replicas and clients.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Context, Operation, Siblings, Supersedes, Update, Write};
use crate::protocol::types::{ActorId, Dot, OperationId, Value, WallTime};

/// Every write that one replica knows of.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct History {
    writes: BTreeMap<Dot, Known>,
}

/// One write with its whole past.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    value: Option<Value>,
    past: BTreeSet<Dot>,
}

/// What a client knows: the dots that a reply showed as one whole, and its own writes since that stand beside siblings.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Knowledge {
    whole: BTreeSet<Dot>,
    own: BTreeSet<Dot>,
}

impl History {
    /// Every dot that was ever heard of here, superseded or not.
    pub fn seen(&self) -> BTreeSet<Dot> {
        let pasts = self.writes.values().flat_map(|known| &known.past);
        self.writes.keys().chain(pasts).copied().collect()
    }

    /// The versions that nothing known has superseded.
    pub fn versions(&self) -> BTreeSet<Dot> {
        let superseded: BTreeSet<&Dot> = self.writes.values().flat_map(|known| &known.past).collect();
        self.writes.keys().filter(|dot| !superseded.contains(dot)).copied().collect()
    }

    fn join(&mut self, other: &History) {
        self.writes.extend(other.writes.clone());
    }
}

/// One step of a rehearsal. Numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client reads a replica's whole set.
    Read {
        /// Which client.
        client: u8,
        /// Which replica.
        replica: u8,
    },
    /// A client writes through a replica.
    Write {
        /// Which client.
        client: u8,
        /// Which replica.
        replica: u8,
        /// 0: with what the client has seen; 1: with what it has seen, a delete; 2: blind; 3: blind, a delete; 4:
        /// asking for a sibling; 5 and 6: as 0 and 4, under one of two operation ids, in a world with operations.
        kind: u8,
    },
    /// One replica takes in the whole set of another.
    Join {
        /// Whose set.
        from: u8,
        /// Who takes it in.
        to: u8,
    },
    /// A lone version arrives, early, late or again.
    Arrive {
        /// Which of the versions minted so far.
        update: u8,
        /// Where.
        to: u8,
    },
    /// A replica draws a new actor.
    Restart {
        /// Which replica.
        replica: u8,
    },
}

impl Step {
    /// Any four bytes are a step.
    pub fn from_bytes([verb, one, two, three]: [u8; 4]) -> Step {
        match verb % 8 {
            0 | 1 => Step::Read { client: one, replica: two },
            2..=4 => Step::Write { client: one, replica: two, kind: three % 7 },
            5 => Step::Join { from: one, to: two },
            6 => Step::Arrive { update: one, to: two },
            _ if three % 4 == 0 => Step::Restart { replica: one },
            _ => Step::Arrive { update: one, to: two },
        }
    }
}

struct Replica {
    set: Siblings,
    history: History,
    actor: ActorId,
}

#[derive(Clone, Default)]
struct Client {
    context: Context,
    knowledge: Knowledge,
}

struct Sent {
    update: Update,
    /// What its coordinator held once it was minted, by both accounts.
    set: Siblings,
    history: History,
    /// What its coordinator had seen before.
    upon: BTreeSet<Dot>,
}

/// Some replicas of one key and some clients, each kept twice: by [`Siblings`] and by [`History`]. Every step checks
/// that both say the same.
pub struct World {
    replicas: Vec<Replica>,
    clients: Vec<Client>,
    sent: Vec<Sent>,
    minted: BTreeSet<Dot>,
    actors: u64,
    /// Counts over all keys, so the counters of this one key have gaps.
    counter: u64,
    operations: bool,
}

impl World {
    /// Empty replicas and clients that know nothing. With `operations`, some writes are tries of the same operation.
    pub fn new(replicas: u8, clients: u8, operations: bool) -> World {
        let replica =
            |n: u8| Replica { set: Siblings::default(), history: History::default(), actor: ActorId(u64::from(n)) };
        World {
            replicas: (0..replicas).map(replica).collect(),
            clients: vec![Client::default(); usize::from(clients)],
            sent: vec![],
            minted: BTreeSet::new(),
            actors: u64::from(replicas),
            counter: 0,
            operations,
        }
    }

    /// The sets of all replicas.
    pub fn sets(&self) -> Vec<Siblings> {
        self.replicas.iter().map(|replica| replica.set.clone()).collect()
    }

    /// Takes one step and compares.
    ///
    /// # Panics
    /// When the two accounts differ, with the claim that broke.
    pub fn step(&mut self, step: Step) {
        let (replicas, clients) = (self.replicas.len(), self.clients.len());
        let replica = |n: u8| usize::from(n) % replicas;
        let client = |n: u8| usize::from(n) % clients;
        match step {
            Step::Read { client: c, replica: r } => self.read(client(c), replica(r)),
            Step::Write { client: c, replica: r, kind } => self.write(client(c), replica(r), kind),
            Step::Join { from, to } => self.join(replica(from), replica(to)),
            Step::Arrive { .. } if self.sent.is_empty() => {}
            Step::Arrive { update, to } => self.arrive(usize::from(update) % self.sent.len(), replica(to)),
            Step::Restart { replica: r } => {
                self.replicas[replica(r)].actor = ActorId(self.actors);
                self.actors += 1;
            }
        }
    }

    fn read(&mut self, client: usize, replica: usize) {
        let (client, replica) = (&mut self.clients[client], &self.replicas[replica]);
        client.context = replica.set.context();
        client.knowledge = Knowledge { whole: replica.history.seen(), own: BTreeSet::new() };
    }

    fn write(&mut self, client: usize, replica: usize, kind: u8) {
        self.counter += 1 + self.counter % 3;
        let (at, client) = (&mut self.replicas[replica], &mut self.clients[client]);
        let dot = Dot { actor: at.actor, counter: self.counter };
        let operation = (self.operations && kind >= 5).then(|| operation(self.counter % 2));
        let value = match kind {
            1 | 3 => None,
            _ if operation.is_some() => Some(value(0)),
            _ => Some(value(self.counter)),
        };
        let supersedes = match kind {
            0 | 1 | 5 => Supersedes::Seen(client.context.clone()),
            2 | 3 => Supersedes::Held,
            _ => Supersedes::Nothing,
        };

        // By full histories: the past of a write is what its writer knows, or what its coordinator has seen. A client's
        // own write that the coordinator has not met is left alone: only who has met it can say what it stood upon.
        let upon = at.history.seen();
        let known = &client.knowledge;
        let past: BTreeSet<Dot> = match &supersedes {
            Supersedes::Seen(_) => known.whole.iter().chain(known.own.intersection(&upon)).copied().collect(),
            Supersedes::Held => upon.clone(),
            Supersedes::Nothing => BTreeSet::new(),
        };
        let replaced: Vec<Dot> = at.history.versions().intersection(&past).copied().collect();
        let write = Known { value: value.clone(), past };
        at.history.writes.insert(dot, write);
        let alone = at.history.versions().len() == 1;
        let blank = Knowledge::default();
        let before = match &supersedes {
            Supersedes::Seen(_) => known,
            Supersedes::Held | Supersedes::Nothing => &blank,
        };
        let own: BTreeSet<Dot> = before.own.difference(&upon).copied().collect();
        client.knowledge = if alone {
            let whole = at.history.seen();
            Knowledge { whole, own }
        } else {
            let whole = before.whole.clone();
            Knowledge { whole, own: own.into_iter().chain([dot]).collect() }
        };

        // By vectors.
        let write = Write { value, supersedes, operation, written_at: WallTime(0) };
        let minted = at.set.mint(dot, write).expect("a rehearsal stays below every limit");
        assert_eq!(minted.superseded[..], replaced[..], "the reply names what the write replaced");
        let update = minted.update().cloned();
        at.set = minted.set;
        client.context = minted.context;
        self.minted.insert(dot);
        for dot in &self.minted {
            let knows = client.knowledge.whole.contains(dot) || client.knowledge.own.contains(dot);
            assert_eq!(client.context.covers(*dot), knows, "the writer's context and {dot}");
        }
        self.sent.push(Sent { update, set: at.set.clone(), history: at.history.clone(), upon });
        self.compare(replica);
    }

    fn join(&mut self, from: usize, to: usize) {
        let (set, history) = (self.replicas[from].set.clone(), self.replicas[from].history.clone());
        let at = &mut self.replicas[to];
        at.set = at.set.join(&set);
        at.history.join(&history);
        self.compare(to);
    }

    fn arrive(&mut self, update: usize, to: usize) {
        let (sent, at) = (&self.sent[update], &mut self.replicas[to]);
        let seen = at.history.seen();
        let known = seen.contains(&sent.update.version.dot);
        let taken = at.set.apply(&sent.update);
        assert_eq!(taken.is_ok(), known || sent.upon.is_subset(&seen), "who is behind asks");
        let Ok(set) = taken else { return };
        if !known {
            assert_eq!(set, at.set.join(&sent.set), "a lone version does what its coordinator's set does");
        }
        if let Some(whole) = sent.update.whole() {
            assert_eq!(whole, sent.set, "an update that tells the whole set");
        }
        if !known {
            let dot = sent.update.version.dot;
            at.history.writes.insert(dot, sent.history.writes[&dot].clone());
        }
        at.set = set;
        self.compare(to);
    }

    fn compare(&self, replica: usize) {
        let Replica { set, history, .. } = &self.replicas[replica];
        let versions: BTreeSet<Dot> = set.versions().iter().map(|version| version.dot).collect();
        assert_eq!(versions, history.versions(), "the versions that are left");
        for version in set.versions() {
            assert_eq!(version.value, history.writes[&version.dot].value, "the value of {}", version.dot);
        }
        let seen = history.seen();
        for dot in &self.minted {
            assert_eq!(set.vector().covers(*dot), seen.contains(dot), "whether {dot} was seen");
        }
    }
}

fn value(n: u64) -> Value {
    Value::new(Bytes::copy_from_slice(&n.to_le_bytes())).expect("eight bytes are a value")
}

fn operation(n: u64) -> Box<Operation> {
    Box::new(Operation { id: OperationId::new(n.to_string()).expect("a digit is an id"), digest: 0 })
}
