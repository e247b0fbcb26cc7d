//! Random writes under random faults, then peace: nothing that was acknowledged is lost, and all owners agree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::protocol::causality::{Context, Siblings, Supersedes, Update};
use crate::protocol::config::TOMBSTONE_AGE;
use crate::protocol::message::{Causality, Delete, Get, Outcome, Put, Reply, Request, Terms, Written};
use crate::protocol::ring::Wanted;
use crate::protocol::types::{ClusterId, Dot, Key, OperationId, RequestId, Value};
use crate::sim::shards::{Cluster, World};
use crate::sim::truth::{are_twins, replaces};

const KEYS: u64 = 6;

/// A request that has no answer yet.
struct Sent {
    request: Request,
    /// What W owners had acknowledged of its key before it was sent.
    known: Vec<Dot>,
    /// Whether W owners had acknowledged a try of it before.
    was_done: bool,
}

struct Storm {
    world: World,
    waiting: BTreeMap<RequestId, Sent>,
    /// By key; and those that W owners acknowledged.
    acknowledged: BTreeMap<Key, BTreeSet<Dot>>,
    by_owners: BTreeMap<Key, Vec<Dot>>,
    /// Those that a reply gave as minted for it.
    fresh: BTreeSet<Dot>,
    /// What replies gave to pass on, and writes that may be tried again.
    contexts: BTreeMap<Key, Vec<Bytes>>,
    named: Vec<Request>,
    done: BTreeSet<OperationId>,
    values: u64,
    /// Owners change.
    has_moves: bool,
    /// Once, a node may lose its disk, or be removed.
    has_losses: bool,
}

impl Storm {
    fn new(nodes: usize, wanted: Wanted, seed: u64) -> Storm {
        Storm::within(Cluster { nodes, members: nodes, wanted, seed, tombstone_age: TOMBSTONE_AGE })
    }

    fn within(cluster: Cluster) -> Storm {
        Storm {
            world: World::new(cluster),
            waiting: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            by_owners: BTreeMap::new(),
            fresh: BTreeSet::new(),
            contexts: BTreeMap::new(),
            named: Vec::new(),
            done: BTreeSet::new(),
            values: 0,
            has_moves: false,
            has_losses: false,
        }
    }

    fn key(&mut self) -> Key {
        Key::new(format!("k{}", self.world.draw(KEYS))).unwrap()
    }

