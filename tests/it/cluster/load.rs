//! Clients that read and write their own keys at a steady pace, and remember what they were told.
//!
//! Each call has a time at which it is due; how long it took counts from there, so that a client that was held up does
//! not hide how long others would have waited. Each key has one writer, which carries the context of its last write:
//! it never has siblings. A write that was not acknowledged may surface at any time, so its key is written no more. Nor
//! is one whose write may have been tried twice: a first try that surfaces after later writes is a sibling of theirs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sloop::client::{Causality, Client, Delete, Error, Found, Get, Key, Options, Put, Reply, Request, Terms, Value};
use sloop::client::{Copies, Written};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::now;
use crate::dice::{Dice, seed, setting};
use crate::harness::eventually;

/// Between two calls of a client.
const PAUSE: Duration = Duration::from_millis(20);

/// What a call has, retries included: a machine that is busy with other things must not end it.
const DEADLINE: Duration = Duration::from_secs(10);

/// A write that took longer may have been tried on a second node.
const TRIED_ONCE: Duration = Duration::from_millis(400);

/// Keys of a client that are written at any time.
const KEYS: usize = 40;

/// Clients at work on a thread of their own.
pub(super) struct Load {
    enough: Arc<AtomicBool>,
    works: JoinHandle<Vec<Worker>>,
}

