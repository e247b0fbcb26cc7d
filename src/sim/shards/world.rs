//! Nodes, their disks and the network between them, as one queue of events.

mod changes;
mod disk;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use self::disk::Disk;
use crate::protocol::causality::Siblings;
use crate::protocol::config::{self, DEADLINE_DEFAULT};
use crate::protocol::io::{Append, Change, Effect, Effects, Held, Hint, Input, Standing};
use crate::protocol::message::{Directory, Failure, Outcome, Reply, Request};
use crate::protocol::peer::{Ask, Refused, Told, Unheard};
use crate::protocol::planted::Planted;
use crate::protocol::ring::{Cores, Layout, LayoutRow, LayoutStamp, Liveness, Member, Ring, Step, View, Wanted};
use crate::protocol::shard::{Birth, Shard};
use crate::protocol::types::{
    ActorId, AppendId, AskId, ClusterId, CoreId, Instant, Key, NodeId, Now, RequestId, TicketId, WallTime,
};
use crate::sim::shards::known::Known;

/// Between two ticks of a node.
const TICK: Duration = Duration::from_millis(10);

/// A message's way, and a sync, take between so much and twice as much.
const HOP: Duration = Duration::from_micros(100);
const SYNC: Duration = Duration::from_micros(300);

const PARTITIONS: u16 = 16;
const RING: Ring = Ring::new(PARTITIONS);

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cluster {
    /// Its nodes.
    pub nodes: usize,
    /// So many of them, the first, are in the layout that it begins with.
    pub members: usize,
    /// Copies and quorums.
    pub wanted: Wanted,
    /// What chance is drawn from.
    pub seed: u64,
    /// For how long tombstones are kept at least.
    pub tombstone_age: Duration,
}

/// A cluster at work.
pub(super) struct World {
    now: Instant,
    seed: u64,
    tombstone_age: Duration,
    events: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    nodes: Vec<Node>,
    layout: Arc<Layout>,
    /// Directions in which nothing goes through, and those that take no more.
    cut: BTreeSet<(usize, usize)>,
    clogged: BTreeSet<(usize, usize)>,
    /// Directions in which messages take longer.
    slowed: BTreeMap<(usize, usize), Duration>,
    outcomes: BTreeMap<RequestId, Outcome>,
    requests: u64,
    /// Keys and deadlines of all requests.
    requested: BTreeMap<RequestId, (Key, Instant)>,
    tickets: u64,
    /// Who asked under a ticket, in which of his lives, and his name for the question.
    asked: BTreeMap<TicketId, (usize, u64, AskId)>,
}

struct Node {
    shard: Option<Shard>,
    disk: Disk,
    log: Vec<Append>,
    syncing: bool,
    /// Stopped without being dead: what comes waits.
    paused: Option<Vec<Event>>,
    was_paused: bool,
    /// Its disk takes nothing.
    full: bool,
    /// Its log has failed, and is not written again in this life.
    broken: bool,
    lives: u64,
    down: BTreeSet<usize>,
    epoch: u64,
    known: Known,
    /// Its membership stands still: it neither hears of others nor tells them.
    is_deaf: bool,
    is_gone: bool,
    /// How far its wall clock is ahead.
    ahead: Duration,
    /// What it held on disks that it has lost, or has dropped or forgotten since.
    lost: BTreeMap<Key, Arc<Siblings>>,
}

#[derive(Clone)]
enum Event {
    Tick(usize, u64),
    Sync(usize, u64, AppendId),
    Mark(usize, u64, LayoutStamp, Step),
    Gossip { to: usize, life: u64, known: Box<Known> },
    Deliver { to: usize, life: u64, message: Message },
}

#[derive(Clone)]
enum Message {
    Ask { ticket: TicketId, stand: Standing, ask: Ask, patience: Duration },
    Told { ask: AskId, told: Result<Told, Unheard> },
}

