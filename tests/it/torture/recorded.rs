//! Clients that put, delete, read and send batches, and tell a history what they asked and what they were told.
//!
//! Most work on a few hot keys: blind, with contexts, asking for siblings. Some move bulk in batches, so that chunks
//! are ingested and segments used again while the rest goes on. Half of the clients name their operations.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use sloop::client::{Causality, Client, Error, Options, Result as Asked};
use sloop::protocol::message::{Copies, Delete, Failure, Found, Get, Put, Reply, Request, Terms, Written};
use sloop::protocol::types::{Dot, Key, Value};
use sloop::verify::{Action, Event, History, Level, Name, Outcome, Replaces, Shown, judge};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::dice::Dice;

/// Clients that work at once, each on a connection of its own.
const CLIENTS: u32 = 16;
/// Those among them that move bulk.
const BULK_CLIENTS: u32 = 4;
const CHECKER: u32 = CLIENTS;

/// Keys that most clients write in one round, and those for bulk.
const HOT_KEYS: usize = 6;
const BULK_KEYS: usize = 160;
/// Rounds after which the clients turn to other keys: the judge's work grows with the square of a key's history. The
/// old keys are read once more at the end.
const ROUNDS_OF_A_KEY: u32 = 10;

/// Keys of one batch, and the bytes of a value in it.
const BATCH: usize = 8;
const BULK_BYTES: usize = 100_000;

/// What the clients of all rounds were told.
#[derive(Default)]
pub(crate) struct Record {
    history: History,
    /// Operations whose end is not known: only the end of the node tells that nothing will come of them.
    open: BTreeSet<Name>,
    acknowledged: u64,
    overdue: u64,
    /// Failures that no node that is well gives.
    surprises: Vec<String>,
}

impl Record {
    fn hear(&mut self, told: Told) {
        match told {
            Told::Event(event) => self.take(event),
            Told::Overdue => self.overdue += 1,
            Told::Surprise(what) => self.surprises.push(what),
        }
    }

    fn take(&mut self, event: Event) {
        match &event {
            Event::Begin { name, .. } => self.open.insert(*name),
            Event::End { name, outcome } => {
                self.acknowledged += u64::from(matches!(outcome, Outcome::Written { .. }));
                self.open.remove(name)
            }
            Event::Rest => false,
        };
        self.history.record(event);
    }

    /// The process is dead: nothing can come of what is open any more.
    pub(crate) fn node_ended(&mut self) {
        for name in std::mem::take(&mut self.open) {
            self.history.record(Event::End { name, outcome: Outcome::Unknown });
        }
    }

    /// Writes that were acknowledged until now.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Operations whose clients were left without an answer until their deadline.
    pub(crate) fn overdue(&self) -> u64 {
        self.overdue
    }

    /// Operations, and acknowledged writes among them.
    pub(crate) fn totals(&self) -> (usize, usize) {
        self.history.totals()
    }

    /// Every broken promise and every failure without a fault, a line each.
    pub(crate) fn judged(&self) -> Vec<String> {
        self.surprises.iter().cloned().chain(judge(&self.history).iter().map(ToString::to_string)).collect()
    }

    /// The history, for who wants to judge it otherwise.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }
}

/// Clients at work on one life of a node.
pub(crate) struct Crowd {
    clients: JoinSet<()>,
    told: UnboundedReceiver<Told>,
}

enum Told {
    Event(Event),
    /// A client gave up waiting and goes on.
    Overdue,
    /// A client was told what it should not have been.
    Surprise(String),
}

impl Crowd {
    /// Sends the clients to work. `deadline` is the time that they give the node.
    pub(crate) fn begin(to: SocketAddr, round: u32, deadline: Duration, dice: &mut Dice) -> Crowd {
        let (sender, told) = unbounded_channel();
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let names = client.is_multiple_of(2);
            let way = Way { to, client, round, deadline, names, told: sender.clone() };
            let dice = dice.split();
            if client < BULK_CLIENTS {
                clients.spawn(move_bulk(way, dice))
            } else {
                clients.spawn(work(way, dice))
            };
        }
        Crowd { clients, told }
    }

    /// Takes what the clients tell until `enough`.
    pub(crate) async fn until(&mut self, record: &mut Record, enough: impl Fn(&Record) -> bool) {
        while !enough(record) {
            assert!(self.listen(record).await, "no client ends before its node");
        }
    }

    /// Takes the next thing that a client tells; false when all of them have ended.
    pub(crate) async fn listen(&mut self, record: &mut Record) -> bool {
        self.told.recv().await.map(|told| record.hear(told)).is_some()
    }

    /// The node is dead: ends the clients and takes the rest of what they told.
    pub(crate) async fn end(mut self, record: &mut Record) {
        self.clients.shutdown().await;
        while let Ok(told) = self.told.try_recv() {
            record.hear(told);
        }
        record.node_ended();
    }
}

