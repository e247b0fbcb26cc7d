//! What is true in a world, as only somebody knows who sees every node at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::shape::Shape;
use super::watch::Found;
use super::world::{At, Caller};
use crate::protocol::causality::{Siblings, Supersedes, Update, VersionVector};
use crate::protocol::io::{Append, Change, Hint};
use crate::protocol::message::{Outcome, Reply, Request, Written};
use crate::protocol::ring::{Cores, LayoutStamp, Ring, Step, View};
use crate::protocol::types::{Dot, Instant, Key, NodeId, OperationId, Value};

/// Everything.
#[derive(Debug)]
pub(super) struct Truth {
    /// The ring.
    pub ring: Ring,
    /// Calls that have no end yet.
    pub calls: BTreeMap<Caller, Call>,
    /// What happened to each key.
    pub keys: BTreeMap<Key, KeyTruth>,
    /// What each node has.
    pub nodes: Vec<NodeTruth>,
    /// Disks that were lost since the cluster was last at rest.
    pub losses: u32,
    /// When some node last went by another layout, or went on in a change.
    pub changed_at: Instant,
}

/// One call of one client.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The node that it went to.
    pub node: At,
    /// What was asked.
    pub request: Request,
    /// When it began.
    pub begun: Instant,
    /// When its node must have answered; `None` while it has not come there.
    pub deadline: Option<Instant>,
    /// By W: what so many owners had acknowledged of the key before it began.
    pub known: Arc<BTreeMap<u8, Known>>,
    /// What W owners had acknowledged of an earlier try under its operation id.
    pub done: Option<Dot>,
}

/// What happened to one key.
#[derive(Debug, Default)]
pub(super) struct KeyTruth {
    /// Every version that was ever minted, whether it was kept or not.
    pub minted: BTreeMap<Dot, Minted>,
    /// Values that clients asked to be written, and how often a delete was asked for.
    pub asked: BTreeSet<Value>,
    /// See [`KeyTruth::asked`].
    pub deletes: u64,
    /// Every version that was acknowledged to a client.
    pub acknowledged: BTreeMap<Dot, Acknowledged>,
    /// By W: all that so many owners have acknowledged.
    pub known: Arc<BTreeMap<u8, Known>>,
    /// All that owners had seen of it when they forgot its tombstones.
    pub forgotten: VersionVector,
    /// By operation: what W owners acknowledged.
    pub done: BTreeMap<OperationId, Dot>,
}

/// Acknowledged writes of one key, together.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The newest of each actor.
    pub dots: VersionVector,
    /// What they replaced.
    pub replaced: Replaced,
}

/// What some writes replaced, wherever they meet it.
#[derive(Clone, Debug, Default)]
pub(super) struct Replaced {
    vector: VersionVector,
    apart: BTreeSet<Dot>,
}

/// A version when it was made.
#[derive(Clone, Debug)]
pub(super) struct Minted {
    /// What.
    pub update: Update,
}

/// A version whose write was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledged {
    /// When the client heard it.
    pub at: Instant,
}

/// What one node has.
#[derive(Debug)]
pub(super) struct NodeTruth {
    /// Its id.
    pub id: NodeId,
    /// Whether it runs.
    pub is_alive: bool,
    /// Whether it, or a thread of it, stands still.
    pub is_still: bool,
    /// Whether it was removed.
    pub is_removed: bool,
    /// When something was last wrong with it.
    pub troubled_at: Instant,
    /// What is durable on it.
    pub sets: BTreeMap<Key, Arc<Siblings>>,
    /// What it had seen of keys that it holds no more: dropped, forgotten, or on a disk that was lost.
    pub gone: BTreeMap<Key, VersionVector>,
    /// What it owes to others, durably.
    pub hints: BTreeMap<(Key, NodeId), Hint>,
    /// What it goes by.
    pub view: Option<Arc<View>>,
    /// When it last went by another layout, or went on in a change.
    pub viewed_at: Instant,
    /// When it, or a thread of it, last went on after it had stood still.
    pub went_on_at: Instant,
    /// How it spreads partitions.
    pub cores: Cores,
}

impl Truth {
    /// Nothing happened yet.
    pub(super) fn new(shape: &Shape) -> Truth {
        Truth {
            ring: Ring::new(shape.partitions),
            calls: BTreeMap::new(),
            keys: BTreeMap::new(),
            nodes: Vec::new(),
            losses: 0,
            changed_at: Instant(0),
        }
    }

