//! Clients that write few keys at once, some with contexts and some without, while others read, and everything that
//! they were told: for the verdict on a cluster whose owners change.
//!
//! | keys | written |
//! |---|---|
//! | `still-*` | once each, before anything happens |
//! | `seen-*` | with the context of a read, or beside all others |
//! | `blind-*` | without a context, in place of what the coordinator holds |
//!
//! A client has one call under way. A write whose outcome is not known stays open for ever.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use sloop::client::{
    Causality, Client, Delete, Error, Found, Get, Key, Options, Put, Reply, Request, Terms, Value, Written,
};
use sloop::verify::cluster::{Violation, judge};
use sloop::verify::{Action, Event, History, Name, Outcome, Replaces, Shown};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::now;
use crate::dice::{Dice, seed, setting};

/// Keys that all clients write.
const HOT_KEYS: u64 = 24;

/// What a call has, retries included.
const DEADLINE: Duration = Duration::from_secs(10);

/// A write that took longer may have been tried on a second node, by its client or by a node that handed it on.
const TRIED_ONCE: Duration = Duration::from_millis(300);

/// Between two calls of a client.
const PAUSE: Duration = Duration::from_millis(10);

/// Writes of still keys at once.
const FILLERS: u64 = 16;

/// Numbers of the clients that write still keys and read at the end, behind those of all crowds.
const FILLER: u32 = 1_000_000;
const CHECKER: u32 = 2_000_000;

/// What clients of one cluster were told.
#[derive(Default)]
pub(super) struct Record {
    history: History,
    /// How many still keys there are.
    still: u64,
    crowds: u32,
    /// How many ended without an answer that counts, and the first of them.
    failed: usize,
    failure: Option<String>,
}

/// Clients at work on a thread of their own.
pub(super) struct Crowd {
    enough: Arc<AtomicBool>,
    works: JoinHandle<Vec<Heard>>,
}

/// What a client tells: that it asks, and how that ended.
enum Heard {
    Event(Event),
    Failed(Error),
}

impl Record {
    /// Writes so many still keys, with values of so many bytes, through these nodes.
    pub(super) fn fill(&mut self, nodes: &[SocketAddr], keys: u64, bytes: u64) {
        let (told, mut heard) = unbounded_channel();
        let first = self.still;
        runtime().block_on(async {
            let mut fillers = JoinSet::new();
            for filler in 0..FILLERS {
                let number = FILLER + u32::try_from(first + filler).unwrap();
                let mut worker = Worker::new(number, nodes, Dice(seed()), told.clone()).await;
                fillers.spawn(async move {
                    for key in (first..first + keys).skip(usize::try_from(filler).unwrap()).step_by(16) {
                        let value = Value::new(still_value(key, bytes)).unwrap();
                        worker.put(still_key(key), value, (Replaces::Held, Causality::Blind)).await;
                    }
                });
            }
            fillers.join_all().await;
        });
        drop(told);
        self.still = first + keys;
        self.take(&mut heard);
        assert_eq!(self.failed, 0, "nothing is wrong while data is written: {:?}", self.failure);
    }

    /// What the clients of a crowd were told.
    pub(super) fn add(&mut self, crowd: Crowd) {
        crowd.enough.store(true, Ordering::Relaxed);
        crowd.works.join().unwrap().into_iter().for_each(|heard| self.hear(heard));
    }