impl Load {
    /// Begins: clients spread over the nodes. They go on with the next node when theirs is gone or does not answer.
    #[expect(clippy::disallowed_methods, reason = "clients work beside the test")]
    pub(super) fn begin(nodes: &[SocketAddr]) -> Load {
        let clients = usize::try_from(setting("SLOOP_TEST_CLIENTS", 12)).unwrap();
        let (enough, mut dice) = (Arc::new(AtomicBool::new(false)), Dice(seed()));
        let workers: Vec<_> = (0..clients).map(|number| (number, dice.split())).collect();
        let (until, nodes) = (Arc::clone(&enough), nodes.to_vec());
        let works = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut tasks = JoinSet::new();
                for (number, dice) in workers {
                    let (nodes, until) = (nodes.clone(), Arc::clone(&until));
                    tasks.spawn(async move { Worker::new(number, nodes, dice).await.work(&until).await });
                }
                tasks.join_all().await
            })
        });
        Load { enough, works }
    }

    /// Ends it, once every call has its end.
    pub(super) fn end(self) -> Record {
        self.enough.store(true, Ordering::Relaxed);
        Record { workers: self.works.join().unwrap() }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// One call.
struct Called {
    due: Instant,
    took: Duration,
    /// The node that the client had chosen.
    node: usize,
    /// What was asked.
    what: String,
    failed: Option<String>,
}

/// What is known of a key.
#[derive(Default)]
struct Owned {
    context: Option<Bytes>,
    /// What the last acknowledged write left: nothing after a delete.
    acked: Option<String>,
    /// Whether so many owners took it that every read sees it.
    is_seen: bool,
    /// What a write that was not acknowledged would leave. It was the last one.
    open: Option<Option<String>>,
}

/// What is asked next.
struct Choice {
    kind: Kind,
    name: String,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Get,
    Put,
    Delete,
}

struct Worker {
    number: usize,
    nodes: Vec<SocketAddr>,
    node: usize,
    client: Client,
    dice: Dice,
    keys: BTreeMap<String, Owned>,
    /// Those that are still written.
    live: Vec<String>,
    writes: u32,
    calls: Vec<Called>,
    broken: Vec<String>,
}

impl Worker {
    async fn new(number: usize, nodes: Vec<SocketAddr>, dice: Dice) -> Worker {
        let node = number % nodes.len();
        let client = connect(&nodes, node).await;
        let (keys, live, calls, broken) = (BTreeMap::new(), vec![], vec![], vec![]);
        Worker { number, nodes, node, client, dice, keys, live, writes: 0, calls, broken }
    }

    async fn work(mut self, until: &AtomicBool) -> Worker {
        let mut due = now();
        while !until.load(Ordering::Relaxed) {
            sleep_until(due.into()).await;
            let (node, choice) = (self.node, self.choose());
            let what = format!("{:?} {} by n{node}", choice.kind, choice.name);
            let failed = self.call(choice).await.err().map(|error| error.to_string());
            let is_over = failed.is_some();
            self.calls.push(Called { due, took: due.elapsed(), node, what, failed });
            due += PAUSE;
            if is_over {
                self.node = (self.node + 1) % self.nodes.len();
                self.client = connect(&self.nodes, self.node).await;
                due = now();
            }
        }
        self
    }

    fn choose(&mut self) -> Choice {
        if self.live.len() < KEYS {
            let name = format!("c{}-{}", self.number, self.keys.len());
            self.keys.insert(name.clone(), Owned::default());
            self.live.push(name.clone());
            return Choice { kind: Kind::Put, name };
        }
        let name = self.live[self.dice.index(KEYS)].clone();
        let kind = match self.dice.below(20) {
            0..10 => Kind::Get,
            10..19 => Kind::Put,
            _ => Kind::Delete,
        };
        Choice { kind, name }
    }

    async fn call(&mut self, Choice { kind, name }: Choice) -> Result<(), Error> {
        match kind {
            Kind::Get => self.read(name).await,
            Kind::Put => self.write(name, false).await,
            Kind::Delete => self.write(name, true).await,
        }
    }

    async fn read(&mut self, name: String) -> Result<(), Error> {
        let values = values(&get(&self.client, &name, 0).await?);
        let owned = &self.keys[&name];
        if owned.is_seen && values != Vec::from_iter(owned.acked.clone()) {
            self.broken.push(format!("{name} holds {:?}, and a read saw {values:?}", owned.acked));
        }
        Ok(())
    }

    async fn write(&mut self, name: String, deletes: bool) -> Result<(), Error> {
        self.writes += 1;
        let text = (!deletes).then(|| format!("{name}={}", self.writes));
        let owned = self.keys.get_mut(&name).unwrap();
        let causality = owned.context.clone().map_or(Causality::Blind, Causality::Context);
        let (key, operation, terms) = (Key::new(&name).unwrap(), None, Terms::default());
        let request = match &text {
            Some(text) => {
                let value = Value::new(text.clone()).unwrap();
                Request::Put(Put { key, value, causality, operation, terms })
            }
            None => Request::Delete(Delete { key, causality, operation, terms }),
        };
        let asked = now();
        let outcome = self.client.ask(request).await;
        if TRIED_ONCE < asked.elapsed() {
            self.live.retain(|live| *live != name);
        }
        match outcome {
            Ok(Reply::Written(Written { context, level, .. })) => {
                let is_seen = level.quorum <= level.owners;
                *owned = Owned { context: Some(context), acked: text, is_seen, open: None };
                Ok(())
            }
            Ok(other) => panic!("a write was answered by {other:?}"),
            Err(error) => {
                if error.may_have_written() {
                    (owned.open, owned.is_seen) = (Some(text), false);
                    self.live.retain(|live| *live != name);
                }
                Err(error)
            }
        }
    }
}

/// To a node, and to the others when the connection is lost.
async fn connect(nodes: &[SocketAddr], first: usize) -> Client {
    let order = nodes.iter().cycle().skip(first).take(nodes.len());
    let order: Vec<String> = order.map(SocketAddr::to_string).collect();
    let mut options = Options::new(order.join(","));
    options.deadline = DEADLINE;
    // What each call met is told by the node that its client had chosen.
    options.routing = false;
    // No write is tried twice: the first try would surface later as a twin.
    options.operation_ids = false;
    options.connect().await.expect("some node is there")
}

async fn get(client: &Client, name: &str, quorum: u8) -> Result<Found, Error> {
    let terms = Terms { quorum, ..Terms::default() };
    match client.ask(Request::Get(Get { key: Key::new(name).unwrap(), terms })).await? {
        Reply::Found(found) => Ok(found),
        other => panic!("a get was answered by {other:?}"),
    }
}

fn values(found: &Found) -> Vec<String> {
    found.siblings.iter().map(|sibling| String::from_utf8_lossy(sibling.value.as_bytes()).into_owned()).collect()
}

/// What a node holds of a key, without the names that it knows the writers by.
fn versions(copies: Copies) -> Vec<(String, Option<Value>)> {
    copies.copies.into_iter().map(|copy| (copy.dot.to_string(), copy.value)).collect()
}

/// What the clients saw.
pub(super) struct Record {
    workers: Vec<Worker>,
}

/// How long calls took.
pub(super) struct Times {
    calls: usize,
    p50: Duration,
    pub(super) p99: Duration,
    slowest: Duration,
    /// Which that was.
    what: String,
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times { calls, p50, p99, slowest, what } = self;
        write!(f, "{calls} calls, p50 {p50:.1?}, p99 {p99:.1?}, slowest {slowest:.1?} ({what})")
    }
}

