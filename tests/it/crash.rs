//! kill -9 in the middle of concurrent operations, again and again on one data directory, judged by what the clients
//! were told.
//!
//! The clients put, delete and read a few keys, blind, with contexts and asking for siblings; half of them name their
//! operations. A round ends when enough has been acknowledged: by a kill mostly, by a clean stop sometimes, and the
//! next one starts with another number of cores.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::ops::ControlFlow;

use bytes::Bytes;
use sloop::client::{Causality, Client, Error, Options};
use sloop::protocol::message::{Copies, Delete, Found, Get, Put, Reply, Request, Terms, Written};
use sloop::protocol::types::{Key, Value};
use sloop::verify::judge::Broken;
use sloop::verify::{Action, Event, History, Name, Outcome, Replaces, Shown, judge};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::harness::{Home, Node, files};

const CLIENTS: u32 = 16;
/// Keys that are written in one round.
const KEYS: u32 = 6;
/// Rounds after which the clients turn to other keys: the judge's work grows with the square of a key's history. The
/// old keys are read once more at the end.
const ROUNDS_OF_A_KEY: u32 = 10;
const CHECKER: u32 = CLIENTS;

/// One in so many rounds ends with a clean stop.
const CLEAN_ROUNDS: u32 = 5;

#[test]
fn after_kill_9_every_acknowledged_write_is_there_and_nothing_else() {
    let rounds = u32::try_from(setting("SLOOP_TEST_ROUNDS", 20)).unwrap();
    let seed = setting("SLOOP_TEST_SEED", 1);
    let mut dice = Dice(seed);
    let home = Home::new();
    let mut history = History::default();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();

    for round in 1..=rounds {
        let cores = (1 + dice.below(3)).to_string();
        let node = home.start_with(&["--cores", &cores]);
        runtime.block_on(check(node.binary, round, keys(round), &mut history));
        let enough = 50 + dice.below(600);
        runtime.block_on(live(node, round, enough, &mut dice, &mut history));
    }

    let node = home.start();
    let all = (0..=rounds / ROUNDS_OF_A_KEY).flat_map(|era| keys(era * ROUNDS_OF_A_KEY));
    runtime.block_on(check(node.binary, 0, all, &mut history));
    let (operations, acknowledged) = history.totals();
    println!("{rounds} rounds, {operations} operations, {acknowledged} acknowledged writes, seed {seed}");
    let said: Vec<String> = judge(&history).iter().map(ToString::to_string).collect();
    assert!(said.is_empty(), "seed {seed}:\n{}", said.join("\n"));
}

/// A test that cannot fail shows nothing: a node whose log was taken away is caught.
#[test]
fn a_node_that_has_lost_its_log_is_caught() {
    let home = Home::new();
    let mut history = History::default();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(live(home.start(), 1, 200, &mut Dice(1), &mut history));
    for segment in files(&home.data_dir().join("wal")) {
        fs::remove_file(segment).unwrap();
    }
    let node = home.start();
    runtime.block_on(check(node.binary, 0, keys(1), &mut history));
    let broken: BTreeSet<Broken> = judge(&history).into_iter().map(|violation| violation.promise).collect();
    assert!(broken.contains(&Broken::Lost), "{broken:?}");
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Lets all clients work until enough is acknowledged, ends the node, and waits for nobody.
async fn live(node: Node, round: u32, enough: u64, dice: &mut Dice, history: &mut History) {
    let (sender, mut events) = unbounded_channel();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(work(node.binary, client, round, Dice(dice.next()), sender.clone()));
    }
    drop(sender);

    let mut open = BTreeSet::new();
    let mut acknowledged = 0;
    while acknowledged < enough {
        let event = events.recv().await.expect("no client ends before its node");
        acknowledged += u64::from(matches!(event, Event::End { outcome: Outcome::Written { .. }, .. }));
        record(event, &mut open, history);
    }
    if round.is_multiple_of(CLEAN_ROUNDS) {
        terminate(node, &mut events, &mut open, history).await;
    } else {
        node.kill();
    }

    clients.shutdown().await;
    while let Ok(event) = events.try_recv() {
        record(event, &mut open, history);
    }
    // Its process is dead: nothing can come of these any more.
    for name in open {
        history.record(Event::End { name, outcome: Outcome::Unknown });
    }
}

/// Clients go on while the node stops, and may be answered until it has.
async fn terminate(
    node: Node,
    events: &mut UnboundedReceiver<Event>,
    open: &mut BTreeSet<Name>,
    history: &mut History,
) {
    let mut stopping = tokio::task::spawn_blocking(move || node.terminate());
    loop {
        tokio::select! {
            ended = &mut stopping => {
                let ended = ended.unwrap();
                assert!(ended.status.success(), "{}", ended.said);
                return;
            }
            Some(event) = events.recv() => record(event, open, history),
        }
    }
}

fn record(event: Event, open: &mut BTreeSet<Name>, history: &mut History) {
    match &event {
        Event::Begin { name, .. } => open.insert(*name),
        Event::End { name, .. } => open.remove(name),
    };
    history.record(event);
}

