//! A few shards that answer each other at once, with views, trees and bytes in the hands of the test: what a [`World`]
//! tells over time is here told page by page.
//!
//! [`World`]: crate::sim::shards::World

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::protocol::Stats;
use crate::protocol::antientropy::{Forest, PartitionLeaf, Shift, digest, is_buried};
use crate::protocol::causality::{Siblings, Supersedes, Write};
use crate::protocol::config::{COMPARE_PERIOD, TOMBSTONE_AGE, TRANSFER_BYTES_PER_SECOND};
use crate::protocol::io::{
    Append, Change as Appended, Effect, Effects, Held, Input, Name, Scan, ScanPage, ScanWant, Standing, Survey,
    Surveyed,
};
use crate::protocol::message::Directory;
use crate::protocol::peer::{Ask, Told, Unheard};
use crate::protocol::planted::Planted;
use crate::protocol::ring::{Change, Cores, Layout, LayoutRow, Liveness, Member, Partition, Ring, View, Wanted};
use crate::protocol::shard::{Birth, Shard};
use crate::protocol::types::{
    ActorId, AskId, ClusterId, CoreId, Dot, Instant, Key, NodeId, Now, TicketId, Value, WallTime,
};
use crate::wire::frame::CallId;
use crate::wire::peer::{encode_ask, encode_told};

const TICK: Duration = Duration::from_millis(10);

/// Shards of one core each.
pub(super) struct Shards {
    pub(super) ring: Ring,
    now: Instant,
    nodes: Vec<Node>,
    wire: VecDeque<(usize, Message)>,
    asked: BTreeMap<TicketId, (usize, u64, AskId)>,
    tickets: u64,
    /// Bytes and messages that went from node to node.
    pub(super) bytes: usize,
    pub(super) messages: usize,
    /// Sets that travelled, in pages and in merges.
    pub(super) sets_sent: usize,
}

struct Node {
    shard: Option<Shard>,
    lives: u64,
    sets: BTreeMap<Partition, BTreeMap<Key, Arc<Siblings>>>,
    forest: Forest,
    log: Vec<Append>,
    view: Arc<View>,
    transfer_rate: u64,
}

enum Message {
    Ask(TicketId, Standing, Ask),
    Told(AskId, u64, Result<Told, Unheard>),
}

pub(super) fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

pub(super) fn key(n: usize) -> Key {
    Key::new(format!("key {n}")).unwrap()
}

/// A value, or a tombstone, that this actor wrote as its so-many-th.
pub(super) fn set(actor: u64, counter: u64, value: Option<&'static str>) -> Arc<Siblings> {
    let value = value.map(|value| Value::new(value).unwrap());
    let write = Write { value, supersedes: Supersedes::Held, operation: None, written_at: WallTime(1) };
    Arc::new(Siblings::default().mint(Dot { actor: ActorId(actor), counter }, write).unwrap().set)
}

fn row(node: usize) -> LayoutRow {
    LayoutRow { node: id(node), incarnation: 1, zone: "".into(), weight: 1 }
}

/// The layout in which these nodes own all, after this one.
pub(super) fn layout(before: Option<&Layout>, partitions: u16, nodes: &[usize], copies: u8) -> Arc<Layout> {
    let wanted = Wanted { n: copies, r: 1, w: 1 };
    let founded = before.cloned().unwrap_or_else(|| Layout::founding(partitions, wanted, row(nodes[0])));
    Arc::new(founded.next(nodes.iter().copied().map(row).collect(), wanted))
}

fn view(me: usize, nodes: usize, layout: &Arc<Layout>, epoch: u64) -> View {
    let nowhere = core::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let member = |node: usize| Member {
        node: id(node),
        name: format!("n{node}").into(),
        incarnation: 1,
        is_removed: false,
        address: nowhere,
        http: nowhere,
        cores: Cores { count: 1, salt: 0 },
        liveness: Liveness::Up,
    };
    let members = (0..nodes).map(member).collect();
    View { me: id(me), epoch, layout: Arc::clone(layout), change: None, members }
}

impl Shards {
    pub(super) fn new(nodes: usize, layout: &Arc<Layout>) -> Shards {
        let mut shards = Shards {
            ring: Ring::new(layout.partitions()),
            now: Instant(0),
            nodes: Vec::new(),
            wire: VecDeque::new(),
            asked: BTreeMap::new(),
            tickets: 0,
            bytes: 0,
            messages: 0,
            sets_sent: 0,
        };
        for me in 0..nodes {
            shards.nodes.push(Node {
                shard: None,
                lives: 0,
                sets: BTreeMap::new(),
                forest: Forest::default(),
                log: Vec::new(),
                view: Arc::new(view(me, nodes, layout, 1)),
                transfer_rate: TRANSFER_BYTES_PER_SECOND,
            });
        }
        (0..nodes).for_each(|node| shards.start(node));
        shards
    }