/// Reads the keys of these rounds, by a GET and with their tombstones. `as_round` names the reads.
pub(crate) async fn check(to: SocketAddr, as_round: u32, rounds: impl Iterator<Item = u32>, record: &mut Record) {
    let (sender, mut told) = unbounded_channel();
    let deadline = Duration::from_secs(30);
    let way = Way { to, client: CHECKER, round: as_round, deadline, names: true, told: sender };
    let mut checker = Worker::new(way).await;
    for key in rounds.flat_map(|round| hot_keys(round).chain(bulk_keys(round))) {
        for request in [get(key.clone()), Request::Siblings(key.clone())] {
            let asked = checker.ask(key.clone(), Action::Read, request).await;
            assert!(asked.is_continue(), "a node that is up answers reads");
        }
    }
    drop(checker);
    while let Some(told) = told.recv().await {
        record.hear(told);
    }
}

/// One round of each set of keys that was written up to this one.
pub(crate) fn eras(last: u32) -> impl Iterator<Item = u32> {
    (0..=last / ROUNDS_OF_A_KEY).map(|era| era * ROUNDS_OF_A_KEY)
}

fn hot_keys(round: u32) -> impl Iterator<Item = Key> {
    let era = round / ROUNDS_OF_A_KEY;
    (0..HOT_KEYS).map(move |n| Key::new(format!("key-{era}-{n}")).unwrap())
}

fn bulk_keys(round: u32) -> impl Iterator<Item = Key> {
    let era = round / ROUNDS_OF_A_KEY;
    (0..BULK_KEYS).map(move |n| Key::new(format!("bulk-{era}-{n}")).unwrap())
}

fn get(key: Key) -> Request {
    Request::Get(Get { key, terms: Terms::default() })
}

/// What the history keeps of a value: its beginning, which no other value has, its length and its sum. All values of
/// all rounds would not fit in memory.
fn mark(value: &Value) -> Value {
    let bytes = value.as_bytes();
    let begins = &bytes[..bytes.len().min(24)];
    Value::new([begins, format!(" {} {:08x}", bytes.len(), crc32c::crc32c(bytes)).as_bytes()].concat()).unwrap()
}

/// One node's word is enough for its judge, whom it counts does not matter.
fn acknowledged(dot: Dot, superseded: &[Dot]) -> Outcome {
    Outcome::Written { dot, superseded: superseded.to_vec(), level: Level::default(), retried: false }
}

fn read_shows(versions: Vec<Shown>, tombstones: bool) -> Outcome {
    Outcome::Shown { versions, tombstones, level: Level::default() }
}

/// One client: works until its node is gone.
async fn work(way: Way, mut dice: Dice) {
    let mut worker = Worker::new(way).await;
    let keys: Vec<Key> = hot_keys(worker.way.round).collect();
    loop {
        let key = keys[dice.index(keys.len())].clone();
        let (replaces, causality) = worker.chosen(&key, &mut dice);
        let (action, request) = match dice.below(10) {
            0..3 => (Action::Read, get(key.clone())),
            3..4 => (Action::Read, Request::Siblings(key.clone())),
            4..6 => {
                let delete = Delete { key: key.clone(), causality, operation: None, terms: Terms::default() };
                (Action::Write { value: None, replaces }, Request::Delete(delete))
            }
            _ => {
                let bytes = dice_bytes(&mut dice);
                let value = worker.value(0, bytes);
                let action = Action::Write { value: Some(mark(&value)), replaces };
                let put = Put { key: key.clone(), value, causality, operation: None, terms: Terms::default() };
                (action, Request::Put(put))
            }
        };
        if worker.ask(key, action, request).await.is_break() {
            return;
        }
    }
}

/// Bytes of a value: few mostly, sometimes a large one.
fn dice_bytes(dice: &mut Dice) -> usize {
    match dice.below(40) {
        0 => 300_000 + dice.index(700_000),
        1..3 => 60_000,
        3..8 => 5_000,
        _ => dice.index(200),
    }
}

/// One client that writes and reads batches until its node is gone.
async fn move_bulk(way: Way, mut dice: Dice) {
    let mut worker = Worker::new(way).await;
    let keys: Vec<Key> = bulk_keys(worker.way.round).collect();
    loop {
        let batch: Vec<Key> = (0..BATCH).map(|_| keys[dice.index(keys.len())].clone()).collect();
        let asked = if dice.below(4) == 0 { worker.read_many(batch).await } else { worker.write_many(batch).await };
        if asked.is_break() {
            return;
        }
    }
}

/// Who a client is, and where it goes.
struct Way {
    to: SocketAddr,
    client: u32,
    round: u32,
    deadline: Duration,
    names: bool,
    told: UnboundedSender<Told>,
}

struct Worker {
    node: Client,
    way: Way,
    operations: u32,
    /// The last reply that gave a context, and for which key.
    known: Option<(Name, Key, Bytes)>,
}

impl Worker {
    async fn new(way: Way) -> Worker {
        let mut options = Options::new(way.to.to_string());
        options.operation_ids = way.names;
        options.deadline = way.deadline;
        options.connect_timeout = Duration::from_secs(30);
        let node = options.connect().await.expect("a node that is ready takes connections");
        Worker { node, way, operations: 0, known: None }
    }