    /// A key's story.
    pub(super) fn key(&mut self, key: &Key) -> &mut KeyTruth {
        if !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), KeyTruth::default());
        }
        self.keys.get_mut(key).expect("it was put there")
    }

    /// A node by its id.
    pub(super) fn at(&self, id: NodeId) -> Option<At> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// Whether an answer promises anything. Who was removed and only stood still may answer its clients from what it
    /// has before it hears of that, as the administrator was told; but not with what others have: they refuse it.
    pub(super) fn stands(&self, call: &Call, outcome: &Outcome) -> bool {
        let level = match outcome {
            Ok(Reply::Found(found)) => Some(found.level),
            Ok(Reply::Written(written)) => Some(written.level),
            _ => None,
        };
        !self.nodes[call.node].is_removed || level.is_some_and(|level| 1 < level.quorum.min(level.owners))
    }

    /// A call that begins now.
    pub(super) fn call(&mut self, now: Instant, node: At, request: &Request) -> Call {
        let key = request.key().expect("clients here ask for one key");
        let of_key = self.key(key);
        match request {
            Request::Put(put) => {
                of_key.asked.insert(put.value.clone());
            }
            Request::Delete(_) => of_key.deletes += 1,
            _ => {}
        }
        let done = operation(request).and_then(|id| of_key.done.get(id)).copied();
        let known = Arc::clone(&of_key.known);
        Call { node, request: request.clone(), begun: now, deadline: None, known, done }
    }

    /// What a client hears is known from then on.
    pub(super) fn heard(&mut self, now: Instant, call: &Call, outcome: Option<&Outcome>) {
        let Some(Ok(Reply::Written(written))) = outcome else { return };
        let Written { dot, level, .. } = written;
        let key = call.request.key().expect("a write has a key");
        let of_key = self.key(key);
        of_key.acknowledged.entry(*dot).or_insert(Acknowledged { at: now });
        if level.quorum <= level.owners {
            let minted = of_key.minted.get(dot);
            let known = Arc::make_mut(&mut of_key.known).entry(level.quorum).or_default();
            known.dots.see(*dot);
            if let Some(minted) = minted {
                known.replaced.by(&minted.update);
            }
            if let Some(id) = operation(&call.request) {
                of_key.done.entry(id.clone()).or_insert(*dot);
            }
        }
    }

    /// What is durable on a node.
    pub(super) fn keep(&mut self, node: At, append: &Append) {
        let of_node = &mut self.nodes[node];
        match &append.change {
            Change::Version(_) | Change::Set { .. } => {
                let state = append.state().expect("both have one");
                of_node.sets.insert(append.key.clone(), Arc::clone(state));
            }
            Change::Drop { .. } => of_node.lose(&append.key),
            Change::Hint(hint) => {
                of_node.hints.insert((append.key.clone(), hint.target), *hint);
            }
            Change::Delivered { target } => {
                of_node.hints.remove(&(append.key.clone(), *target));
            }
        }
    }

    /// A node whose core goes by this view is about to drop a set. A former owner drops what the others have; an owner
    /// forgets what was deleted, and from then on nobody may bring it back.
    pub(super) fn drops(&mut self, node: At, view: &View, key: &Key) {
        let is_owner = view.is_written(view.me, self.ring.partition(key));
        let buried = self.nodes[node].sets.get(key).filter(|set| is_owner && set.live().next().is_none()).cloned();
        if let Some(set) = buried {
            self.key(key).forgotten.join(set.vector());
        }
    }

    /// What a node holds after a start: what was durable, and maybe what was on its way.
    pub(super) fn restart(&mut self, node: At, now: Instant, found: &Found<'_>) {
        self.trouble(now, node);
        let of_node = &mut self.nodes[node];
        of_node.is_alive = true;
        let dropped: Vec<Key> = of_node.sets.keys().filter(|key| !found.sets.contains_key(*key)).cloned().collect();
        dropped.iter().for_each(|key| of_node.lose(key));
        of_node.sets.clone_from(found.sets);
        of_node.hints = found.hints.iter().map(|(key, hint)| ((key.clone(), hint.target), *hint)).collect();
    }

    /// A node goes by another view.
    pub(super) fn view(&mut self, node: At, now: Instant, view: &Arc<View>) {
        let of_node = &mut self.nodes[node];
        if of_node.view.as_ref().is_none_or(|before| !are_same_layouts(before, view)) {
            of_node.viewed_at = now;
            self.changed_at = now;
        }
        of_node.view = Some(Arc::clone(view));
    }

    /// The disk of a node is lost.
    pub(super) fn lose_disk(&mut self, node: At) {
        let of_node = &mut self.nodes[node];
        let keys: Vec<Key> = of_node.sets.keys().cloned().collect();
        keys.iter().for_each(|key| of_node.lose(key));
        of_node.hints.clear();
    }

    /// Something is wrong with a node now.
    pub(super) fn trouble(&mut self, now: Instant, node: At) {
        self.nodes[node].troubled_at = now;
    }

    /// Something is wrong with all of them.
    pub(super) fn trouble_all(&mut self, now: Instant) {
        self.nodes.iter_mut().for_each(|node| node.troubled_at = now);
    }

    /// Whether a change of owners is under way, as far as any node that runs knows.
    pub(super) fn is_changing(&self) -> bool {
        let views = self.nodes.iter().filter(|node| node.is_alive).filter_map(|node| node.view.as_ref());
        views.into_iter().any(|view| view.change.is_some())
    }

    /// Nodes that hold what a dot names, or what was made of it; or did before their disk was lost.
    pub(super) fn holders(&self, key: &Key, dot: Dot) -> usize {
        self.nodes.iter().filter(|node| node.has_seen(key, dot)).count()
    }
}