    /// Starts a node that is dead, from what is durable on it.
    pub(super) fn start(&mut self, node: usize) {
        let started = &mut self.nodes[node];
        started.lives += 1;
        let actor = |n| ActorId(((node as u64 + 1) << 32) + (started.lives << 1) + n);
        let shard = Shard::new(
            self.now,
            Birth {
                cluster: ClusterId(1),
                core: CoreId(0),
                actor: actor(0),
                counter: 0,
                spare: actor(1),
                view: Arc::clone(&started.view),
                directory: Arc::new(Directory::default()),
                remembered: vec![],
                hints: vec![],
                transfer_rate: started.transfer_rate,
                compare_period: COMPARE_PERIOD,
                keeps_hints: true,
                tombstone_age: TOMBSTONE_AGE,
                seed: 7,
                planted: Planted::NONE,
            },
        );
        started.shard = Some(shard);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.feed(other, Input::Linked(id(node)));
        }
    }

    /// kill -9: what was not durable is gone, and what was asked of it is lost.
    pub(super) fn crash(&mut self, node: usize) {
        self.nodes[node].shard = None;
        self.nodes[node].log.clear();
        self.nodes[node].lives += 1;
    }

    /// Goes on with views that a test makes of the present ones.
    pub(super) fn show(&mut self, change: impl Fn(&mut View)) {
        for node in 0..self.nodes.len() {
            let mut view = View::clone(&self.nodes[node].view);
            view.epoch += 1;
            change(&mut view);
            self.nodes[node].view = Arc::new(view);
            let view = Arc::clone(&self.nodes[node].view);
            self.feed(node, Input::View(view));
        }
    }

    /// All nodes see a change to this layout at this step.
    pub(super) fn show_change(&mut self, change: &Change) {
        self.show(|view| view.change = Some(Arc::new(change.clone())));
    }

    pub(super) fn fetch_at(&mut self, transfer_rate: u64) {
        for node in &mut self.nodes {
            node.transfer_rate = transfer_rate;
            node.shard.iter_mut().for_each(|shard| shard.fetch_at(transfer_rate));
        }
    }

    /// All compare what they hold this often.
    pub(super) fn compare_each(&mut self, period: Duration) {
        for node in &mut self.nodes {
            node.shard.iter_mut().for_each(|shard| shard.compare_each(period));
        }
    }

    /// Puts a set on the disk of a node, as if it had been written there; `None` takes it away.
    pub(super) fn plant(&mut self, node: usize, key: &Key, set: Option<&Arc<Siblings>>) {
        let (partition, leaf) = (self.ring.partition(key), PartitionLeaf::of(self.ring, key));
        let Node { sets, forest, .. } = &mut self.nodes[node];
        let sets = sets.entry(partition).or_default();
        let before = match set {
            Some(set) => sets.insert(key.clone(), Arc::clone(set)),
            None => sets.remove(key),
        };
        forest.apply(partition, leaf, Shift::between(key, before.as_deref(), set.map(Arc::as_ref)));
    }

    /// A node has lost a hint for some key of this partition.
    pub(super) fn mark(&mut self, node: usize, partition: Partition) {
        self.nodes[node].shard.iter_mut().for_each(|shard| shard.mark(partition));
    }

    pub(super) fn held(&self, node: usize, key: &Key) -> Option<&Arc<Siblings>> {
        self.nodes[node].sets.get(&self.ring.partition(key))?.get(key)
    }

    pub(super) fn keys(&self, node: usize) -> usize {
        self.nodes[node].sets.values().map(BTreeMap::len).sum()
    }

    pub(super) fn stats(&self, node: usize) -> Stats {
        self.nodes[node].shard.as_ref().map_or_else(Stats::default, Shard::stats)
    }

    /// Every tree is that of the sets behind it.
    pub(super) fn check_trees(&self) {
        for node in &self.nodes {
            let mut forest = Forest::default();
            for (partition, sets) in &node.sets {
                for (key, set) in sets {
                    let leaf = PartitionLeaf::of(self.ring, key);
                    forest.apply(*partition, leaf, Shift::between(key, None, Some(set)));
                }
            }
            for partition in (0..self.ring.partitions()).map(Partition) {
                assert_eq!(forest.sum(partition), node.forest.sum(partition));
            }
        }
    }

    /// Lets time go by, tick by tick.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.tick();
        }
    }

    pub(super) fn tick(&mut self) {
        self.now = self.now + TICK;
        (0..self.nodes.len()).for_each(|node| self.feed(node, Input::Tick));
        while let Some((to, message)) = self.wire.pop_front() {
            self.deliver(to, message);
        }
    }

    fn deliver(&mut self, to: usize, message: Message) {
        match message {
            Message::Ask(ticket, stand, ask) if self.nodes[to].shard.is_some() => {
                let deadline = self.now + Duration::from_secs(2);
                self.feed(to, Input::Asked { ticket, stand, ask, held: Held::Unknown, deadline });
            }
            Message::Ask(ticket, ..) => {
                let (asker, life, ask) = self.asked[&ticket];
                self.wire.push_back((asker, Message::Told(ask, life, Err(Unheard::NotSent))));
            }
            Message::Told(ask, life, told) if self.nodes[to].lives == life => self.feed(to, Input::Told { ask, told }),
            Message::Told(..) => {}
        }
    }

    fn feed(&mut self, node: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(shard) = &mut self.nodes[node].shard else { return };
            let mut effects = Effects::new();
            shard.handle(Now { instant: self.now, wall: WallTime(self.now.0 / 1_000) }, input, &mut effects);
            for effect in effects {
                inputs.extend(self.perform(node, effect));
            }
            if let (true, Some(last)) = (inputs.is_empty(), self.nodes[node].log.last()) {
                inputs.push_back(Input::Appended { through: last.id });
                for append in std::mem::take(&mut self.nodes[node].log) {
                    self.keep(node, append);
                }
            }
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Load { load, key } => Some(Input::Loaded { load, found: Ok(self.held(node, &key).cloned()) }),
            Effect::Survey { survey, of } => {
                Some(Input::Surveyed { survey, found: survey_of(&self.nodes[node].forest, &of) })
            }
            Effect::Scan { scan, of } => Some(Input::Scanned { scan, page: Ok(self.scan(node, &of)) }),
            Effect::Append(append) => {
                self.nodes[node].log.push(append);
                None
            }
            Effect::Ask { to, id: ask_id, stand, ask, .. } => {
                let mut out = BytesMut::new();
                encode_ask(&mut out, CallId(1), stand, 2_000, &ask).unwrap();
                self.count(&out, usize::from(matches!(ask, Ask::Merge(_))));
                self.tickets += 1;
                let ticket = TicketId(self.tickets);
                self.asked.insert(ticket, (node, self.nodes[node].lives, ask_id));
                let to = (0..self.nodes.len()).find(|index| id(*index) == to).unwrap();
                self.wire.push_back((to, Message::Ask(ticket, stand, ask)));
                None
            }
            Effect::Tell { ticket, told } => {
                let mut out = BytesMut::new();
                encode_told(&mut out, CallId(1), &told);
                self.count(&out, if let Told::Page(page) = &told { page.sets.len() } else { 0 });
                let (asker, life, ask) = self.asked[&ticket];
                self.wire.push_back((asker, Message::Told(ask, life, Ok(told))));
                None
            }
            Effect::Compare(_) | Effect::Reached { .. } | Effect::Forget { .. } => None,
            Effect::List { .. } | Effect::Reply { .. } => unreachable!("no client asks"),
        }
    }

    fn count(&mut self, out: &BytesMut, sets: usize) {
        self.bytes += out.len();
        self.messages += 1;
        self.sets_sent += sets;
    }

    fn keep(&mut self, node: usize, append: Append) {
        match append.change {
            Appended::Version(arrived) => self.plant(node, &append.key, Some(&arrived.state)),
            Appended::Set { state, .. } => self.plant(node, &append.key, Some(&state)),
            Appended::Drop { .. } => self.plant(node, &append.key, None),
            Appended::Hint(_) | Appended::Delivered { .. } => {}
        }
    }

    fn scan(&self, node: usize, of: &Scan) -> ScanPage {
        let mut page = ScanPage::default();
        let mut bytes = 0;
        let wanted: &[u64] = if let ScanWant::Sets { known, .. } = &of.want { known } else { &[] };
        let known: BTreeMap<u64, usize> = wanted.iter().copied().zip(0..).collect();
        page.met = vec![false; wanted.len()];
        let is_wanted = |key: &Key| {
            let is_behind = of.after.as_ref().is_none_or(|after| after < key);
            is_behind && of.leaves.contains(PartitionLeaf::of(self.ring, key))
        };
        let sets = self.nodes[node].sets.get(&of.partition).into_iter().flatten();
        for (key, set) in sets.filter(|(key, _)| is_wanted(key)) {
            let digest = digest(key, set);
            match &of.want {
                ScanWant::Names { max } if page.names.len() == *max => {
                    page.next = page.names.last().map(|name| name.key.clone());
                    break;
                }
                ScanWant::Names { .. } => {
                    let buried_at = is_buried(set).then_some(WallTime(1));
                    page.names.push(Name { key: key.clone(), digest, buried_at });
                }
                ScanWant::Sets { .. } if known.contains_key(&digest) => page.met[known[&digest]] = true,
                ScanWant::Sets { bytes_max, .. } => {
                    page.sets.push((key.clone(), Arc::clone(set)));
                    bytes += set.bytes();
                    if *bytes_max <= bytes {
                        page.next = Some(key.clone());
                        break;
                    }
                }
            }
        }
        page
    }
}

fn survey_of(forest: &Forest, of: &Survey) -> Surveyed {
    let tree = |partition| forest.tree(partition).cloned().unwrap_or_default();
    match of {
        Survey::Sums(partitions) => Surveyed::Sums(partitions.iter().map(|at| forest.sum(*at)).collect()),
        Survey::Branches(partition) => Surveyed::Digests(tree(*partition).branches().to_vec()),
        Survey::Leaves(partition, branch) => Surveyed::Digests(tree(*partition).leaves_of(*branch).to_vec()),
    }
}