    /// What the next write of this key replaces, as the judge and as the node is told.
    fn chosen(&self, key: &Key, dice: &mut Dice) -> (Replaces, Causality) {
        match (&self.known, dice.below(4)) {
            (Some((name, of, context)), 0..3) if of == key => {
                (Replaces::Shown(*name), Causality::Context(context.clone()))
            }
            (_, 0) => (Replaces::Nothing, Causality::Sibling),
            _ => (Replaces::Held, Causality::Blind),
        }
    }

    /// A value that no other operation writes, all of it made of its name.
    fn value(&self, ahead: u32, bytes: usize) -> Value {
        let Way { client, round, .. } = self.way;
        let name = format!("{client}/{round}/{}/", self.operations + ahead);
        Value::new(name.repeat(1 + bytes / name.len())).unwrap()
    }

    fn begin(&mut self, key: Key, action: Action) -> Name {
        self.operations += 1;
        let name = Name { client: self.way.client, number: self.way.round * 1_000_000 + self.operations };
        self.tell(Told::Event(Event::Begin { name, key, action, asked: Terms::default().into() }));
        name
    }

    /// Asks, and tells the history before and after. Breaks once there is no node.
    async fn ask(&mut self, key: Key, action: Action, request: Request) -> ControlFlow<()> {
        let name = self.begin(key.clone(), action);
        let (outcome, context) = match self.node.ask(request).await {
            Ok(Reply::Found(Found { siblings, context, .. })) => {
                let shown =
                    |sibling: sloop::client::Sibling| Shown { dot: sibling.dot, value: Some(mark(&sibling.value)) };
                let versions = siblings.into_iter().map(shown).collect();
                (read_shows(versions, false), context)
            }
            Ok(Reply::Siblings(Copies { copies, context })) => {
                let shown = |copy: sloop::client::Copy| Shown { dot: copy.dot, value: copy.value.as_ref().map(mark) };
                (read_shows(copies.into_iter().map(shown).collect(), true), context)
            }
            Ok(Reply::Written(Written { dot, superseded, context, .. })) => (acknowledged(dot, &superseded), context),
            Ok(other) => panic!("{name:?} was answered by {other:?}"),
            Err(error) => return self.failed(name, &error),
        };
        self.known = (!context.is_empty()).then_some((name, key, context));
        self.tell(Told::Event(Event::End { name, outcome }));
        ControlFlow::Continue(())
    }

    async fn write_many(&mut self, keys: Vec<Key>) -> ControlFlow<()> {
        let values: Vec<Value> = (0..).zip(&keys).map(|(ahead, _)| self.value(ahead, BULK_BYTES)).collect();
        let write = |value| Action::Write { value: Some(mark(value)), replaces: Replaces::Held };
        let names: Vec<Name> =
            keys.iter().zip(&values).map(|(key, value)| self.begin(key.clone(), write(value))).collect();
        let pairs = keys.iter().zip(values).map(|(key, value)| (key.as_bytes(), value.bytes().clone()));
        let written = self.node.put_many(pairs).await;
        self.ended(names, written, |Written { dot, superseded, .. }| acknowledged(dot, &superseded))
    }

    async fn read_many(&mut self, keys: Vec<Key>) -> ControlFlow<()> {
        let names: Vec<Name> = keys.iter().map(|key| self.begin(key.clone(), Action::Read)).collect();
        let read = self.node.get_many(keys.iter().map(Key::as_bytes)).await;
        let shown = |sibling: &sloop::client::Sibling| Shown { dot: sibling.dot, value: Some(mark(&sibling.value)) };
        self.ended(names, read, |entry| read_shows(entry.siblings().iter().map(shown).collect(), false))
    }

    /// Tells how each of a batch ended.
    fn ended<T>(&mut self, names: Vec<Name>, ends: Vec<Asked<T>>, outcome: impl Fn(T) -> Outcome) -> ControlFlow<()> {
        let mut next = ControlFlow::Continue(());
        for (name, end) in names.into_iter().zip(ends) {
            match end {
                Ok(done) => self.tell(Told::Event(Event::End { name, outcome: outcome(done) })),
                Err(error) if self.failed(name, &error).is_break() => next = ControlFlow::Break(()),
                Err(_) => {}
            }
        }
        next
    }

    /// What may have been written stays open: only the node's end closes it. Who waited in vain goes on.
    fn failed(&self, name: Name, error: &Error) -> ControlFlow<()> {
        if !error.may_have_written() {
            self.tell(Told::Event(Event::End { name, outcome: Outcome::Refused }));
        }
        match error {
            Error::Connection { .. } => return ControlFlow::Break(()),
            Error::Deadline { .. } | Error::Failure(Failure::QuorumNotMet { .. }) => self.tell(Told::Overdue),
            // A full queue, a node that stops, a set that has grown to its bound.
            Error::Failure(Failure::Overloaded { .. } | Failure::Stopping | Failure::SetLimit(_)) => {}
            other => self.tell(Told::Surprise(format!("{name:?}: {other}"))),
        }
        ControlFlow::Continue(())
    }

    fn tell(&self, told: Told) {
        // A round that is over listens no more.
        let _ = self.way.told.send(told);
    }
}