impl NodeTruth {
    /// A node that was never started.
    pub(super) fn new(id: NodeId, cores: Cores) -> NodeTruth {
        NodeTruth {
            id,
            is_alive: false,
            is_still: false,
            is_removed: false,
            troubled_at: Instant(0),
            sets: BTreeMap::new(),
            gone: BTreeMap::new(),
            hints: BTreeMap::new(),
            view: None,
            viewed_at: Instant(0),
            went_on_at: Instant(0),
            cores,
        }
    }

    fn lose(&mut self, key: &Key) {
        if let Some(set) = self.sets.remove(key) {
            self.gone.entry(key.clone()).or_default().join(set.vector());
        }
    }

    /// Whether it runs, and nothing was wrong with it for so long before `begun` and since.
    pub(super) fn is_well_since(&self, begun: Instant, quiet: Duration) -> bool {
        self.is_alive && !self.is_still && self.troubled_at + quiet < begun
    }

    /// Whether it has, or had, seen a version.
    pub(super) fn has_seen(&self, key: &Key, dot: Dot) -> bool {
        self.sets.get(key).is_some_and(|set| set.vector().covers(dot))
            || self.gone.get(key).is_some_and(|gone| gone.covers(dot))
    }
}

impl Replaced {
    /// A write replaces more.
    fn by(&mut self, update: &Update) {
        match &update.supersedes {
            Supersedes::Held => self.vector.join(&update.upon),
            Supersedes::Nothing => {}
            Supersedes::Seen(context) => {
                self.vector.join(context.vector());
                self.apart.extend(context.dots().iter().filter(|dot| update.upon.covers(**dot)));
            }
        }
    }

    /// Whether a version was replaced.
    pub(super) fn has(&self, dot: Dot) -> bool {
        self.vector.covers(dot) || self.apart.contains(&dot)
    }
}

/// Whether two views go by the same layouts, and are as far in a change.
pub(super) fn are_same_layouts(one: &View, other: &View) -> bool {
    layouts_of(one) == layouts_of(other)
}

/// The layouts that a view goes by, and how far a change is.
fn layouts_of(view: &View) -> (LayoutStamp, LayoutStamp, Option<Step>) {
    (view.layout.stamp(), view.stamp(), view.change.as_ref().map(|change| change.step))
}

/// The client's name for a write.
pub(super) fn operation(request: &Request) -> Option<&OperationId> {
    match request {
        Request::Put(put) => put.operation.as_ref(),
        Request::Delete(delete) => delete.operation.as_ref(),
        _ => None,
    }
}

/// Whether a write replaces a version, wherever the two meet.
pub(super) fn replaces(update: &Update, dot: Dot) -> bool {
    match &update.supersedes {
        Supersedes::Held => update.upon.covers(dot),
        Supersedes::Nothing => false,
        Supersedes::Seen(context) => {
            context.vector().covers(dot) || (context.dots().contains(&dot) && update.upon.covers(dot))
        }
    }
}

/// Whether one operation minted both.
pub(super) fn are_twins(one: &Update, other: &Update) -> bool {
    one.version.operation.is_some() && one.version.operation == other.version.operation
}