impl World {
    /// A cluster in which all is well.
    pub(super) fn new(cluster: Cluster) -> World {
        let Cluster { nodes, members, wanted, seed, tombstone_age } = cluster;
        let mut world = World {
            now: Instant(0),
            seed,
            tombstone_age,
            events: BTreeMap::new(),
            scheduled: 0,
            nodes: Vec::new(),
            layout: layout(members, wanted),
            cut: BTreeSet::new(),
            clogged: BTreeSet::new(),
            slowed: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            requests: 0,
            requested: BTreeMap::new(),
            tickets: 0,
            asked: BTreeMap::new(),
        };
        for node in 0..nodes {
            world.nodes.push(Node {
                shard: None,
                disk: Disk::default(),
                log: Vec::new(),
                syncing: false,
                paused: None,
                was_paused: false,
                full: false,
                broken: false,
                lives: 0,
                down: BTreeSet::new(),
                epoch: 0,
                known: Known::new(id(node), 1, Arc::clone(&world.layout)),
                is_deaf: false,
                is_gone: false,
                ahead: Duration::ZERO,
                lost: BTreeMap::new(),
            });
        }
        (0..nodes).for_each(|node| world.start(node));
        world
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The owners of a key, as indices of nodes, in the layout's order.
    pub(super) fn owners(&self, key: &Key) -> Vec<usize> {
        let partition = RING.partition(key);
        self.layout.owners(partition).map(|owner| self.index(owner)).collect()
    }

    /// kill -9: what was not durable is gone, and every connection of the node ends.
    pub(super) fn crash(&mut self, node: usize) {
        let dead = &mut self.nodes[node];
        dead.shard = None;
        dead.log.clear();
        dead.paused = None;
        dead.lives += 1;
        let under_way: Vec<(usize, u64, AskId)> = self
            .events
            .values()
            .filter_map(|event| match event {
                Event::Deliver { to, message: Message::Ask { ticket, .. }, .. } if *to == node => {
                    self.asked.get(ticket).copied()
                }
                _ => None,
            })
            .collect();
        for (asker, life, ask) in under_way {
            if self.nodes[asker].lives == life {
                self.feed(asker, Input::Told { ask, told: Err(Unheard::Lost) });
            }
        }
    }

    /// The hints of a node that is dead are lost: what it owed to others is known by the trees only.
    pub(super) fn lose_hints(&mut self, node: usize) {
        assert!(!self.is_alive(node), "a node that lives knows its hints by heart");
        self.nodes[node].disk.hints.clear();
    }

    /// Starts a node that is dead, from what is durable on it.
    pub(super) fn start(&mut self, node: usize) {
        assert!(!self.nodes[node].is_gone, "a node that was removed does not come back");
        let nodes = self.nodes.len();
        let Node { disk, lives, down, epoch, known, .. } = &mut self.nodes[node];
        *lives += 1;
        *epoch += 1;
        let life = *lives;
        let actor = |n: u64| ActorId(((node as u64 + 1) << 32) + (life << 1) + n);
        let hints = disk.hints.iter().map(|((target, key), counted)| {
            let hint = Hint { target: *target, counted: *counted };
            (key.clone(), hint)
        });
        let birth = Birth {
            cluster: ClusterId(1),
            core: CoreId(0),
            actor: actor(0),
            counter: 0,
            spare: actor(1),
            view: view(known, nodes, node, down, *epoch),
            directory: Arc::new(Directory::default()),
            remembered: disk.remembered.clone(),
            hints: hints.collect(),
            tombstone_age: self.tombstone_age,
            seed: self.seed,
            transfer_rate: config::TRANSFER_BYTES_PER_SECOND,
            compare_period: config::COMPARE_PERIOD,
            keeps_hints: true,
            planted: Planted::NONE,
        };
        self.nodes[node].shard = Some(Shard::new(self.now, birth));
        (self.nodes[node].syncing, self.nodes[node].broken) = (false, false);
        self.schedule(TICK, Event::Tick(node, life));
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.feed(other, Input::Linked(id(node)));
        }
    }