    fn node(&mut self) -> usize {
        self.below(self.world.nodes())
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.world.draw(bound as u64)).unwrap()
    }

    fn step(&mut self) {
        // While owners change there are fewer faults, so that they do.
        match self.world.draw(if self.has_moves { 80 } else { 40 }) {
            0 => {
                let node = self.node();
                if self.world.is_alive(node) {
                    self.world.crash(node);
                }
            }
            1..=3 => {
                let node = self.node();
                if !self.world.is_alive(node) && !self.world.is_gone(node) {
                    self.world.start(node);
                }
            }
            4 => {
                let node = self.node();
                self.world.pause(node);
            }
            5 | 6 => {
                let node = self.node();
                self.world.resume(node);
            }
            7 => {
                let (one, other) = (self.node(), self.node());
                self.world.cut(one, other);
            }
            8 => self.world.heal(),
            9 => {
                let (observer, node, is_up) = (self.node(), self.node(), self.world.draw(2) == 0);
                self.world.notice(observer, node, is_up);
            }
            10 => {
                let (node, is_full) = (self.node(), self.world.draw(2) == 0);
                self.world.fill(node, is_full);
            }
            11 if self.world.draw(4) == 0 => {
                let node = self.node();
                if self.world.is_alive(node) {
                    self.world.break_log(node);
                }
            }
            11 if self.has_losses && self.world.draw(2) == 0 => self.lose(),
            12 | 40..45 if self.has_moves => self.move_owners(),
            45..48 if self.has_moves => {
                self.world.heal();
                (0..self.world.nodes()).for_each(|node| self.world.resume(node));
            }
            48..60 if self.has_moves => {
                let (key, node) = (self.key(), self.node());
                self.send(node, Request::Get(Get { key, terms: Terms::default() }));
            }
            11..=16 => {
                let (key, node) = (self.key(), self.node());
                self.send(node, Request::Get(Get { key, terms: Terms::default() }));
            }
            17..=20 if !self.named.is_empty() => {
                let (at, node, strict) = (self.below(self.named.len()), self.node(), self.world.draw(2) == 0);
                let mut again = self.named[at].clone();
                again.terms_mut().unwrap().retry = true;
                again.terms_mut().unwrap().strict |= strict;
                self.send(node, again);
            }
            _ => self.write(),
        }
        let time = self.world.draw(20_000);
        self.world.run(Duration::from_micros(time));
        self.hear();
    }

    /// A change begins to a layout of some of the nodes.
    fn move_owners(&mut self) {
        let (told, out, is_small) = (self.node(), self.node(), self.world.draw(3) == 0);
        let mut nodes = Vec::new();
        for node in (0..self.world.nodes()).filter(|node| !self.world.is_gone(*node)).collect::<Vec<_>>() {
            if node == told || (node != out && (!is_small || self.world.draw(3) < 2)) {
                nodes.push(node);
            }
        }
        // Where one copy may be lost there must be another.
        if !self.has_losses || 3 <= nodes.len() {
            self.world.change(told, &nodes);
        }
    }

    /// A node loses its disk, or is dead for good.
    fn lose(&mut self) {
        let (node, told) = (self.node(), self.node());
        if node == told || !self.world.is_alive(told) || !self.world.is_member(told) {
            return;
        }
        self.has_losses = false;
        if self.world.draw(2) == 0 {
            self.world.wipe(node, told);
        } else {
            self.world.resume(node);
            self.world.remove(node, told);
        }
    }

    fn write(&mut self) {
        self.values += 1;
        let (key, node) = (self.key(), self.node());
        let contexts = self.contexts.get(&key).map_or(0, Vec::len);
        let causality = match self.world.draw(4) {
            0 => Causality::Sibling,
            1 if 0 < contexts => {
                let at = self.below(contexts);
                Causality::Context(self.contexts[&key][at].clone())
            }
            _ => Causality::Blind,
        };
        let is_named = self.world.draw(3) == 0;
        let operation = is_named.then(|| OperationId::new(format!("o{}", self.values)).unwrap());
        let terms = Terms { strict: self.world.draw(4) == 0, ..Terms::default() };
        let request = if self.world.draw(5) == 0 {
            Request::Delete(Delete { key, causality, operation, terms })
        } else {
            let value = Value::new(self.values.to_string().into_bytes()).unwrap();
            Request::Put(Put { key, value, causality, operation, terms })
        };
        if is_named {
            self.named.push(request.clone());
        }
        self.send(node, request);
    }

    fn send(&mut self, node: usize, request: Request) {
        let known = self.by_owners.get(request.key().unwrap()).cloned().unwrap_or_default();
        let was_done = name(&request).is_some_and(|name| self.done.contains(&name));
        let id = self.world.ask(node, request.clone());
        self.waiting.insert(id, Sent { request, known, was_done });
    }

    fn hear(&mut self) {
        let ids: Vec<RequestId> = self.waiting.keys().copied().collect();
        for id in ids {
            if let Some(outcome) = self.world.outcome(id) {
                let sent = self.waiting.remove(&id).unwrap();
                self.note(&sent, outcome);
            }
        }
    }

    fn note(&mut self, sent: &Sent, outcome: Outcome) {
        let key = sent.request.key().unwrap().clone();
        let context = match outcome {
            Ok(Reply::Found(found)) => {
                let context = Context::open(&found.context, ClusterId(1), &key).unwrap();
                let unseen = sent.known.iter().find(|dot| !context.covers(**dot));
                assert!(unseen.is_none(), "a read of {key} misses {unseen:?}");
                found.context
            }
            Ok(Reply::Written(written)) => {
                self.note_written(sent, &key, &written);
                written.context
            }
            _ => return,
        };
        let contexts = self.contexts.entry(key).or_default();
        contexts.push(context);
        contexts.drain(..contexts.len().saturating_sub(8));
    }

    fn note_written(&mut self, sent: &Sent, key: &Key, written: &Written) {
        self.acknowledged.entry(key.clone()).or_default().insert(written.dot);
        assert!(written.remembered || self.fresh.insert(written.dot), "one dot, one write");
        let terms = sent.request.terms();
        if terms.strict {
            // Whoever tries a write again that W owners acknowledged is told of that.
            assert!(
                self.has_moves || !(sent.was_done && terms.retry) || written.remembered,
                "{:?} was done twice",
                sent.request
            );
            let minted = &self.world.minted()[&written.dot].1;
            let is_blind_delete = minted.version.is_tombstone() && minted.supersedes == Supersedes::Held;
            let unseen = sent.known.iter().find(|dot| !written.remembered && !minted.upon.covers(**dot));
            assert!(!is_blind_delete || unseen.is_none(), "a delete of {key} has not seen {unseen:?}");
        }
        if written.level.quorum <= written.level.owners {
            self.done.extend(name(&sent.request));
            self.by_owners.entry(key.clone()).or_default().push(written.dot);
        }
    }

    /// Every fault ends, and time goes by.
    fn make_peace(&mut self) {
        self.world.trouble(0, 0, 0);
        for node in 0..self.world.nodes() {
            self.world.fill(node, false);
            self.world.resume(node);
            if self.world.is_alive(node) && self.world.is_broken(node) {
                self.world.crash(node);
            }
            if !self.world.is_alive(node) && !self.world.is_gone(node) {
                self.world.start(node);
            }
        }
        self.world.heal();
        let nodes = self.world.nodes();
        for (observer, node) in (0..nodes).flat_map(|one| (0..nodes).map(move |other| (one, other))) {
            self.world.notice(observer, node, !self.world.is_gone(node));
        }
        if self.has_moves {
            self.settle();
            // Whoever has lost its disk is whole again in the next layout, where that is known, and who is gone is not
            // in it.
            self.world.run(Duration::from_secs(1));
            let alive: Vec<usize> = (0..nodes).filter(|node| !self.world.is_gone(*node)).collect();
            assert!(self.world.change(alive[0], &alive));
            self.settle();
        }
        self.world.run(Duration::from_secs(20));
        self.hear();
        for node in (0..self.world.nodes()).filter(|node| !self.world.is_gone(*node)).collect::<Vec<_>>() {
            assert_eq!(self.world.hints(node), 0, "node {node} has delivered its hints");
        }
        // Nobody has to read: what neither hints nor the log of a dead coordinator knew, the trees tell.
        self.world.run(Duration::from_secs(30));
        for node in 0..self.world.nodes() {
            assert_eq!(self.world.under_way(node), 0, "node {node} has forgotten what has ended");
        }
    }

    /// Every change ends in peace.
    fn settle(&mut self) {
        let until = self.world.now() + Duration::from_secs(60);
        while !self.world.is_settled() {
            assert!(self.world.now() < until, "the change ends");
            self.world.run(Duration::from_millis(100));
        }
    }

    fn judge(&self) {
        let nothing = Siblings::default();
        for n in 0..KEYS {
            let key = Key::new(format!("k{n}")).unwrap();
            let copies: Vec<_> = self.world.owners(&key).into_iter().map(|node| self.world.copy(node, &key)).collect();
            assert!(copies.windows(2).all(|pair| pair[0] == pair[1]), "the owners of {key} agree: {copies:#?}");
            let owners = self.world.owners(&key);
            let is_spare = |node: &usize| !owners.contains(node) && !self.world.is_gone(*node);
            let spares = (0..self.world.nodes()).filter(is_spare);
            spares
                .for_each(|node| assert_eq!(self.world.copy(node, &key), None, "{node} owns no {key}, and keeps none"));
            let set = copies[0].map_or(&nothing, |set| set);
            let minted = self.world.minted().values().filter(|(of, _)| *of == key).map(|(_, update)| update);
            let minted: Vec<&Update> = minted.collect();
            for dot in self.acknowledged.get(&key).into_iter().flatten() {
                assert!(set.vector().covers(*dot), "{dot} of {key} was never seen");
                let is_there = is_there_or_replaced(*dot, set, &minted, &mut BTreeSet::new());
                assert!(is_there, "{dot} of {key} was acknowledged, and nothing that is there replaced it: {set:#?}");
            }
        }
    }
}

