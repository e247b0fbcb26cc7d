//! Clients: what they ask, in which words, and what they make of the answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::coverage::Reach;
use super::world::{At, Caller, ClientEvent, CoreEvent, Event, Place, Stage};
use crate::protocol::message::{Answer, Call, Causality, Delete, Get, Outcome, Put, Reply, Request, Terms};
use crate::protocol::types::{Key, OperationId, Value};
use crate::wire::frame::{CallId, Frame};
use crate::wire::{decode_answer, encode_call};

/// Whatever deadline a call has, its client waits so much longer.
const GRACE: Duration = Duration::from_millis(500);

/// Contexts that a client keeps of a key: the newest is mostly used, the others are stale.
const CONTEXTS: usize = 4;

/// Writes with a name that may be tried again.
const NAMED: usize = 8;

/// All clients of a world.
pub(super) struct Clients {
    clients: Vec<Client>,
    /// Calls that may still begin.
    left: u64,
    values: u64,
    /// Calls that have ended.
    pub ended: u64,
}

#[derive(Default)]
struct Client {
    calls: u64,
    waits: Option<Waits>,
    contexts: BTreeMap<Key, VecDeque<Bytes>>,
    named: VecDeque<Request>,
}

struct Waits {
    number: u64,
    request: Request,
}

impl Clients {
    /// So many, who do nothing yet.
    pub(super) fn new(clients: usize) -> Clients {
        Clients { clients: (0..clients).map(|_| Client::default()).collect(), left: 0, values: 0, ended: 0 }
    }

    /// They begin so many calls from now on.
    pub(super) fn go(&mut self, calls: u64, stage: &mut Stage) {
        self.left = calls;
        for client in 0..self.clients.len() {
            if self.clients[client].waits.is_none() {
                stage.after(Duration::from_micros(1), Event::Client(client, ClientEvent::Go));
            }
        }
    }

    /// Whether all that may begin has begun, and ended.
    pub(super) fn are_done(&self) -> bool {
        self.left == 0 && self.clients.iter().all(|client| client.waits.is_none())
    }

    /// They begin nothing more.
    pub(super) fn stop(&mut self) {
        self.left = 0;
    }

    /// The newest context that a client has of a key.
    #[cfg(test)]
    pub(super) fn context(&self, client: usize, key: &Key) -> Option<&Bytes> {
        self.clients[client].contexts.get(key)?.front()
    }

    /// Something comes to a client.
    pub(super) fn happen(&mut self, client: usize, event: ClientEvent, stage: &mut Stage) {
        match event {
            ClientEvent::Go => self.begin(client, stage),
            ClientEvent::Answer(number, frame) => {
                let outcome = frame.map(|frame| {
                    match decode_answer(Frame::owned(&frame)).expect("a node spells what a client reads") {
                        Answer::One(outcome) => outcome,
                        other => panic!("one call was answered by {other:?}"),
                    }
                });
                self.end(client, number, outcome.ok_or(Reach::HungUp), stage);
            }
            ClientEvent::GiveUp(number) => self.end(client, number, Err(Reach::GivenUp), stage),
        }
    }

    fn begin(&mut self, client: usize, stage: &mut Stage) {
        if self.left == 0 || self.clients[client].waits.is_some() {
            return;
        }
        let alive = stage.serving();
        if alive.is_empty() {
            return stage.after(Duration::from_millis(20), Event::Client(client, ClientEvent::Go));
        }
        self.left -= 1;
        let mut node = alive[stage.chance.index(alive.len())];
        // Half of them keep to a node that was removed for as long as it runs: nobody has told them.
        let nodes = &stage.watch.truth.nodes;
        if let Some(removed) = alive.iter().find(|at| nodes[**at].is_removed).filter(|_| client.is_multiple_of(2)) {
            node = *removed;
        }
        let request = self.request(client, stage);
        self.send(client, node, request, stage);
    }

    /// A client calls a node.
    pub(super) fn send(&mut self, client: usize, node: At, request: Request, stage: &mut Stage) -> Caller {
        let state = &mut self.clients[client];
        state.calls += 1;
        let number = state.calls;
        let caller = Caller { client, number };
        stage.note(|_| format!("c{client} asks n{node}: {}", super::story::request(&request)));
        stage.watch.invoked(stage.now, caller, node, &request);
        let mut frame = BytesMut::new();
        encode_call(&mut frame, CallId(number), &Call::One(request.clone())).expect("small requests fit in a frame");
        let partition = stage.ring().partition(request.key().expect("all are about a key"));
        let post = &stage.posts[node];
        let life = post.life.expect("only nodes that run are called");
        let place = Place { node, life, core: post.cores.of(partition) };
        let patience = request.patience() + GRACE;
        state.waits = Some(Waits { number, request });
        let hop = stage.shape.hop;
        let way = stage.chance.time(hop, 2 * hop) + stage.posts[node].lag;
        stage.after(way, Event::Core(place, CoreEvent::Called { caller, frame: frame.freeze() }));
        stage.after(patience, Event::Client(client, ClientEvent::GiveUp(number)));
        caller
    }