    /// SIGSTOP: what comes waits, and nobody is told.
    pub(super) fn pause(&mut self, node: usize) {
        self.nodes[node].paused.get_or_insert_with(Vec::new);
        self.nodes[node].was_paused = true;
    }

    /// SIGCONT.
    pub(super) fn resume(&mut self, node: usize) {
        for event in self.nodes[node].paused.take().unwrap_or_default() {
            self.schedule(Duration::ZERO, event);
        }
    }

    /// The log of a node fails: what was not durable is lost, and it writes no more until it starts again.
    pub(super) fn break_log(&mut self, node: usize) {
        let broken = &mut self.nodes[node];
        broken.broken = true;
        broken.log.clear();
        let actor = ActorId(((node as u64 + 1) << 32) + (1 << 31) + broken.lives);
        self.feed(node, Input::AppendsFailed { actor });
    }

    /// The wall clock of a node is that much ahead from now on.
    pub(super) fn set_clock(&mut self, node: usize, ahead: Duration) {
        self.nodes[node].ahead = ahead;
    }

    /// The disk of a node is full from now on, or is not.
    pub(super) fn fill(&mut self, node: usize, is_full: bool) {
        self.nodes[node].full = is_full;
    }

    /// Membership on `observer` finds that `node` answers, or that it does not.
    pub(super) fn notice(&mut self, observer: usize, node: usize, is_up: bool) {
        let down = &mut self.nodes[observer].down;
        if is_up {
            down.remove(&node)
        } else {
            down.insert(node)
        };
        self.show_view(observer);
    }

    fn show_view(&mut self, observer: usize) {
        let nodes = self.nodes.len();
        let Node { down, epoch, known, .. } = &mut self.nodes[observer];
        *epoch += 1;
        let view = view(known, nodes, observer, down, *epoch);
        self.feed(observer, Input::View(view));
    }