/// Whether a version is held, or one that replaced it is, or one that replaced that; or its twin.
fn is_there_or_replaced(dot: Dot, set: &Siblings, minted: &[&Update], looked_at: &mut BTreeSet<Dot>) -> bool {
    if set.holds(dot) {
        return true;
    }
    if !looked_at.insert(dot) {
        return false;
    }
    let itself = minted.iter().find(|update| update.version.dot == dot);
    let stands_for_it = |update: &&&Update| {
        let is_twin = itself.is_some_and(|itself| are_twins(itself, update));
        update.version.dot != dot && (is_twin || replaces(update, dot))
    };
    let mut others = minted.iter().filter(stands_for_it).map(|update| update.version.dot);
    others.any(|other| is_there_or_replaced(other, set, minted, looked_at))
}

fn name(request: &Request) -> Option<OperationId> {
    match request {
        Request::Put(put) => put.operation.clone(),
        Request::Delete(delete) => delete.operation.clone(),
        _ => None,
    }
}

fn weather(nodes: usize, (n, r, w): (u8, u8, u8), seed: u64) {
    let mut storm = Storm::new(nodes, Wanted { n, r, w }, seed);
    storm.world.trouble(20, 20, 20);
    (0..150).for_each(|_| storm.step());
    storm.make_peace();
    storm.judge();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn nothing_acknowledged_is_lost_and_three_owners_agree_in_the_end(seed in any::<u64>()) {
        weather(3, (3, 2, 2), seed);
    }

    #[test]
    fn nothing_acknowledged_is_lost_where_fallbacks_help(seed in any::<u64>()) {
        weather(6, (3, 2, 2), seed);
    }

    #[test]
    fn nothing_acknowledged_is_lost_whatever_the_quorums(seed in any::<u64>(), which in 0..4_usize) {
        let (nodes, quorums) = [(3, (3, 1, 3)), (5, (5, 3, 3)), (7, (5, 3, 3)), (2, (2, 1, 2))][which];
        weather(nodes, quorums, seed);
    }

    #[test]
    fn no_read_misses_what_was_acknowledged_while_owners_change(seed in any::<u64>(), which in 0..6_usize) {
        let (n, r, w) = [(3, 2, 2), (3, 1, 3), (3, 3, 1), (2, 1, 2), (2, 2, 1), (1, 1, 1)][which];
        moves(Wanted { n, r, w }, seed, false);
    }

    #[test]
    fn no_read_misses_what_was_acknowledged_while_owners_change_and_one_disk_is_lost(seed in any::<u64>()) {
        moves(Wanted { n: 3, r: 2, w: 2 }, seed, true);
    }
}

fn moves(wanted: Wanted, seed: u64, has_losses: bool) {
    let mut storm = Storm::within(Cluster { nodes: 6, members: 4, wanted, seed, tombstone_age: TOMBSTONE_AGE });
    (storm.has_moves, storm.has_losses) = (true, has_losses);
    storm.world.trouble(20, 50, 20);
    (0..300).for_each(|_| storm.step());
    if storm.has_losses {
        storm.lose();
    }
    storm.make_peace();
    storm.judge();
}