/// Reads keys, by a GET and with its tombstones.
async fn check(to: SocketAddr, round: u32, keys: impl Iterator<Item = Key>, history: &mut History) {
    let (sender, mut events) = unbounded_channel();
    let mut checker = Worker::new(to, CHECKER, round, sender, true).await;
    for key in keys {
        for request in [get(key.clone()), Request::Siblings(key.clone())] {
            let told = checker.ask(key.clone(), Action::Read, request).await;
            assert!(told.is_continue(), "a node that is up answers reads");
        }
    }
    drop(checker);
    while let Some(event) = events.recv().await {
        history.record(event);
    }
}

/// One client: works until its node is gone.
async fn work(to: SocketAddr, client: u32, round: u32, mut dice: Dice, events: UnboundedSender<Event>) {
    let mut worker = Worker::new(to, client, round, events, client.is_multiple_of(2)).await;
    loop {
        let key = keys(round).nth(usize::try_from(dice.below(KEYS.into())).unwrap()).unwrap();
        let (replaces, causality) = worker.chosen(&key, &mut dice);
        let (action, request) = match dice.below(10) {
            0..3 => (Action::Read, get(key.clone())),
            3..4 => (Action::Read, Request::Siblings(key.clone())),
            4..6 => {
                let delete = Delete { key: key.clone(), causality, operation: None, terms: Terms::default() };
                (Action::Write { value: None, replaces }, Request::Delete(delete))
            }
            _ => {
                let value = worker.value(&mut dice);
                let put =
                    Put { key: key.clone(), value: value.clone(), causality, operation: None, terms: Terms::default() };
                (Action::Write { value: Some(value), replaces }, Request::Put(put))
            }
        };
        if worker.ask(key, action, request).await.is_break() {
            return;
        }
    }
}

struct Worker {
    node: Client,
    client: u32,
    round: u32,
    operations: u32,
    events: UnboundedSender<Event>,
    /// The last reply that gave a context, and for which key.
    known: Option<(Name, Key, Bytes)>,
}

impl Worker {
    async fn new(to: SocketAddr, client: u32, round: u32, events: UnboundedSender<Event>, names: bool) -> Worker {
        let mut options = Options::new(to.to_string());
        options.operation_ids = names;
        let node = options.connect().await.expect("a node that is ready takes connections");
        Worker { node, client, round, operations: 0, events, known: None }
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

    /// A value of its own, small mostly.
    fn value(&self, dice: &mut Dice) -> Value {
        let Worker { client, round, operations, .. } = self;
        let padding = match dice.below(20) {
            0 => 60_000,
            1..4 => 5_000,
            _ => dice.below(200),
        };
        let text = format!("{client}/{round}/{operations}/{}", "x".repeat(usize::try_from(padding).unwrap()));
        Value::new(text).unwrap()
    }

    /// Asks, and tells the history before and after. Breaks once there is no node.
    async fn ask(&mut self, key: Key, action: Action, request: Request) -> ControlFlow<()> {
        self.operations += 1;
        let name = Name { client: self.client, number: self.round * 1_000_000 + self.operations };
        self.tell(Event::Begin { name, key: key.clone(), action });
        let (outcome, context) = match self.node.ask(request).await {
            Ok(Reply::Found(Found { siblings, context, .. })) => {
                let shown = |sibling: sloop::client::Sibling| Shown { dot: sibling.dot, value: Some(sibling.value) };
                let versions = siblings.into_iter().map(shown).collect();
                (Outcome::Shown { versions, tombstones: false }, context)
            }
            Ok(Reply::Siblings(Copies { copies, context })) => {
                let shown = |copy: sloop::client::Copy| Shown { dot: copy.dot, value: copy.value };
                (Outcome::Shown { versions: copies.into_iter().map(shown).collect(), tombstones: true }, context)
            }
            Ok(Reply::Written(Written { dot, superseded, context, .. })) => {
                (Outcome::Written { dot, superseded: superseded.to_vec() }, context)
            }
            Ok(other) => panic!("{name:?} was answered by {other:?}"),
            Err(error) => return self.failed(name, &error),
        };
        self.known = (!context.is_empty()).then_some((name, key, context));
        self.tell(Event::End { name, outcome });
        ControlFlow::Continue(())
    }

    /// What may have been written stays open: only the node's end closes it.
    fn failed(&self, name: Name, error: &Error) -> ControlFlow<()> {
        if !error.may_have_written() {
            self.tell(Event::End { name, outcome: Outcome::Refused });
        }
        match error {
            Error::Failure(_) if !error.may_have_written() => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }

    fn tell(&self, event: Event) {
        // A round that is over listens no more.
        let _ = self.events.send(event);
    }
}

/// The keys of a round.
fn keys(round: u32) -> impl Iterator<Item = Key> {
    let era = round / ROUNDS_OF_A_KEY;
    (0..KEYS).map(move |n| Key::new(format!("key-{era}-{n}")).unwrap())
}

fn get(key: Key) -> Request {
    Request::Get(Get { key, terms: Terms::default() })
}

/// splitmix64: the same seed, the same choices.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
