//! Whole memberships on virtual time: one queue of events, a network that loses, delays and doubles, disks and cores
//! that answer. Nothing here waits, and one seed gives one run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use core::net::SocketAddr;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::protocol::membership::{
    Answer, Birth, Durable, Effect, ExchangeId, Input, Knowledge, Letter, LetterId, Membership, Note, Packet, Refusal,
    RowStart, Unanswered, may_join,
};
use crate::protocol::ring::{Cores, Liveness, View, Wanted};
use crate::protocol::types::{ClusterId, Instant, NodeId};

pub(super) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(super) const PARTITIONS: u16 = 16;

/// How long an exchange waits for a silent member.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
enum Event {
    Packet { from: usize, packet: Packet },
    Letter { from: usize, id: ExchangeId, to: Option<NodeId>, says: Letter },
    Answered { id: ExchangeId, answer: Result<Answer, Unanswered> },
    Persisted,
    Frozen,
}

/// A node: what of it outlives a start, and the membership of the present one.
pub(super) struct Sim {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) incarnation: u128,
    pub(super) starts: u64,
    pub(super) stamp: u64,
    pub(super) disk: Option<Durable>,
    pub(super) holds_data: bool,
    pub(super) membership: Option<Membership>,
    /// Counts its lives: what was meant for another one is lost.
    life: u64,
    pub(super) is_frozen: bool,
    pub(super) view: Option<Arc<View>>,
    pub(super) refused: Option<Refusal>,
    pub(super) notes: Vec<Note>,
    /// Its loop turns only so often.
    pub(super) lag: Duration,
    /// Its loop stands still until then.
    pub(super) paused_until: Instant,
    /// What comes while it stands still is lost: its socket holds no more.
    pub(super) is_full: bool,
    letters: BTreeMap<LetterId, (usize, u64, ExchangeId)>,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Sim>,
    queue: BTreeMap<(Instant, u64), (usize, u64, Event)>,
    events: u64,
    letters: u64,
    rng: Xoshiro256PlusPlus,
    /// Packets in a hundred that are lost, and as many that come twice.
    pub(super) loss: u64,
    /// Nodes that nothing reaches and that reach nobody.
    pub(super) silent: BTreeSet<usize>,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        World {
            now: Instant(1_000_000),
            nodes: vec![],
            queue: BTreeMap::new(),
            events: 0,
            letters: 0,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            loss: 0,
            silent: BTreeSet::new(),
        }
    }

    /// A cluster of so many nodes, all in one layout and all up.
    pub(super) fn cluster(seed: u64, nodes: usize) -> World {
        let mut world = World::new(seed);
        world.found("n0");
        for n in 1..nodes {
            world.join(&format!("n{n}"), 0).unwrap();
        }
        world.until("all agree", 20, |world| world.agree(nodes));
        world
    }

    fn add(&mut self, name: &str) -> usize {
        let at = self.nodes.len();
        let port = 7_600 + u16::try_from(at).unwrap();
        self.nodes.push(Sim {
            name: name.to_owned(),
            address: ([127, 0, 0, 1], port).into(),
            incarnation: u128::from(self.rng.next_u64()),
            starts: 0,
            stamp: 0,
            disk: None,
            holds_data: false,
            membership: None,
            life: 0,
            is_frozen: false,
            view: None,
            refused: None,
            notes: vec![],
            lag: Duration::ZERO,
            paused_until: Instant(0),
            is_full: false,
            letters: BTreeMap::new(),
        });
        at
    }

    pub(super) fn found(&mut self, name: &str) -> usize {
        let at = self.add(name);
        self.start(at);
        at
    }

    /// A new node that asks `seed` and starts.
    pub(super) fn join(&mut self, name: &str, seed: usize) -> Result<usize, Refusal> {
        let at = self.add(name);
        let known = self.knowledge(seed);
        let node = &self.nodes[at];
        let start = self.row_start(at, 0, 0);
        let durable = may_join(name, node.incarnation, start, known)?;
        self.nodes[at].disk = Some(durable);
        self.start(at);
        Ok(at)
    }

    fn row_start(&self, at: usize, count: u64, stamp: u64) -> RowStart {
        let address = self.nodes[at].address;
        let http = SocketAddr::new(address.ip(), address.port() + 1_000);
        RowStart { count, stamp, address, http, cores: Cores { count: 2, salt: at as u64 } }
    }

    pub(super) fn knowledge(&self, at: usize) -> Knowledge {
        self.nodes[at].membership.as_ref().expect("it runs").knowledge()
    }

    pub(super) fn start(&mut self, at: usize) {
        let (stamp, seed) = (self.rng.next_u64(), self.rng.next_u64());
        let node = &mut self.nodes[at];
        (node.starts, node.stamp, node.view, node.is_frozen) = (node.starts + 1, stamp, None, false);
        node.life += 1;
        let count = node.starts;
        let start = self.row_start(at, count, stamp);
        let node = &mut self.nodes[at];
        let birth = Birth {
            cluster: CLUSTER,
            partitions: PARTITIONS,
            name: node.name.as_str().into(),
            incarnation: node.incarnation,
            start,
            zone: None,
            weight: None,
            known: node.disk.clone(),
            wanted: Wanted { n: 3, r: 2, w: 2 },
            seeds: vec![],
            seed,
        };
        let mut effects = vec![];
        node.membership = Some(Membership::begin(self.now, birth, &mut effects));
        self.perform(at, effects);
    }

    /// Ends a node as a crash would.
    pub(super) fn kill(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        (node.membership, node.life) = (None, node.life + 1);
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Sim> {
        self.nodes.iter().filter(|node| node.membership.is_some())
    }

    /// Whether the nodes that run, as many as said, all go by one layout with all of them, and see each other up.
    pub(super) fn agree(&self, nodes: usize) -> bool {
        let mut live = self.live();
        let Some(first) = self.live().find_map(|node| node.view.as_ref()) else {
            return false;
        };
        live.all(|node| {
            node.view.as_ref().is_some_and(|view| {
                view.layout.stamp() == first.layout.stamp()
                    && view.layout.rows().len() == nodes
                    && view.members.len() == nodes
                    && view.members.iter().all(|member| member.liveness == Liveness::Up)
            })
        })
    }

    /// How one node sees another.
    pub(super) fn sees(&self, at: usize, other: usize) -> Option<Liveness> {
        let node = NodeId::of(&self.nodes[other].name);
        Some(self.nodes[at].view.as_ref()?.member(node)?.liveness)
    }

    /// Goes on until the condition holds.
    #[track_caller]
    pub(super) fn until(&mut self, what: &str, limit_s: u64, holds: impl Fn(&World) -> bool) -> Duration {
        let begun = self.now;
        while !holds(self) {
            let spent = self.now.since(begun);
            assert!(spent < Duration::from_secs(limit_s), "{what}: not within {limit_s} s");
            self.step();
        }
        self.now.since(begun)
    }

    /// Goes on for so long.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_time().is_some_and(|next| next <= end) {
            self.step();
        }
        self.now = end;
    }

    /// When a node gets to something that is due at `time`.
    fn turn(&self, at: usize, time: Instant) -> Instant {
        let node = &self.nodes[at];
        let lag = u64::try_from(node.lag.as_micros()).unwrap();
        let turn = if lag == 0 { time } else { Instant(time.0.div_ceil(lag) * lag) };
        turn.max(node.paused_until)
    }

    fn wakes(&self) -> Option<(Instant, usize)> {
        let wakes = |(at, node): (usize, &Sim)| Some((self.turn(at, node.membership.as_ref()?.wakes_at()?), at));
        self.nodes.iter().enumerate().filter_map(wakes).min()
    }

    fn next_time(&self) -> Option<Instant> {
        let event = self.queue.first_key_value().map(|((time, _), _)| *time);
        [event, self.wakes().map(|(time, _)| time)].into_iter().flatten().min()
    }

    fn step(&mut self) {
        let wakes = self.wakes();
        let event = self.queue.first_key_value().map(|((time, _), _)| *time);
        match (event, wakes) {
            // What has come is read before time is looked at.
            (Some(time), wakes) if wakes.is_none_or(|(wake, _)| time <= wake) => {
                let (_, (at, life, event)) = self.queue.pop_first().unwrap();
                self.now = self.now.max(time);
                let turn = self.turn(at, time);
                let is_lost = self.nodes[at].is_full && matches!(event, Event::Packet { .. });
                if self.now < turn && is_lost {
                    return;
                }
                if self.now < turn {
                    self.put(turn, at, life, event);
                } else if self.nodes[at].life == life && self.nodes[at].membership.is_some() {
                    self.happen(at, event);
                }
            }
            (_, Some((wake, at))) => {
                self.now = self.now.max(wake);
                self.handle(at, Input::Tick);
            }
            (_, None) => panic!("nothing happens any more"),
        }
    }

    fn put(&mut self, time: Instant, at: usize, life: u64, event: Event) {
        self.events += 1;
        self.queue.insert((time, self.events), (at, life, event));
    }

    fn after(&mut self, wait: Duration, at: usize, event: Event) {
        let life = self.nodes[at].life;
        self.put(self.now + wait, at, life, event);
    }

    fn happen(&mut self, at: usize, event: Event) {
        match event {
            Event::Packet { from, packet } => {
                let from = self.nodes[from].address;
                self.handle(at, Input::Packet { from, packet });
            }
            Event::Letter { from, id, to, says } => {
                if to.is_some_and(|to| to != NodeId::of(&self.nodes[at].name)) {
                    return;
                }
                self.letters += 1;
                let letter = LetterId(self.letters);
                let whose = (from, self.nodes[from].life, id);
                self.nodes[at].letters.insert(letter, whose);
                let from = NodeId::of(&self.nodes[from].name);
                self.handle(at, Input::Letter { letter, from, says });
            }
            Event::Answered { id, answer } => self.handle(at, Input::Answered { exchange: id, answer }),
            Event::Persisted => self.handle(at, Input::Persisted(true)),
            Event::Frozen => {
                let is_empty = !self.nodes[at].holds_data;
                self.handle(at, Input::Frozen(Some(is_empty)));
            }
        }
    }

    /// A letter whose answer nobody waits for.
    pub(super) fn stray_letter(&mut self, at: usize) -> LetterId {
        self.letters += 1;
        let letter = LetterId(self.letters);
        self.nodes[at].letters.insert(letter, (at, u64::MAX, ExchangeId(0)));
        letter
    }

    pub(super) fn handle(&mut self, at: usize, input: Input) {
        let mut effects = vec![];
        let now = self.now;
        if let Some(membership) = &mut self.nodes[at].membership {
            membership.handle(now, input, &mut effects);
        }
        self.perform(at, effects);
    }

    fn perform(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, packet } => self.send(at, to, &packet),
                Effect::Exchange { id, to, address, says } => {
                    self.after(PATIENCE, at, Event::Answered { id, answer: Err(Unanswered::Silent) });
                    if let Some(other) = self.reached(at, address) {
                        let way = self.way();
                        self.after(way, other, Event::Letter { from: at, id, to, says });
                    }
                }
                Effect::Answer { letter, answer } => {
                    let (from, life, id) = self.nodes[at].letters.remove(&letter).expect("a letter is answered once");
                    let time = self.now + self.way();
                    self.put(time, from, life, Event::Answered { id, answer: Ok(answer) });
                }
                Effect::Persist(durable) => {
                    self.nodes[at].disk = Some(*durable);
                    self.after(Duration::from_millis(5), at, Event::Persisted);
                }
                Effect::Freeze => {
                    self.nodes[at].is_frozen = true;
                    self.after(Duration::from_millis(1), at, Event::Frozen);
                }
                Effect::Thaw => self.nodes[at].is_frozen = false,
                Effect::View(view) => self.nodes[at].view = Some(view),
                Effect::Refuse(refusal) => {
                    self.nodes[at].refused = Some(refusal);
                    self.kill(at);
                }
                Effect::Ordered { .. } => {}
                Effect::Note(note) => self.nodes[at].notes.push(note),
            }
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, packet: &Packet) {
        let Some(at) = self.reached(from, to) else { return };
        let copies = match self.rng.next_u64() % 100 {
            drawn if drawn < self.loss => 0,
            drawn if drawn < 2 * self.loss => 2,
            _ => 1,
        };
        for _ in 0..copies {
            // Under loss, some come late and out of order too.
            let way = self.way() * if self.loss > 0 && self.rng.next_u64().is_multiple_of(10) { 50 } else { 1 };
            self.after(way, at, Event::Packet { from, packet: packet.clone() });
        }
    }

    fn way(&mut self) -> Duration {
        Duration::from_micros(100 + self.rng.next_u64() % 1_000)
    }

    fn reached(&self, from: usize, to: SocketAddr) -> Option<usize> {
        let at = self.nodes.iter().position(|node| node.address == to && node.membership.is_some())?;
        (!self.silent.contains(&from) && !self.silent.contains(&at)).then_some(at)
    }
}
