//! A truth that tests make up.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::antientropy::{Forest, Shift};
use crate::protocol::causality::{Context, Siblings, Supersedes, Update, Version, VersionVector};
use crate::protocol::io::{Append, Arrived, Change};
use crate::protocol::message::{Causality, Found, Get, Level, Put, Reply, Request, Sibling, Terms, Written, operation};
use crate::protocol::planted::Planted;
use crate::protocol::ring::{Cores, Layout, LayoutRow, LayoutStamp, Unruly, View, Wanted};
use crate::protocol::types::{
    ActorId, AppendId, ClusterId, CoreId, Dot, Instant, Key, LogId, OperationId, Value, WallTime,
};
use crate::sim::Chance;
use crate::sim::shape::{Scenario, Shape};
use crate::sim::truth::{Call, Minted, NodeTruth, Truth};
use crate::sim::world::At;
use crate::store::wal::log::LogConfig;
use crate::store::{Engine, EngineConfig};

const CORES: Cores = Cores { count: 1, salt: 0 };

/// A cluster in which all is well, and up to three nodes own everything.
pub(super) struct MadeUp {
    pub(super) truth: Truth,
    pub(super) shape: Shape,
    pub(super) cluster: ClusterId,
}

impl MadeUp {
    pub(super) fn new(nodes: u64) -> MadeUp {
        let wanted = Wanted { n: 3, r: 2, w: 2 };
        let shape = Shape { wanted, ..Shape::draw(Scenario::Calm, &mut Chance::new(1)) };
        let mut truth = Truth::new(&shape);
        let views: Vec<View> = (0..nodes).map(|n| View::alone(&format!("n{n}"), CORES, shape.partitions)).collect();
        let row = |view: &View| LayoutRow { node: view.me, incarnation: 0, zone: "".into(), weight: 1 };
        let mut rows: Vec<LayoutRow> = views.iter().map(row).collect();
        rows.sort_by_key(|row| row.node);
        let owners = (0..shape.partitions).flat_map(|_| 0..rows.len().min(3) as u16).collect();
        let layout = Arc::new(layout(wanted, rows, owners));
        for view in views {
            let mut node = NodeTruth::new(view.me, CORES);
            node.view = Some(Arc::new(View { layout: Arc::clone(&layout), ..view }));
            node.is_alive = true;
            truth.nodes.push(node);
        }
        let cluster = shape.cluster;
        MadeUp { truth, shape, cluster }
    }

    /// A version of the key that replaces all that it was minted upon.
    pub(super) fn mint(&mut self, dot: Dot, upon: &[(u64, u64)], value: Option<&'static str>) -> Version {
        let value = value.map(|value| Value::new(value).unwrap());
        let version = Version { dot, value, written_at: WallTime(0), expires_at: None, operation: None };
        let upon = upon.iter().map(|(actor, counter)| self::dot(*actor, *counter)).collect();
        let update = Update { version: version.clone(), upon, supersedes: Supersedes::Held };
        self.truth.key(&key()).minted.insert(dot, Minted { update });
        version
    }

    /// A version that came of this request.
    pub(super) fn name(&mut self, dot: Dot, request: Request) {
        let Request::Put(put) = request else { panic!("a put is made up") };
        self.mint(dot, &[], None);
        let minted = self.truth.key(&key()).minted.get_mut(&dot).unwrap();
        minted.update.version.operation = operation(put.operation, Some(&put.value), &put.causality);
        minted.update.version.value = Some(put.value);
    }

    /// So many owners acknowledge a version, and a client hears of it.
    pub(super) fn acknowledge(&mut self, dot: Dot, owners: u8) {
        let level = Level { n: 3, quorum: owners, owners, fallbacks: 0, hedged: false };
        let reply = Reply::Written(Written { level, ..written(dot, &[], false) });
        let call = self.call(put("", Causality::Blind, None));
        self.truth.heard(Instant(10), &call, Some(&Ok(reply)));
    }

    /// A node holds this durably.
    pub(super) fn hold(&mut self, node: At, set: &Arc<Siblings>) {
        self.truth.nodes[node].sets.insert(key(), Arc::clone(set));
    }

    /// A call to the first node that begins now.
    pub(super) fn call(&self, request: Request) -> Call {
        let known = self.truth.keys.get(&key()).map(|of_key| Arc::clone(&of_key.known)).unwrap_or_default();
        Call { node: 0, request, begun: Instant(11), deadline: None, known, done: None }
    }

