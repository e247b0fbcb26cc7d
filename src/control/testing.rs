//! A node for tests of this folder: real shards on threads of their own, in place of the daemon's cores; their store is
//! a map, and every append is durable at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::guard::Guard;
use super::metrics::Metrics;
use super::node::{MembersShown, Node};
use super::shake::Party;
use crate::protocol::antientropy::Tree;
use crate::protocol::causality::Siblings;
use crate::protocol::config;
use crate::protocol::io::{Effect, Effects, Held, Input};
use crate::protocol::message::{Directory, Keys, Outcome, Page, Request};
use crate::protocol::planted::Planted;
use crate::protocol::ring::{Cores, Ring, View};
use crate::protocol::shard::{Birth, Shard};
use crate::protocol::types::{ActorId, ClusterId, CoreId, Instant, Key, NodeId, Now, RequestId, WallTime};
use crate::runtime::door::Door;
use crate::runtime::heartbeat::Heartbeats;
use crate::runtime::holdings::Holding;
use crate::runtime::mail::{Arrival, Knock, MAIL_MAX, Mail};
use crate::wire::proof::Secret;

pub(super) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(super) const SECRET: &[u8] = b"cluster";
const CORES: Cores = Cores { count: 2, salt: 3 };
const RING: u16 = 16;

/// When the fake cores' wall clock stands still.
pub(super) const WALL: u64 = 1_728_000_000_000;

/// A node whose binary connections arrive at the receiver.
pub(super) fn node(token: Option<&str>) -> (Node, flume::Receiver<Arrival>) {
    let (arrived, arrivals) = flume::unbounded();
    let directory: Arc<Directory> = Arc::new((0..CORES.count).map(|core| (actor(core), "node-a".to_owned())).collect());
    let boxes = (0..CORES.count).map(|core| begin_core(core, Arc::clone(&directory), arrived.clone())).collect();
    let hearts = Heartbeats::new(CORES.count);
    hearts.serve(true);
    let ring = Ring::new(RING);
    let node = Node {
        name: "node-a".into(),
        cluster: CLUSTER,
        ring,
        cores: CORES,
        directory,
        listen: ([127, 0, 0, 1], 7600).into(),
        door: Door::new(ring, CORES, boxes),
        hearts: Arc::new(hearts),
        metrics: Arc::new(Metrics::recording()),
        guard: Guard::new(token),
        party: Party { node: NodeId::of("node-a"), cluster: Some(CLUSTER), secret: Secret::new(SECRET) },
        letters: super::members::letters().0,
        orders: super::members::orders().0,
        transfer_rate: 1 << 20,
        members: members(Arc::new(View::alone("node-a", CORES, RING))),
        holdings: Arc::new(|| Holding { keys: 5, bytes: 600, hints: 7, ..Holding::default() }),
        trees: Arc::new(|range| {
            let (made, tree) = flume::bounded(1);
            made.send(Ok(Tree::new(range))).unwrap();
            tree
        }),
        snapshots: Arc::new(|| {
            let (pieces, snapshot) = flume::bounded(2);
            pieces.send(Ok(Bytes::from_static(b"snap"))).unwrap();
            pieces.send(Ok(Bytes::from_static(b"shot"))).unwrap();
            snapshot
        }),
    };
    (node, arrivals)
}

/// Where a view is shown that never changes.
pub(super) fn members(view: Arc<View>) -> watch::Receiver<MembersShown> {
    watch::channel(MembersShown { view: Some(view), rows: Arc::default() }).1
}

fn actor(core: u16) -> ActorId {
    ActorId(u64::from(core) + 1)
}

fn begin_core(core: u16, directory: Arc<Directory>, arrived: flume::Sender<Arrival>) -> flume::Sender<Mail> {
    let (sender, mail) = flume::bounded(MAIL_MAX);
    let mut fake = FakeCore::new(core, directory);
    let turn = move || {
        while let Ok(letter) = mail.recv() {
            match letter {
                Mail::Knock(Knock::Ask { request, answer }) => {
                    let _ = answer.send(fake.ask(request));
                }
                Mail::Knock(Knock::Checkpoint { done }) => {
                    let _ = done.send(Ok(()));
                }
                Mail::Knock(Knock::View(_)) => {}
                Mail::Dialed { .. } => {}
                Mail::Connection(arrival) => {
                    let _ = arrived.send(arrival);
                }
            }
        }
    };
    std::thread::Builder::new().spawn(turn).unwrap();
    sender
}

struct FakeCore {
    shard: Shard,
    store: BTreeMap<Key, Arc<Siblings>>,
    requests: u64,
}

impl FakeCore {
    fn new(core: u16, directory: Arc<Directory>) -> FakeCore {
        let birth = Birth {
            cluster: CLUSTER,
            core: CoreId(core),
            actor: actor(core),
            counter: 0,
            spare: ActorId(u64::MAX),
            view: Arc::new(View::alone("node-a", Cores { count: 2, salt: 0 }, 16)),
            directory,
            remembered: vec![],
            hints: Vec::new(),
            seed: 1,
            transfer_rate: config::TRANSFER_BYTES_PER_SECOND,
            compare_period: config::COMPARE_PERIOD,
            keeps_hints: true,
            tombstone_age: config::TOMBSTONE_AGE,
            planted: Planted::NONE,
        };
        FakeCore { shard: Shard::new(Instant(0), birth), store: BTreeMap::new(), requests: 0 }
    }

    fn ask(&mut self, request: Request) -> Outcome {
        self.requests += 1;
        let id = RequestId(self.requests);
        let mut inputs = vec![Input::Request { id, request, held: Held::Unknown, deadline: Instant(u64::MAX) }];
        while let Some(input) = inputs.pop() {
            let mut effects = Effects::new();
            self.shard.handle(Now { instant: Instant(0), wall: WallTime(WALL) }, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Ask { .. } | Effect::Tell { .. } | Effect::Compare(_) | Effect::Reached { .. } => {
                        unreachable!("a node alone asks nobody")
                    }
                    Effect::Survey { .. } | Effect::Scan { .. } => unreachable!("no time goes by"),
                    Effect::Load { load, key } => {
                        inputs.push(Input::Loaded { load, found: Ok(self.store.get(&key).cloned()) });
                    }
                    Effect::Append(append) => {
                        inputs.push(Input::Appended { through: append.id });
                        let state = append.state().map(Arc::clone);
                        self.store.extend(state.map(|state| (append.key, state)));
                    }
                    Effect::List { id, keys } => inputs.push(Input::Listed { id, page: Ok(self.list(&keys)) }),
                    Effect::Forget { .. } => {}
                    Effect::Reply { outcome, .. } => return outcome,
                }
            }
        }
        panic!("the request was not answered");
    }

    fn list(&self, keys: &Keys) -> Page {
        let wanted = |key: &&Key| key.as_bytes().starts_with(&keys.prefix);
        Page { keys: self.store.keys().filter(wanted).cloned().collect(), more: false }
    }
}