    fn end(&mut self, client: usize, number: u64, outcome: Result<Outcome, Reach>, stage: &mut Stage) {
        let state = &mut self.clients[client];
        let Some(waits) = state.waits.take_if(|waits| waits.number == number) else { return };
        self.ended += 1;
        match &outcome {
            Ok(outcome) => stage.coverage.outcome(outcome),
            Err(reach) => stage.coverage.reach(*reach),
        }
        stage.note(|_| {
            let shown = outcome.as_ref().map_or_else(|reach| reach.name().to_owned(), super::story::outcome);
            format!("c{client} hears: {shown}")
        });
        let caller = Caller { client, number };
        stage.watch.heard(stage.now, caller, outcome.as_ref().ok());
        let key = waits.request.key().expect("all are about a key").clone();
        let context = match &outcome {
            Ok(Ok(Reply::Found(found))) => Some(found.context.clone()),
            Ok(Ok(Reply::Written(written))) => Some(written.context.clone()),
            _ => None,
        };
        if let Some(context) = context {
            let contexts = state.contexts.entry(key).or_default();
            contexts.push_front(context);
            contexts.truncate(CONTEXTS);
        }
        let think = stage.shape.think;
        let wait = stage.chance.time(Duration::from_micros(50), think);
        stage.after(wait, Event::Client(client, ClientEvent::Go));
    }

    fn request(&mut self, client: usize, stage: &mut Stage) -> Request {
        let key = key(stage);
        match stage.chance.below(100) {
            0..40 => Request::Get(Get { key, terms: terms(stage, false) }),
            40..47 if !self.clients[client].named.is_empty() => self.again(client, stage),
            _ => self.write(client, key, stage),
        }
    }

    /// A write with a name once more, as after an answer that did not come.
    fn again(&mut self, client: usize, stage: &mut Stage) -> Request {
        let named = &self.clients[client].named;
        let mut request = named[stage.chance.index(named.len())].clone();
        let terms = request.terms_mut().expect("a write has terms");
        terms.retry = true;
        request
    }

    fn write(&mut self, client: usize, key: Key, stage: &mut Stage) -> Request {
        self.values += 1;
        let causality = self.causality(client, &key, stage);
        let is_named = stage.chance.thousandth(400);
        let name = || OperationId::new(format!("o{}", self.values)).expect("a short id");
        let mut operation = is_named.then(name);
        if stage.chance.thousandth(10) {
            // An id that was used before, for something else or on another key.
            let used = self.clients[client].named.iter().find_map(|named| super::truth::operation(named).cloned());
            operation = used.or(operation);
        }
        let terms = terms(stage, true);
        let request = if stage.chance.thousandth(stage.shape.deletes) {
            Request::Delete(Delete { key, causality, operation, terms })
        } else {
            let size = if stage.chance.thousandth(20) { 3_000 } else { stage.chance.below(60) };
            let mut bytes = self.values.to_string().into_bytes();
            bytes.resize(bytes.len() + usize::try_from(size).expect("small"), b'.');
            let value = Value::new(bytes).expect("a small value");
            Request::Put(Put { key, value, causality, operation, terms })
        };
        if is_named {
            let named = &mut self.clients[client].named;
            named.push_front(request.clone());
            named.truncate(NAMED);
        }
        request
    }

    fn causality(&self, client: usize, key: &Key, stage: &mut Stage) -> Causality {
        let contexts = self.clients[client].contexts.get(key);
        let newest = contexts.and_then(|contexts| contexts.front());
        match stage.chance.below(100) {
            0..15 => Causality::Sibling,
            15..50 if newest.is_some() => Causality::Context(newest.expect("looked at before").clone()),
            50..58 if newest.is_some() => {
                let contexts = contexts.expect("looked at before");
                Causality::Context(contexts[stage.chance.index(contexts.len())].clone())
            }
            58..60 => {
                let mut others = self.clients[client].contexts.iter().filter(|(other, _)| *other != key);
                let other = others.next_back().and_then(|(_, contexts)| contexts.front());
                other.map_or(Causality::Blind, |other| Causality::Context(other.clone()))
            }
            _ => Causality::Blind,
        }
    }
}

/// One key is hot.
fn key(stage: &mut Stage) -> Key {
    let keys = stage.shape.keys;
    let n = if stage.chance.thousandth(300) { 0 } else { stage.chance.below(keys) };
    Key::new(format!("k{n}")).expect("a short key")
}

fn terms(stage: &mut Stage, is_write: bool) -> Terms {
    let wanted = stage.shape.wanted;
    let least = if is_write { stage.shape.least_w.min(wanted.n) } else { 1 };
    let quorum = match stage.chance.below(100) {
        0..60 => 0,
        60..98 => u8::try_from(stage.chance.between(least.into(), wanted.n.into())).expect("a small number"),
        _ => wanted.n + 1,
    };
    let deadline_ms = match stage.chance.below(10) {
        0 => u32::try_from(stage.chance.between(1, 200)).expect("small"),
        1..4 => 1_000,
        _ => 0,
    };
    Terms { quorum, strict: stage.chance.thousandth(300), retry: false, deadline_ms }
}
