//! Whole memberships on virtual time: one queue of events, a network that loses, delays and doubles, disks and cores
//! that answer. Nothing here waits, and one seed gives one run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use core::net::SocketAddr;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::protocol::membership::{
    Answer, Birth, Durable, Effect, ExchangeId, Input, Knowledge, Letter, LetterId, Mark, Membership, Note, Order,
    OrderId, OrderRefused, Packet, Plan, Refusal, RowStart, RowState, Unanswered, may_join,
};
use crate::protocol::planted::Planted;
use crate::protocol::ring::{Change, Cores, Liveness, Step, View, Wanted};
use crate::protocol::types::{ClusterId, CoreId, Instant, NodeId};

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
    Reached(CoreId),
    Counted,
}

/// A node: what of it outlives a start, and the membership of the present one.
pub(super) struct Sim {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) incarnation: u128,
    pub(super) starts: u64,
    pub(super) stamp: u64,
    pub(super) disk: Option<Durable>,
    /// What is on its way to the disk.
    writing: Option<Durable>,
    pub(super) holds_data: bool,
    /// The step that its cores do not get beyond.
    pub(super) stuck_at: Option<Step>,
    /// What its orders came to.
    pub(super) ordered: BTreeMap<OrderId, Result<Box<Plan>, OrderRefused>>,
    pub(super) membership: Option<Membership>,
    /// Counts its lives: what was meant for another one is lost.
    life: u64,
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
    /// Whether nodes commit joins while they hold data.
    pub(super) auto_join: bool,
    orders: u64,
    /// The hash of each layout that was ever stored, by number.
    stored: BTreeMap<u64, u64>,
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
            auto_join: false,
            orders: 0,
            stored: BTreeMap::new(),
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
            writing: None,
            holds_data: false,
            stuck_at: None,
            ordered: BTreeMap::new(),
            membership: None,
            life: 0,
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
        (node.starts, node.stamp, node.view) = (node.starts + 1, stamp, None);
        node.life += 1;
        let count = node.starts;
        let start = self.row_start(at, count, stamp);
        let auto_join = self.auto_join;
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
            auto_join,
            seeds: vec![],
            seed,
            planted: Planted::NONE,
        };
        let mut effects = vec![];
        node.membership = Some(Membership::begin(self.now, birth, &mut effects));
        self.perform(at, effects);
        self.after(Duration::from_millis(500), at, Event::Counted);
    }

    /// Ends a node as a crash would: what was on its way to the disk is there, or is not.
    pub(super) fn kill(&mut self, at: usize) {
        let is_there = self.rng.next_u64().is_multiple_of(2);
        let node = &mut self.nodes[at];
        if let Some(durable) = node.writing.take().filter(|_| is_there || node.disk.is_none()) {
            node.disk = Some(durable);
        }
        (node.membership, node.life) = (None, node.life + 1);
    }

    /// Gives an order to a node, and waits for what it comes to.
    #[track_caller]
    pub(super) fn order(&mut self, at: usize, order: Order) -> Result<Plan, OrderRefused> {
        let id = self.send_order(at, order);
        self.until("the order is answered", 5, |world| world.nodes[at].ordered.contains_key(&id));
        self.nodes[at].ordered.remove(&id).unwrap().map(|plan| *plan)
    }

    /// Gives an order to a node.
    pub(super) fn send_order(&mut self, at: usize, order: Order) -> OrderId {
        self.orders += 1;
        let id = OrderId(self.orders);
        self.handle(at, Input::Order { id, order });
        id
    }

    /// Layouts that were ever stored.
    pub(super) fn stored(&self) -> usize {
        self.stored.len()
    }

    pub(super) fn id(&self, at: usize) -> NodeId {
        NodeId::of(&self.nodes[at].name)
    }

    /// Whether all nodes that run go by one stored layout of so many nodes, and no change is under way.
    pub(super) fn rest(&self, nodes: usize) -> bool {
        let views: Vec<_> = self.live().map(|node| node.view.as_ref()).collect();
        let is_one = |view: &Option<&Arc<View>>| {
            view.is_some_and(|view| {
                view.change.is_none()
                    && view.layout.rows().len() == nodes
                    && Some(view.layout.stamp()) == views[0].map(|view| view.layout.stamp())
            })
        };
        views.iter().all(is_one)
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
                    && view.change.is_none()
                    && view.layout.rows().len() == nodes
                    && view.members.len() == nodes
                    && view.members.iter().all(|member| member.liveness == Liveness::Up)
            })
        })
    }

    /// Whether the nodes that run all know so many members, and see each other up.
    pub(super) fn agree_on_members(&self, members: usize) -> bool {
        self.live().all(|node| {
            node.view.as_ref().is_some_and(|view| {
                let up = view.members.iter().filter(|member| member.liveness == Liveness::Up);
                view.members.len() == members && up.count() == members
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
            Event::Persisted => {
                let written = self.nodes[at].writing.take();
                self.nodes[at].disk = written.or(self.nodes[at].disk.take());
                self.handle(at, Input::Persisted(true));
            }
            Event::Reached(core) => self.reach(at, core),
            Event::Counted => {
                let holds_data = self.nodes[at].holds_data;
                if self.nodes[at].membership.as_ref().is_some_and(Membership::asks_holdings) {
                    self.handle(at, Input::Holds(holds_data));
                }
                self.after(Duration::from_millis(500), at, Event::Counted);
            }
        }
    }

    /// A core says what it has reached, again and again.
    fn reach(&mut self, at: usize, core: CoreId) {
        let node = &self.nodes[at];
        let Some(change) = node.view.as_ref().and_then(|view| view.change.clone()) else {
            return;
        };
        let again = if node.stuck_at.is_some_and(|step| step <= change.step) { 200 } else { 1_000 };
        if again == 1_000 {
            self.handle(at, Input::Reached { core, stamp: change.pending.stamp(), step: change.step });
        }
        self.after(Duration::from_millis(again), at, Event::Reached(core));
    }

    /// What must be true whatever happens when a node goes by this view.
    fn judge(&mut self, at: usize, view: &View) {
        for member in view.members.iter().filter(|member| member.is_removed && member.node != view.me) {
            assert_eq!(member.liveness, Liveness::Down, "n{at} would ask {}, which was removed", member.name);
        }
        let Some(change) = &view.change else {
            let stamp = view.layout.stamp();
            let hash = *self.stored.entry(stamp.number).or_insert(stamp.hash);
            assert_eq!(hash, stamp.hash, "n{at}: two layouts of number {} are stored", stamp.number);
            let before = self.nodes[at].view.as_ref().and_then(|before| before.change.clone());
            for change in before.into_iter().filter(|change| change.pending.stamp() == stamp) {
                for node in self.waited(at, &change) {
                    let mark = self.disk_mark(node, &change);
                    assert!(Mark::Reads <= mark, "n{at} stores it, and n{node} has made {mark:?} durable");
                }
            }
            return;
        };
        let least = match change.step {
            Step::Write => Mark::Known,
            Step::Hold => Mark::Writes,
            Step::Read => Mark::Holds,
        };
        assert_eq!(
            view.layout.stamp(),
            if change.step == Step::Read { &change.pending } else { &change.stored }.stamp()
        );
        for node in self.waited(at, change) {
            let mark = self.disk_mark(node, change);
            assert!(least <= mark, "n{at} is at {:?}, and n{node} has made {mark:?} durable", change.step);
        }
    }

    fn waited(&self, at: usize, change: &Change) -> Vec<usize> {
        let known = self.knowledge(at).rows;
        let is_copied = |incarnation| 1 < self.nodes.iter().filter(|node| node.incarnation == incarnation).count();
        let is_waited = |node: &usize| {
            let id = self.id(*node);
            let has_place = |layout: &crate::protocol::ring::Layout| layout.rows().iter().any(|row| row.node == id);
            let row = known.get(id);
            let is_this = row.is_some_and(|row| row.incarnation == self.nodes[*node].incarnation);
            is_this
                && !is_copied(self.nodes[*node].incarnation)
                && row.is_none_or(|row| row.state != RowState::Removed)
                && (has_place(&change.stored) || has_place(&change.pending))
        };
        (0..self.nodes.len()).filter(is_waited).collect()
    }

    /// How far a node has come by what its disk says.
    fn disk_mark(&self, at: usize, change: &Change) -> Mark {
        let disk = self.nodes[at].disk.as_ref().expect("it has begun");
        let row = disk.rows.get(disk.me).expect("it has a row of its own");
        row.progress.mark_of(change.pending.stamp())
    }

    /// What is told of the teller's own progress is durable.
    fn judge_told(&self, at: usize, told: &Knowledge) {
        let Some(disk) = &self.nodes[at].disk else { return };
        let progress = |rows: &crate::protocol::membership::Rows| rows.get(disk.me).map(|row| row.progress);
        let (told, durable) = (progress(&told.rows).unwrap(), progress(&disk.rows).unwrap());
        let is_covered =
            durable.stamp.is_newer_than(told.stamp) || durable.stamp == told.stamp && told.mark <= durable.mark;
        assert!(is_covered, "n{at} tells {told:?}, and {durable:?} is durable");
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
                    let Letter::Compare(told) = &says;
                    self.judge_told(at, told);
                    self.after(PATIENCE, at, Event::Answered { id, answer: Err(Unanswered::Silent) });
                    if let Some(other) = self.reached(at, address) {
                        let way = self.way();
                        self.after(way, other, Event::Letter { from: at, id, to, says });
                    }
                }
                Effect::Answer { letter, answer } => {
                    let Answer::Knowledge(told) = &answer;
                    self.judge_told(at, told);
                    let (from, life, id) = self.nodes[at].letters.remove(&letter).expect("a letter is answered once");
                    let time = self.now + self.way();
                    self.put(time, from, life, Event::Answered { id, answer: Ok(answer) });
                }
                Effect::Persist(durable) => {
                    assert!(self.nodes[at].writing.is_none(), "there is one at a time");
                    self.nodes[at].writing = Some(*durable);
                    self.after(Duration::from_millis(5), at, Event::Persisted);
                }
                Effect::Ordered { id, outcome } => {
                    let before = self.nodes[at].ordered.insert(id, outcome);
                    assert!(before.is_none(), "an order is answered once");
                }
                Effect::View(view) => {
                    self.judge(at, &view);
                    let shown = |view: &View| view.change.as_ref().map(|change| (change.pending.stamp(), change.step));
                    let before = self.nodes[at].view.as_deref().and_then(shown);
                    let is_new = shown(&view).is_some() && shown(&view) != before;
                    self.nodes[at].view = Some(view);
                    for core in (0..2).filter(|_| is_new) {
                        let took = self.way();
                        self.after(took, at, Event::Reached(CoreId(core)));
                    }
                }
                Effect::Refuse(refusal) => {
                    self.nodes[at].refused = Some(refusal);
                    self.kill(at);
                }
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