    /// A client asks a node. The outcome comes with time.
    pub(super) fn ask(&mut self, node: usize, request: Request) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        let deadline = self.now + request.patience();
        self.requested.extend(request.key().map(|key| (id, (key.clone(), deadline))));
        if self.nodes[node].shard.is_some() {
            let failure = Failure::DiskFull;
            let input = match self.nodes[node].full && request.is_write() {
                true => Input::Elsewhere { id, request, failure, deadline },
                false => Input::Request { id, request, held: Held::Unknown, deadline },
            };
            self.feed(node, input);
        }
        id
    }

    /// How a request ended, if it has.
    pub(super) fn outcome(&mut self, id: RequestId) -> Option<Outcome> {
        self.outcomes.remove(&id)
    }

    /// Lets time go by until the request has ended; `None` when it never does, as behind a node that died.
    pub(super) fn wait_for(&mut self, id: RequestId) -> Option<Outcome> {
        let until = self.now + 2 * DEADLINE_DEFAULT;
        while !self.outcomes.contains_key(&id) && self.now < until && self.step(until) {}
        self.outcome(id)
    }

    /// Lets time go by.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// What a node has durably of a key.
    pub(super) fn copy(&self, node: usize, key: &Key) -> Option<&Arc<Siblings>> {
        self.nodes[node].disk.sets.get(key)
    }

    /// What a node still has to do, as a count of whatever is in its tables.
    #[cfg(test)]
    pub(super) fn under_way(&self, node: usize) -> usize {
        self.nodes[node].shard.as_ref().map_or(0, Shard::under_way)
    }

    /// Keys that a node keeps durably, with a value or without.
    pub(super) fn keys(&self, node: usize) -> usize {
        self.nodes[node].disk.sets.len()
    }

    /// Hints that a node keeps durably.
    pub(super) fn hints(&self, node: usize) -> usize {
        self.nodes[node].disk.hints.len()
    }

    /// Whether a node is alive.
    pub(super) fn is_alive(&self, node: usize) -> bool {
        self.nodes[node].shard.is_some()
    }

    /// A number below `bound`, from the seed.
    pub(super) fn draw(&mut self, bound: u64) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        seahash::hash(&self.seed.to_le_bytes()) % bound
    }

    fn index(&self, node: NodeId) -> usize {
        (0..self.nodes.len()).find(|index| id(*index) == node).expect("every node of the layout is in the world")
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now + after, self.scheduled), event);
    }

    /// The next event; false when there is none before `until`.
    fn step(&mut self, until: Instant) -> bool {
        let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until) else {
            return false;
        };
        let ((at, _), event) = entry.remove_entry();
        self.now = self.now.max(at);
        let node = match &event {
            Event::Tick(node, _) | Event::Sync(node, ..) | Event::Mark(node, ..) => *node,
            Event::Deliver { to, .. } | Event::Gossip { to, .. } => *to,
        };
        if let Some(paused) = &mut self.nodes[node].paused {
            paused.push(event);
        } else {
            self.happen(event);
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(node, life) if self.nodes[node].lives == life => {
                self.feed(node, Input::Tick);
                self.schedule(TICK, Event::Tick(node, life));
                if self.draw(10) == 0 {
                    let to = self.draw(self.nodes.len() as u64);
                    self.gossip_to(node, usize::try_from(to).expect("the index of a node"));
                }
            }
            Event::Mark(node, life, stamp, step) if self.nodes[node].lives == life => self.on_mark(node, stamp, step),
            Event::Gossip { to, life, known } if self.nodes[to].lives == life && !self.nodes[to].is_deaf => {
                self.learn(to, &known);
            }
            Event::Sync(node, life, through) if self.nodes[node].lives == life => self.on_synced(node, through),
            Event::Deliver { to, life, message } if self.nodes[to].lives == life => match message {
                Message::Ask { ticket, ask, .. } if self.nodes[to].full && ask.is_write() => {
                    self.send_told(to, ticket, Told::Refused(Refused::DiskFull));
                }
                Message::Ask { ticket, stand, ask, patience } => {
                    let deadline = self.now + patience;
                    self.feed(to, Input::Asked { ticket, stand, ask, held: Held::Unknown, deadline });
                }
                Message::Told { ask, told } => self.feed(to, Input::Told { ask, told }),
            },
            _ => {}
        }
    }

    fn on_synced(&mut self, node: usize, through: AppendId) {
        let Node { disk, log, syncing, broken, lost, .. } = &mut self.nodes[node];
        if *broken {
            return;
        }
        *syncing = false;
        let rest = log.split_off(log.partition_point(|append| append.id <= through));
        for append in std::mem::replace(log, rest) {
            if let (Change::Drop { .. }, Some(set)) = (&append.change, disk.sets.get(&append.key)) {
                lose(lost, &append.key, set);
            }
            disk.keep(append);
        }
        self.feed(node, Input::Appended { through });
        self.begin_sync(node);
    }

    fn begin_sync(&mut self, node: usize) {
        let Node { log, syncing, lives, .. } = &mut self.nodes[node];
        if let (Some(last), false) = (log.last(), *syncing) {
            *syncing = true;
            let event = Event::Sync(node, *lives, last.id);
            let took = self.about(SYNC);
            self.schedule(took, event);
        }
    }

    /// Hands an input to a node and carries out what it says.
    fn feed(&mut self, node: usize, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let wall = self.now + self.nodes[node].ahead;
            let now = Now { instant: self.now, wall: WallTime(wall.0 / 1_000) };
            let mut effects = Effects::new();
            let Some(shard) = &mut self.nodes[node].shard else {
                return;
            };
            shard.handle(now, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Load { load, key } => {
                        let found = Ok(self.nodes[node].disk.sets.get(&key).cloned());
                        inputs.push_back(Input::Loaded { load, found });
                    }
                    Effect::Append(append) => {
                        assert!(!self.nodes[node].broken, "nothing is appended to a log that has failed");
                        self.nodes[node].log.push(append);
                    }
                    Effect::Reply { id, outcome } => {
                        self.judge(node, id, &outcome);
                        assert!(self.outcomes.insert(id, outcome).is_none(), "{id:?} is answered once");
                    }
                    Effect::Ask { to, id, stand, ask, deadline, .. } => {
                        let told = self.send_ask(node, to, id, stand, ask, deadline);
                        inputs.extend(told);
                    }
                    Effect::Tell { ticket, told } => self.send_told(node, ticket, told),
                    Effect::Compare(stamp) => self.compare(node, stamp),
                    Effect::Survey { survey, of } => {
                        let found = self.nodes[node].disk.survey(&of);
                        inputs.push_back(Input::Surveyed { survey, found });
                    }
                    Effect::Scan { scan, of } => {
                        let page = Ok(self.nodes[node].disk.scan(&of));
                        inputs.push_back(Input::Scanned { scan, page });
                    }
                    Effect::Reached { stamp, step } => self.on_reached(node, stamp, step),
                    Effect::List { .. } | Effect::Forget { .. } => {}
                }
            }
        }
        self.begin_sync(node);
    }

    /// Every request is answered by its deadline and two ticks, unless its node was paused; and what was acknowledged
    /// is durable on as many nodes as the reply says.
    fn judge(&self, node: usize, id: RequestId, outcome: &Outcome) {
        let Some((key, deadline)) = self.requested.get(&id) else { return };
        let late = self.now.since(*deadline);
        assert!(late <= 2 * TICK || self.nodes[node].was_paused, "{id:?} is answered {late:?} late");
        if let Ok(Reply::Written(written)) = outcome {
            let holds =
                |sets: &BTreeMap<Key, Arc<Siblings>>| sets.get(key).is_some_and(|set| set.vector().covers(written.dot));
            let has = |node: &&Node| holds(&node.disk.sets) || holds(&node.lost);
            let copies = self.nodes.iter().filter(has).count();
            assert!(usize::from(written.level.quorum) <= copies, "{copies} copies of {key} are durable: {written:?}");
        }
    }

    fn about(&mut self, time: Duration) -> Duration {
        let micros = u64::try_from(time.as_micros()).expect("a fraction of a second");
        time + Duration::from_micros(self.draw(micros))
    }
}