    /// A store that holds nothing.
    pub(super) fn engine(&self) -> Engine {
        let sizes = self.shape.store;
        let log = LogConfig {
            id: LogId { start: 1, core: CoreId(0) },
            write_bytes_max: sizes.write_bytes_max,
            segment_bytes_min: sizes.segment_bytes_min,
            segment_bytes_max: sizes.segment_bytes_max,
            retry: Duration::ZERO,
        };
        let config = EngineConfig {
            overlay_bytes_max: sizes.overlay_bytes_max,
            queue_bytes_max: sizes.queue_bytes_max,
            cache_bytes: sizes.cache_bytes,
            chunk_bytes: sizes.chunk_bytes,
            chunk_age: sizes.chunk_age,
            log_bytes_max: sizes.log_bytes_max,
            retry: Duration::ZERO,
            ring: self.truth.ring,
            seed: 1,
            planted: Planted::NONE,
            log,
        };
        Engine::new(config, Vec::new(), Forest::default())
    }
}

/// A layout, whether it keeps the rules or not.
pub(super) fn layout(wanted: Wanted, rows: Vec<LayoutRow>, owners: Vec<u16>) -> Layout {
    let made = |hash| Layout::from_parts(LayoutStamp { number: 2, hash }, wanted, rows.clone(), owners.clone());
    match made(0) {
        Err(Unruly::Hash { found, .. }) => made(found).unwrap(),
        other => other.unwrap(),
    }
}

/// The key that all is about.
pub(super) fn key() -> Key {
    Key::new("key").unwrap()
}

pub(super) fn dot(actor: u64, counter: u64) -> Dot {
    Dot { actor: ActorId(actor), counter }
}

pub(super) fn set(vector: &[(u64, u64)], versions: &[&Version]) -> Arc<Siblings> {
    let vector = vector.iter().map(|(actor, counter)| dot(*actor, *counter)).collect();
    Arc::new(Siblings::new(vector, versions.iter().copied().cloned()).unwrap())
}

pub(super) fn append(change: Change) -> Append {
    Append { id: AppendId(1), key: key(), change }
}

/// A version comes in, and replaces all that was there.
pub(super) fn append_version(version: &Version) -> Append {
    let dot = version.dot;
    let state = set(&[(dot.actor.0, dot.counter)], &[version]);
    let (upon, supersedes) = (VersionVector::default(), Supersedes::Held);
    append(Change::Version(Arrived { state, dot, upon, supersedes, remember: None, shift: Shift::default() }))
}

/// A set comes in, and this is what is held then.
pub(super) fn append_set(state: &Arc<Siblings>, came: &Arc<Siblings>) -> Append {
    append_of(key(), state, came)
}

pub(super) fn append_of(key: Key, state: &Arc<Siblings>, came: &Arc<Siblings>) -> Append {
    let (state, came, shift) = (Arc::clone(state), Arc::clone(came), Shift::default());
    Append { id: AppendId(1), key, change: Change::Set { state, came, remember: vec![], shift } }
}

pub(super) fn numbered(id: u64, append: Append) -> Append {
    Append { id: AppendId(id), ..append }
}

pub(super) fn get() -> Request {
    Request::Get(Get { key: key(), terms: Terms::default() })
}

pub(super) fn put(value: &'static str, causality: Causality, name: Option<&str>) -> Request {
    let operation = name.map(|name| OperationId::new(name).unwrap());
    Request::Put(Put { key: key(), value: Value::new(value).unwrap(), causality, operation, terms: Terms::default() })
}

pub(super) fn written(dot: Dot, superseded: &[Dot], remembered: bool) -> Written {
    let (context, superseded) = (bytes::Bytes::new(), superseded.iter().copied().collect());
    Written { dot, context, superseded, written_at: WallTime(0), remembered, level: Level::default() }
}

/// A read by R of three owners that shows these.
pub(super) fn found(cluster: ClusterId, shown: &[(Dot, &'static str)], r: u8) -> Found {
    let sibling = |(dot, value): &(Dot, &'static str)| Sibling {
        dot: *dot,
        value: Value::new(*value).unwrap(),
        written_at: WallTime(0),
    };
    let context = Context::of(shown.iter().map(|(dot, _)| *dot).collect()).seal(cluster, &key());
    let level = Level { n: 3, quorum: r, owners: r, fallbacks: 0, hedged: false };
    Found { siblings: shown.iter().map(sibling).collect(), context, level }
}
