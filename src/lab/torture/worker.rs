//! One client of a crowd: what it asks, and what it tells of that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::time::sleep;

use super::crowd::{Duty, HOT_KEYS, Order, hot_key, is_blind, still_key};
use super::now;
use crate::client::{
    Causality, Client, Delete, Error, Found, Get, Key, Options, Put, Reply, Request, Terms, Value, Written,
};
use crate::lab::workload::Random;
use crate::protocol::config::EXTEND_AFTER;
use crate::verify::{Action, Event, Name, Outcome, Replaces, Shown};

/// What a call has, retries included.
const DEADLINE: Duration = Duration::from_secs(10);

/// A write that took longer may have been tried on a second node, by its client or by a node that handed it on: less
/// than a node waits before it asks one more.
const TRIED_ONCE: Duration = Duration::from_millis(20);
const _: () = assert!(TRIED_ONCE.as_millis() < EXTEND_AFTER.as_millis());

/// Between two calls of a client.
const PAUSE: Duration = Duration::from_millis(10);

/// What a client tells: that it asks, and how that ended.
#[derive(Debug)]
pub(super) enum Heard {
    Event(Instant, Event),
    /// A call is over, after this time.
    Ended {
        end: End,
        took: Duration,
        why: Option<String>,
    },
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Read,
    Written,
    /// Certainly nothing was written; or it was a read.
    Failed,
    /// A write that may have been done.
    Unknown,
    /// An answer to something else.
    Wrong,
}

/// How calls ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Reads that were answered.
    pub reads: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Calls that were refused, or reads that were not answered.
    pub failed: u64,
    /// Writes that may have been done.
    pub unknown: u64,
    /// Time of the slowest call.
    pub slowest: Duration,
    /// Why the first call failed.
    pub failure: Option<String>,
    /// Answers to what was not asked.
    pub wrong: Vec<String>,
}

impl Tally {
    /// All calls that are over.
    pub fn calls(&self) -> u64 {
        self.reads + self.writes + self.failed + self.unknown
    }

    pub(super) fn count(&mut self, heard: &Heard) {
        let Heard::Ended { end, took, why } = heard else { return };
        match end {
            End::Read => self.reads += 1,
            End::Written => self.writes += 1,
            End::Failed => self.failed += 1,
            End::Unknown | End::Wrong => self.unknown += 1,
        }
        if *end == End::Wrong {
            self.wrong.extend(why.clone());
        }
        self.slowest = self.slowest.max(*took);
        if self.failure.is_none() {
            self.failure.clone_from(why);
        }
    }
}

/// A client.
pub(super) struct Worker {
    number: u32,
    calls: u32,
    nodes: Arc<[SocketAddr]>,
    /// None before it has met a node.
    client: Option<Client>,
    random: Random,
    told: UnboundedSender<Heard>,
    failure: String,
    /// Of a crowd: whether connections between nodes may break now, so that any write may be tried twice.
    orders: Option<watch::Receiver<Duty>>,
}

impl Worker {
    pub(super) fn new(number: u32, nodes: Arc<[SocketAddr]>, random: Random, told: UnboundedSender<Heard>) -> Worker {
        Worker { number, calls: 0, nodes, client: None, random, told, failure: String::new(), orders: None }
    }

    /// Why its last call failed.
    pub(super) fn failure(&self) -> &str {
        &self.failure
    }

    /// Asks until it is told to end.
    pub(super) async fn work(
        mut self,
        mut orders: watch::Receiver<Duty>,
        rests: Arc<watch::Sender<usize>>,
        still: u64,
    ) {
        self.orders = Some(orders.clone());
        loop {
            let Duty { order, nodes, age, .. } = orders.borrow_and_update().clone();
            match order {
                Order::Work => {}
                Order::End => return,
                Order::Rest => {
                    rests.send_modify(|resting| *resting += 1);
                    let woken = orders.wait_for(|duty| duty.order != Order::Rest).await.is_ok();
                    rests.send_modify(|resting| *resting -= 1);
                    if !woken {
                        return;
                    }
                    continue;
                }
            }
            if *self.nodes != *nodes {
                (self.nodes, self.client) = (nodes, None);
            }
            self.call(still, age).await;
            sleep(PAUSE).await;
        }
    }

    async fn call(&mut self, still: u64, age: u64) {
        let choice = self.random.below(20);
        let read_age = if self.random.below(4) == 0 { self.random.below(age + 1) } else { age };
        let number = self.random.below(HOT_KEYS);
        match choice {
            0..4 if 0 < still => {
                let key = still_key(self.random.below(still));
                self.get(key, Terms::default()).await;
            }
            0..8 => {
                self.get(hot_key(read_age * HOT_KEYS + number), Terms::default()).await;
            }
            _ => self.write(age * HOT_KEYS + number, choice == 19).await,
        }
    }