/// Notes that a set was held.
fn lose(lost: &mut BTreeMap<Key, Arc<Siblings>>, key: &Key, set: &Arc<Siblings>) {
    let held = lost.entry(key.clone()).or_insert_with(|| Arc::clone(set));
    *held = Arc::new(held.join(set));
}

/// The id of a node by its index.
fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

/// The layout that grew from one node to all.
fn layout(nodes: usize, wanted: Wanted) -> Arc<Layout> {
    let founded = Layout::founding(PARTITIONS, wanted, row(0));
    Arc::new(founded.next((0..nodes).map(row).collect(), wanted))
}

fn row(node: usize) -> LayoutRow {
    LayoutRow { node: id(node), incarnation: 1, zone: "".into(), weight: 1 }
}

fn view(known: &Known, nodes: usize, me: usize, down: &BTreeSet<usize>, epoch: u64) -> Arc<View> {
    let nowhere = core::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let member = |node: usize| Member {
        node: id(node),
        name: format!("n{node}").into(),
        incarnation: known.incarnation(id(node)),
        is_removed: known.removed.contains(&id(node)),
        address: nowhere,
        http: nowhere,
        cores: Cores { count: 1, salt: 0 },
        liveness: if down.contains(&node) { Liveness::Down } else { Liveness::Up },
    };
    let members = (0..nodes).map(member).collect();
    let (layout, change) = known.view();
    Arc::new(View { me: id(me), epoch, layout, change, members })
}