impl Record {
    fn calls(&self) -> impl Iterator<Item = &Called> {
        self.workers.iter().flat_map(|worker| &worker.calls)
    }

    /// Calls that were due in this time, by clients of other nodes than the victim, the failed ones among them.
    pub(super) fn times(&self, from: Instant, to: Instant, victim: Option<usize>) -> Times {
        let is_it = |call: &&Called| from <= call.due && call.due < to && Some(call.node) != victim;
        let mut calls: Vec<&Called> = self.calls().filter(is_it).collect();
        calls.sort_unstable_by_key(|call| call.took);
        let at = |percent: usize| calls[calls.len() * percent / 100].took;
        let slowest = *calls.last().expect("calls were due in this time");
        Times { calls: calls.len(), p50: at(50), p99: at(99), slowest: slowest.took, what: slowest.what.clone() }
    }

    /// Failures that clients of the victim saw, and those of others.
    pub(super) fn failures(&self, victim: Option<usize>) -> (Vec<&str>, Vec<&str>) {
        let failed = |own: bool| {
            let is_it = self.calls().filter(move |call| (Some(call.node) == victim) == own);
            is_it.filter_map(|call| call.failed.as_deref()).collect()
        };
        (failed(true), failed(false))
    }

    pub(super) fn clients(&self) -> usize {
        self.workers.len()
    }

    /// Every key holds, at R 2 on each of the nodes, what was written last; after reads that ask all owners, their own
    /// copies are equal.
    pub(super) fn check(&self, nodes: &[SocketAddr]) {
        let broken: Vec<&String> = self.workers.iter().flat_map(|worker| &worker.broken).collect();
        assert!(broken.is_empty(), "{broken:#?}");
        let runtime = runtime();
        let client = |node: &SocketAddr| runtime.block_on(Client::connect(node.to_string())).unwrap();
        let clients: Vec<Client> = nodes.iter().map(client).collect();
        let (mut keys, mut open) = (0, 0);
        for (name, owned) in self.workers.iter().flat_map(|worker| &worker.keys) {
            (keys, open) = (keys + 1, open + usize::from(owned.open.is_some()));
            let may_be = [Some(owned.acked.clone()), owned.open.clone()];
            let may_be: Vec<Vec<String>> = may_be.into_iter().flatten().map(Vec::from_iter).collect();
            for client in &clients {
                let shown = values(&runtime.block_on(get(client, name, 2)).unwrap());
                assert!(may_be.contains(&shown), "seed {}: {name} holds {shown:?}, not one of {may_be:?}", seed());
            }
            runtime.block_on(get(&clients[0], name, 3)).unwrap();
        }
        for name in self.workers.iter().flat_map(|worker| worker.keys.keys()) {
            eventually("the copies are equal", || {
                let copies = clients.iter().map(|client| runtime.block_on(client.siblings(name)).unwrap());
                let copies: Vec<Vec<_>> = copies.map(versions).collect();
                copies.iter().all(|copy| *copy == copies[0])
            });
        }
        println!("  {keys} keys hold what was written last ({open} of them with a write that was not acknowledged)");
    }
}