    async fn write(&mut self, number: u64, deletes: bool) {
        let key = hot_key(number);
        let meaning = if is_blind(number) {
            (Replaces::Held, Causality::Blind)
        } else if self.random.below(16) == 0 && !deletes {
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
            let value = Value::new(format!("{}/{}", self.number, self.calls)).expect("it is short");
            self.put(key, value, meaning).await;
        }
    }

    /// Writes a key for the first time.
    pub(super) async fn put_still(&mut self, key: Key, value: Value) {
        self.put(key, value, (Replaces::Held, Causality::Blind)).await;
    }

    async fn put(&mut self, key: Key, value: Value, (replaces, causality): (Replaces, Causality)) {
        let action = Action::Write { value: Some(value.clone()), replaces };
        let put = Put { key: key.clone(), value, causality, operation: None, terms: Terms::default() };
        self.ask(key, action, Request::Put(put)).await;
    }

    /// A read: its name, and the context that it gave.
    pub(super) async fn get(&mut self, key: Key, terms: Terms) -> Option<(Name, Bytes)> {
        self.ask(key.clone(), Action::Read, Request::Get(Get { key, terms })).await
    }

    /// The client, once any node welcomes it.
    async fn meet(&mut self) -> Result<Client, Error> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let first = self.number as usize % self.nodes.len();
        let order = self.nodes.iter().cycle().skip(first).take(self.nodes.len()).map(SocketAddr::to_string);
        let mut options = Options::new(order.collect::<Vec<_>>());
        options.deadline = DEADLINE;
        // Half of them are clients that know nothing of the ring.
        options.routing = self.number.is_multiple_of(2);
        let client = options.connect().await?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Asks, and tells before and after.
    async fn ask(&mut self, key: Key, action: Action, request: Request) -> Option<(Name, Bytes)> {
        let client = match self.meet().await {
            Ok(client) => client,
            Err(error) => {
                self.failure = error.to_string();
                return None;
            }
        };
        self.calls += 1;
        let name = Name { client: self.number, number: self.calls };
        let is_read = action == Action::Read;
        let asked = terms(&request).into();
        self.tell(Heard::Event(now(), Event::Begin { name, key, action, asked }));
        let (begun, was_rough) = (now(), self.is_rough());
        let answer = client.ask(request).await;
        let took = begun.elapsed();
        let (end, outcome, context) = match answer {
            Ok(Reply::Found(Found { siblings, context, level })) if is_read => {
                let versions = siblings.into_iter().map(|one| Shown { dot: one.dot, value: Some(one.value) }).collect();
                (End::Read, Outcome::Shown { versions, tombstones: false, level: level.into() }, context)
            }
            Ok(Reply::Written(written)) if !is_read => {
                let Written { dot, superseded, level, remembered, context, .. } = written;
                let retried = remembered || TRIED_ONCE < took || was_rough || self.is_rough();
                let (superseded, level) = (superseded.to_vec(), level.into());
                (End::Written, Outcome::Written { dot, superseded, level, retried }, context)
            }
            Ok(other) => {
                self.fail((End::Wrong, took), format!("{name:?} was answered by {other:?}"));
                return None;
            }
            Err(error) => {
                let is_open = !is_read && error.may_have_written();
                if !error.may_have_written() {
                    self.tell(Heard::Event(now(), Event::End { name, outcome: Outcome::Refused }));
                }
                self.fail((if is_open { End::Unknown } else { End::Failed }, took), error.to_string());
                return None;
            }
        };
        self.tell(Heard::Ended { end, took, why: None });
        self.tell(Heard::Event(now(), Event::End { name, outcome }));
        Some((name, context))
    }

    fn is_rough(&self) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.borrow().is_rough)
    }

    fn fail(&mut self, (end, took): (End, Duration), why: String) {
        self.failure.clone_from(&why);
        self.tell(Heard::Ended { end, took, why: Some(why) });
    }

    fn tell(&self, heard: Heard) {
        // Whoever has failed listens no more.
        let _ = self.told.send(heard);
    }
}

fn terms(request: &Request) -> Terms {
    match request {
        Request::Get(Get { terms, .. }) | Request::Put(Put { terms, .. }) | Request::Delete(Delete { terms, .. }) => {
            *terms
        }
        Request::Siblings(_) | Request::Keys(_) => Terms::default(),
    }
}
