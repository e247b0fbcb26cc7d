//! Random puts and deletes under random faults while tombstones are forgotten almost at once: nothing that was deleted
//! returns, nothing else goes, and in peace no tombstone stays.
//!
//! Messages are lost, late and overtake each other, and those of the dead still arrive; but none comes twice, as it may
//! in other storms: the streams between nodes double nothing, and whoever has its answer waits for nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::protocol::causality::Update;
use crate::protocol::message::{Causality, Delete, Get, Outcome, Put, Reply, Request, Terms};
use crate::protocol::ring::Wanted;
use crate::protocol::types::{Dot, Key, RequestId, Value};
use crate::sim::shards::{Cluster, World};
use crate::sim::truth::{are_twins, replaces};

const KEYS: u64 = 5;
const AGE: Duration = Duration::from_millis(300);

struct Storm {
    world: World,
    /// With what W owners had acknowledged of the key before it was sent.
    waiting: BTreeMap<RequestId, (Request, Vec<Dot>)>,
    /// All that was acknowledged, by key; and by W owners.
    acknowledged: BTreeMap<Key, BTreeSet<Dot>>,
    by_owners: BTreeMap<Key, Vec<Dot>>,
    contexts: BTreeMap<Key, Vec<Bytes>>,
    values: u64,
    /// So many steps without crashes, cuts and pauses.
    calm: u64,
    /// Owners change.
    has_moves: bool,
    /// Once, a node may lose its disk, or be removed.
    has_losses: bool,
}

fn key(n: u64) -> Key {
    Key::new(format!("k{n}")).unwrap()
}

impl Storm {
    fn new(nodes: usize, seed: u64) -> Storm {
        let wanted = Wanted { n: 3, r: 2, w: 2 };
        Storm::within(Cluster { nodes, members: nodes, wanted, seed, tombstone_age: AGE })
    }

    fn within(cluster: Cluster) -> Storm {
        let mut world = World::new(cluster);
        world.trouble(10, 30, 0);
        Storm {
            world,
            waiting: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            by_owners: BTreeMap::new(),
            contexts: BTreeMap::new(),
            values: 0,
            calm: 0,
            has_moves: false,
            has_losses: false,
        }
    }

    fn node(&mut self) -> usize {
        usize::try_from(self.world.draw(self.world.nodes() as u64)).unwrap()
    }

    fn step(&mut self) {
        let (node, other) = (self.node(), self.node());
        let calm = self.calm.min(1);
        self.calm -= calm;
        if self.has_moves && self.world.draw(40) == 0 {
            self.move_owners(node, other);
        }
        if self.has_losses && self.world.draw(200) == 0 {
            self.lose(node, other);
        }
        match 18 * calm + self.world.draw(60 - 18 * calm) {
            0 if self.world.is_alive(node) => self.world.crash(node),
            1..=4 if !self.world.is_alive(node) && !self.world.is_gone(node) => self.world.start(node),
            5 => self.world.pause(node),
            6..=9 => self.world.resume(node),
            10 => self.world.cut(node, other),
            11..=13 => self.world.heal(),
            14 => self.world.notice(node, other, false),
            15..=17 if !self.world.is_gone(other) => {
                (0..self.world.nodes()).for_each(|one| self.world.notice(one, other, true))
            }
            18 => {
                let by = Duration::from_millis(self.world.draw(10_000));
                self.world.slow(node, other, by);
            }
            19..=23 => self.world.slow(node, other, Duration::ZERO),
            24..=27 => {
                let wait = Duration::from_millis(self.world.draw(3_000));
                self.world.run(wait);
            }
            28 => self.end_faults(),
            29..=37 => {
                let key = key(self.world.draw(KEYS));
                self.send(node, Request::Get(Get { key, terms: Terms::default() }));
            }
            _ => self.write(node),
        }
        let time = self.world.draw(20_000);
        self.world.run(Duration::from_micros(time));
        self.hear();
    }

    /// A change begins to a layout of some of the nodes.
    fn move_owners(&mut self, told: usize, out: usize) {
        let is_small = self.world.draw(3) == 0;
        let mut nodes = self.left();
        nodes.retain(|node| *node == told || (*node != out && (!is_small || self.world.draw(3) < 2)));
        // Where one copy may be lost there must be another.
        if !self.has_losses || 3 <= nodes.len() {
            self.world.change(told, &nodes);
        }
    }