    fn take(&mut self, heard: &mut UnboundedReceiver<Heard>) {
        while let Ok(heard) = heard.try_recv() {
            self.hear(heard);
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Event(event) => self.history.record(event),
            Heard::Failed(error) => {
                self.failed += 1;
                self.failure.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// Sends the clients to work on these nodes; those that do not answer are passed over.
    #[expect(clippy::disallowed_methods, reason = "clients work beside the test")]
    pub(super) fn crowd(&mut self, nodes: &[SocketAddr]) -> Crowd {
        let clients = u32::try_from(setting("SLOOP_TEST_CLIENTS", 12)).unwrap();
        let first = self.crowds * clients;
        self.crowds += 1;
        let (still, mut dice) = (self.still, Dice(seed() ^ u64::from(self.crowds)));
        let dice: Vec<Dice> = (0..clients).map(|_| dice.split()).collect();
        let (enough, nodes) = (Arc::new(AtomicBool::new(false)), nodes.to_vec());
        let until = Arc::clone(&enough);
        let works = std::thread::spawn(move || {
            let (told, mut heard) = unbounded_channel();
            runtime().block_on(async {
                let mut tasks = JoinSet::new();
                for (number, dice) in (first..).zip(dice) {
                    let mut worker = Worker::new(number, &nodes, dice, told.clone()).await;
                    let until = Arc::clone(&until);
                    tasks.spawn(async move { worker.work(&until, still).await });
                }
                tasks.join_all().await;
            });
            std::iter::from_fn(|| heard.try_recv().ok()).collect()
        });
        Crowd { enough, works }
    }

    /// Everything has come to rest: reads all keys at R 2 through each of these nodes, and judges all reads. No write
    /// that any client was told of may be missing now, those among them that only fallbacks had taken.
    pub(super) fn check(mut self, what: &str, nodes: &[SocketAddr]) {
        let (told, mut heard) = unbounded_channel();
        self.history.record(Event::Rest);
        runtime().block_on(async {
            let mut checkers = JoinSet::new();
            for (number, node) in (CHECKER..).zip(nodes) {
                let mut worker = Worker::new(number, &[*node], Dice(seed()), told.clone()).await;
                let still = self.still;
                checkers.spawn(async move {
                    for key in hot_keys().chain((0..still).map(still_key)) {
                        let terms = Terms { quorum: 2, ..Terms::default() };
                        assert!(worker.get(key.clone(), terms).await.is_some(), "seed {}: {key} is not read", seed());
                    }
                });
            }
            checkers.join_all().await;
        });
        self.take(&mut heard);
        let broken = judge(&self.history);
        let lines: Vec<String> = broken.iter().map(|violation| self.show(violation)).collect();
        assert!(broken.is_empty(), "{what}, seed {}:\n{}", seed(), lines.join("\n"));
        let (calls, written) = self.history.totals();
        println!("{what}: {calls} calls, {written} writes acknowledged, nothing lost and nothing missed");
        println!("  {} without an answer that counts, the first: {:?}", self.failed, self.failure);
    }

    /// What is wrong, and the operations that matter, a line each.
    fn show(&self, violation: &Violation) -> String {
        let operations = violation.operations(&self.history).into_iter();
        operations.fold(violation.to_string(), |lines, operation| format!("{lines}\n  {operation}"))
    }
}

/// Keys in one batch.
const BATCH: u64 = 200;

/// Writes many keys as fast as nodes take them, without a record.
pub(super) async fn put_all(nodes: &[SocketAddr], keys: Range<u64>, name: impl Fn(u64) -> String, bytes: usize) {
    let client = connect(nodes).await;
    for first in keys.clone().step_by(usize::try_from(BATCH).unwrap()) {
        let batch = (first..keys.end.min(first + BATCH)).map(|key| (name(key), format!("{key:bytes$}")));
        for written in client.put_many(batch).await {
            written.unwrap_or_else(|error| panic!("seed {}: a key from {first} on: {error}", seed()));
        }
    }
}

/// Deletes many keys, some at a time.
pub(super) async fn delete_all(nodes: &[SocketAddr], keys: Range<u64>, name: impl Fn(u64) -> String) {
    let client = connect(nodes).await;
    let mut deletes = JoinSet::new();
    for key in keys {
        let (client, name) = (client.clone(), name(key));
        deletes.spawn(async move {
            client.delete(&name).await.unwrap_or_else(|error| panic!("seed {}: {name}: {error}", seed()));
        });
        if u64::try_from(deletes.len()).unwrap() == FILLERS {
            deletes.join_next().await.expect("there are some").unwrap();
        }
    }
    deletes.join_all().await;
}

async fn connect(nodes: &[SocketAddr]) -> Client {
    let mut options = Options::new(nodes.iter().map(SocketAddr::to_string).collect::<Vec<_>>());
    options.deadline = DEADLINE;
    options.connect().await.expect("a node that is ready takes connections")
}

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(super) fn still_key(number: u64) -> Key {
    Key::new(format!("still-{number}")).unwrap()
}

fn still_value(number: u64, bytes: u64) -> String {
    let text = format!("still {number} ");
    text.repeat(1 + usize::try_from(bytes).unwrap() / text.len())[..usize::try_from(bytes).unwrap().max(text.len())]
        .to_owned()
}

fn hot_keys() -> impl Iterator<Item = Key> {
    (0..HOT_KEYS).map(hot_key)
}

/// Half of them are written with contexts.
fn hot_key(number: u64) -> Key {
    let kind = if is_blind(number) { "blind" } else { "seen" };
    Key::new(format!("{kind}-{number}")).unwrap()
}

fn terms(request: &Request) -> Terms {
    match request {
        Request::Get(Get { terms, .. }) | Request::Put(Put { terms, .. }) | Request::Delete(Delete { terms, .. }) => {
            *terms
        }
        Request::Siblings(_) | Request::Keys(_) => Terms::default(),
    }
}

fn is_blind(number: u64) -> bool {
    number.is_multiple_of(2)
}

struct Worker {
    number: u32,
    calls: u32,
    client: Client,
    dice: Dice,
    told: UnboundedSender<Heard>,
}

impl Worker {
    async fn new(number: u32, nodes: &[SocketAddr], dice: Dice, told: UnboundedSender<Heard>) -> Worker {
        let first = usize::try_from(number).unwrap() % nodes.len();
        let order = nodes.iter().cycle().skip(first).take(nodes.len()).map(SocketAddr::to_string);
        let mut options = Options::new(order.collect::<Vec<_>>().join(","));
        options.deadline = DEADLINE;
        // Half of them are clients that know nothing of the ring.
        options.routing = number.is_multiple_of(2);
        let client = options.connect().await.expect("some node is there");
        Worker { number, calls: 0, client, dice, told }
    }

    async fn work(&mut self, until: &AtomicBool, still: u64) {
        while !until.load(Ordering::Relaxed) {
            let number = self.dice.below(HOT_KEYS);
            let key = hot_key(number);
            match self.dice.below(20) {
                0..4 if 0 < still => {
                    let key = still_key(self.dice.below(still));
                    self.get(key, Terms::default()).await;
                }
                0..8 => {
                    self.get(key, Terms::default()).await;
                }
                choice => self.write(key, is_blind(number), choice == 19).await,
            }
            sleep(PAUSE).await;
        }
    }

    async fn write(&mut self, key: Key, is_blind: bool, deletes: bool) {
        let meaning = if is_blind {
            (Replaces::Held, Causality::Blind)
        } else if self.dice.below(16) == 0 && !deletes {
            (Replaces::Nothing, Causality::Sibling)
        } else {
            let Some((name, context)) = self.get(key.clone(), Terms::default()).await else { return };
            (Replaces::Shown(name), Causality::Context(context))
        };
        if deletes {
            let (replaces, causality) = meaning;
            let delete = Delete { key: key.clone(), causality, operation: None, terms: Terms::default() };
            self.ask(key, Action::Write { value: None, replaces }, Request::Delete(delete)).await;
        } else {
            let value = Value::new(format!("{}/{}", self.number, self.calls)).unwrap();
            self.put(key, value, meaning).await;
        }
    }

    async fn put(&mut self, key: Key, value: Value, (replaces, causality): (Replaces, Causality)) {
        let action = Action::Write { value: Some(value.clone()), replaces };
        let put = Put { key: key.clone(), value, causality, operation: None, terms: Terms::default() };
        self.ask(key, action, Request::Put(put)).await;
    }

    /// A read: its name, and the context that it gave.
    async fn get(&mut self, key: Key, terms: Terms) -> Option<(Name, Bytes)> {
        self.ask(key.clone(), Action::Read, Request::Get(Get { key, terms })).await
    }

    /// Asks, and tells before and after.
    async fn ask(&mut self, key: Key, action: Action, request: Request) -> Option<(Name, Bytes)> {
        self.calls += 1;
        let name = Name { client: self.number, number: self.calls };
        let asked = terms(&request).into();
        self.tell(Heard::Event(Event::Begin { name, key, action, asked }));
        let begun = now();
        let (outcome, context) = match self.client.ask(request).await {
            Ok(Reply::Found(Found { siblings, context, level })) => {
                let versions = siblings.into_iter().map(|one| Shown { dot: one.dot, value: Some(one.value) }).collect();
                (Outcome::Shown { versions, tombstones: false, level: level.into() }, context)
            }
            Ok(Reply::Written(written)) => {
                let Written { dot, superseded, level, remembered, context, .. } = written;
                let retried = remembered || TRIED_ONCE < begun.elapsed();
                let (superseded, level) = (superseded.to_vec(), level.into());
                (Outcome::Written { dot, superseded, level, retried }, context)
            }
            Ok(other) => panic!("seed {}: {name:?} was answered by {other:?}", seed()),
            Err(error) => {
                if !error.may_have_written() {
                    self.tell(Heard::Event(Event::End { name, outcome: Outcome::Refused }));
                }
                self.tell(Heard::Failed(error));
                return None;
            }
        };
        self.tell(Heard::Event(Event::End { name, outcome }));
        Some((name, context))
    }

    fn tell(&self, heard: Heard) {
        // A test that has failed listens no more.
        let _ = self.told.send(heard);
    }
}