    /// A node loses its disk, or is dead for good.
    fn lose(&mut self, node: usize, told: usize) {
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

    /// All nodes but one that was removed.
    fn left(&self) -> Vec<usize> {
        (0..self.world.nodes()).filter(|node| !self.world.is_gone(*node)).collect()
    }

    fn write(&mut self, node: usize) {
        let key = key(self.world.draw(KEYS));
        let context = self.contexts.get(&key).and_then(|contexts| contexts.last()).cloned();
        let causality = match (self.world.draw(4), context) {
            (0, _) => Causality::Sibling,
            (1 | 2, Some(context)) => Causality::Context(context),
            _ => Causality::Blind,
        };
        let (operation, terms) = (None, Terms { strict: self.world.draw(2) == 0, ..Terms::default() });
        let request = if self.world.draw(2) == 0 {
            Request::Delete(Delete { key, causality, operation, terms })
        } else {
            self.values += 1;
            let value = Value::new(self.values.to_string().into_bytes()).unwrap();
            Request::Put(Put { key, value, causality, operation, terms })
        };
        self.send(node, request);
    }

    fn send(&mut self, node: usize, request: Request) {
        let known = self.by_owners.get(request.key().unwrap()).cloned().unwrap_or_default();
        let id = self.world.ask(node, request.clone());
        self.waiting.insert(id, (request, known));
    }

    fn hear(&mut self) {
        let ids: Vec<RequestId> = self.waiting.keys().copied().collect();
        for id in ids {
            if let Some(outcome) = self.world.outcome(id) {
                let (request, known) = self.waiting.remove(&id).unwrap();
                self.note(request.key().unwrap(), &known, outcome);
            }
        }
    }

    fn note(&mut self, key: &Key, known: &[Dot], outcome: Outcome) {
        let context = match outcome {
            Ok(Reply::Found(found)) => {
                for sibling in &found.siblings {
                    let by = known.iter().find(|by| replaces(&self.world.minted()[*by].1, sibling.dot));
                    assert_eq!(by, None, "{} of {key} is read, and was replaced before", sibling.dot);
                }
                found.context
            }
            Ok(Reply::Written(written)) => {
                self.acknowledged.entry(key.clone()).or_default().insert(written.dot);
                if written.level.quorum <= written.level.owners {
                    self.by_owners.entry(key.clone()).or_default().push(written.dot);
                }
                written.context
            }
            _ => return,
        };
        self.contexts.entry(key.clone()).or_default().push(context);
    }

    /// Every fault ends, and time goes by.
    fn make_peace(&mut self) {
        self.world.trouble(0, 0, 0);
        self.end_faults();
        self.settle();
        if self.has_moves {
            self.world.run(Duration::from_secs(1));
            let left = self.left();
            assert!(self.world.change(left[0], &left));
            self.settle();
        }
        self.world.run(Duration::from_secs(20));
        self.hear();
        // A repair by somebody who has started since it last drained only tells him the round.
        self.read_all();
        self.read_all();
    }

    /// Every change ends in peace.
    fn settle(&mut self) {
        let until = self.world.now() + Duration::from_secs(60);
        while !self.world.is_settled() {
            assert!(self.world.now() < until, "the change ends");
            self.world.run(Duration::from_millis(100));
        }
    }

    fn end_faults(&mut self) {
        self.calm = 80;
        let nodes = self.world.nodes();
        for node in 0..nodes {
            self.world.resume(node);
            if !self.world.is_alive(node) && !self.world.is_gone(node) {
                self.world.start(node);
            }
        }
        self.world.heal();
        for (one, other) in (0..nodes).flat_map(|one| (0..nodes).map(move |other| (one, other))) {
            self.world.notice(one, other, !self.world.is_gone(other));
            self.world.slow(one, other, Duration::ZERO);
        }
    }

    /// Reads by all owners repair what no hint brings.
    fn read_all(&mut self) {
        for n in 0..KEYS {
            let owners = self.world.owners(&key(n));
            let quorum = u8::try_from(owners.len()).unwrap();
            let (terms, owner) = (Terms { quorum, ..Terms::default() }, owners[0]);
            let id = self.world.ask(owner, Request::Get(Get { key: key(n), terms }));
            assert!(matches!(self.world.wait_for(id), Some(Ok(_))));
        }
        self.world.run(Duration::from_secs(1));
    }

    fn tombstones(&self) -> usize {
        let is_buried =
            |(node, n): &(usize, u64)| self.world.copy(*node, &key(*n)).is_some_and(|set| set.live().next().is_none());
        self.left().into_iter().flat_map(|node| (0..KEYS).map(move |n| (node, n))).filter(is_buried).count()
    }

    /// Nodes with keys that they do not own.
    fn misplaced(&self) -> Vec<(usize, Key)> {
        let all = self.left().into_iter().flat_map(|node| (0..KEYS).map(move |n| (node, key(n))));
        let is_misplaced = |(node, key): &(usize, Key)| {
            self.world.copy(*node, key).is_some() && !self.world.owners(key).contains(node)
        };
        all.filter(is_misplaced).collect()
    }

    fn forgotten(&self) -> u64 {
        (0..self.world.nodes()).map(|node| self.world.stats(node).tombstones_forgotten).sum()
    }

    fn judge(&self) {
        for n in 0..KEYS {
            let key = key(n);
            // A round under way may have left a tombstone with some.
            let live_at = |node: usize| -> BTreeSet<Dot> {
                let held = self.world.copy(node, &key).into_iter();
                held.flat_map(|set| set.live()).map(|(version, _)| version.dot).collect()
            };
            let copies: Vec<BTreeSet<Dot>> = self.world.owners(&key).into_iter().map(live_at).collect();
            assert!(copies.windows(2).all(|pair| pair[0] == pair[1]), "the owners of {key} agree: {copies:?}");
            let live = copies[0].clone();
            let minted = self.world.minted().values().filter(|(of, _)| *of == key).map(|(_, update)| update);
            let minted: Vec<&Update> = minted.collect();
            let acknowledged = self.acknowledged.get(&key).cloned().unwrap_or_default();
            for update in minted.iter().filter(|update| acknowledged.contains(&update.version.dot)) {
                let returned = live.iter().find(|dot| replaces(update, **dot));
                assert_eq!(returned, None, "{key} shows again what {} replaced", update.version.dot);
                let is_there = is_there_or_replaced(update, &live, &minted, &mut BTreeSet::new());
                assert!(is_there, "{} of {key} was acknowledged, and is gone", update.version.dot);
            }
        }
    }
}

/// Whether a value is held, or deleted something, or what replaced it is or did.
fn is_there_or_replaced(of: &Update, live: &BTreeSet<Dot>, minted: &[&Update], seen: &mut BTreeSet<Dot>) -> bool {
    let dot = of.version.dot;
    if of.version.is_tombstone() || live.contains(&dot) {
        return true;
    }
    seen.insert(dot)
        && minted
            .iter()
            .filter(|by| by.version.dot != dot && (are_twins(of, by) || replaces(by, dot)))
            .any(|by| is_there_or_replaced(by, live, minted, seen))
}

/// How many copies were forgotten in the storm itself, by those who are still alive.
fn weather(nodes: usize, seed: u64) -> u64 {
    let mut storm = Storm::new(nodes, seed);
    (0..400).for_each(|_| storm.step());
    let forgotten = storm.forgotten();
    storm.make_peace();
    storm.judge();
    // A round that came to nothing may have left a tombstone with some.
    for _ in 0..8 {
        if 0 < storm.tombstones() {
            storm.world.run(Duration::from_secs(70));
            storm.read_all();
        }
    }
    storm.judge();
    assert_eq!(storm.tombstones(), 0, "in peace no tombstone stays");
    forgotten
}

/// The same while owners change: in peace nothing is where it does not belong, either.
fn moves((n, r, w): (u8, u8, u8), seed: u64, has_losses: bool) -> u64 {
    let wanted = Wanted { n, r, w };
    let mut storm = Storm::within(Cluster { nodes: 6, members: 4, wanted, seed, tombstone_age: AGE });
    (storm.has_moves, storm.has_losses) = (true, has_losses);
    (0..500).for_each(|_| storm.step());
    let forgotten = storm.forgotten();
    storm.make_peace();
    storm.judge();
    for _ in 0..8 {
        if 0 < storm.tombstones() || !storm.misplaced().is_empty() {
            storm.world.run(Duration::from_secs(20));
        }
    }
    storm.judge();
    assert_eq!(storm.misplaced(), [], "nobody keeps what others own");
    assert_eq!(storm.tombstones(), 0, "in peace no tombstone stays");
    forgotten
}

#[test]
fn storms_forget_much_while_they_last() {
    let forgotten: Vec<u64> = (0..20).map(|seed| weather(3, seed)).collect();
    assert!(200 < forgotten.iter().sum::<u64>(), "{forgotten:?}");
    let forgotten: Vec<u64> = (0..10).map(|seed| moves((3, 2, 2), seed, false)).collect();
    assert!(50 < forgotten.iter().sum::<u64>(), "{forgotten:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(30) })]

    #[test]
    fn nothing_that_was_deleted_returns_and_nothing_else_goes(seed in any::<u64>()) {
        weather(3, seed);
    }

    #[test]
    fn nothing_that_was_deleted_returns_from_fallbacks(seed in any::<u64>()) {
        weather(5, seed);
    }

    #[test]
    fn nothing_that_was_deleted_returns_while_owners_change(seed in any::<u64>(), which in 0..4_usize) {
        moves([(3, 2, 2), (3, 1, 3), (2, 1, 2), (1, 1, 1)][which], seed, false);
    }

    #[test]
    fn nothing_that_was_deleted_returns_while_owners_change_and_one_disk_is_lost(seed in any::<u64>()) {
        moves((3, 2, 2), seed, true);
    }
}
