//! Whoever sees everything: keeps what is true, and asks each invariant about all that happens.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::invariants::{self, Invariant};
use super::shape::Shape;
use super::truth::{Call, Minted, Truth};
use super::world::{At, Caller};
use crate::protocol::antientropy::Forest;
use crate::protocol::causality::Siblings;
use crate::protocol::io::{Append, Change, Hint};
use crate::protocol::message::{Outcome, Request};
use crate::protocol::peer::Ask;
use crate::protocol::ring::View;
use crate::protocol::shard::Shard;
use crate::protocol::types::{CoreId, Instant, Key};
use crate::store::Engine;

/// Something that was seen to happen. [`Truth`] knows it already, but for [`Seen::Durable`], whose key it shows as it
/// was before.
pub(super) enum Seen<'a> {
    /// A node appends: for the first time under that dot, or what came from another.
    Appended {
        /// The node.
        node: At,
        /// What.
        append: &'a Append,
        /// It was minted with this.
        is_minted: bool,
    },
    /// What a node appended is durable.
    Durable {
        /// The node.
        node: At,
        /// What.
        append: &'a Append,
    },
    /// A node has answered a call.
    Answered {
        /// The call.
        call: &'a Call,
        /// How.
        outcome: &'a Outcome,
    },
    /// A client has heard how his call ended; `None` where the connection did, or he gave up waiting.
    Heard {
        /// The call.
        call: &'a Call,
        /// How.
        outcome: Option<&'a Outcome>,
    },
    /// A node asks another.
    Asks {
        /// The node.
        node: At,
        /// What.
        ask: &'a Ask,
    },
    /// A node goes by another view.
    Viewed {
        /// The node.
        node: At,
        /// Which.
        view: &'a View,
    },
    /// A node has started, and found this on its disk.
    Restarted {
        /// The node.
        node: At,
        /// What.
        found: Found<'a>,
    },
    /// A core is looked at, once a tick.
    Core {
        /// The node.
        node: At,
        /// Which of its cores.
        core: CoreId,
        /// Its protocol.
        shard: &'a Shard,
        /// Its store.
        engine: &'a Engine,
    },
    /// All faults have ended, and the cluster has come to rest.
    Rested(&'a Rest),
}

/// What a start has found on the disk of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// All sets.
    pub sets: &'a BTreeMap<Key, Arc<Siblings>>,
    /// The trees of all partitions.
    pub forest: &'a Forest,
    /// What is owed to others.
    pub hints: &'a [(Key, Hint)],
}

/// A cluster at rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Rest {
    /// Nodes that are members.
    pub members: Vec<At>,
    /// Owners of each key that was ever written.
    pub owners: BTreeMap<Key, Vec<At>>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The invariant.
    pub invariant: &'static str,
    /// Where it is promised.
    pub source: &'static str,
    /// What it says.
    pub what: String,
    /// The key that it is about, where it is about one.
    pub key: Option<Key>,
    /// When that was seen.
    pub at: Instant,
}

/// What an invariant says of something that was seen.
pub(super) type Verdict = Result<(), Complaint>;

/// What is wrong, and with which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// What.
    pub what: String,
    /// With which key.
    pub key: Option<Key>,
}

/// A complaint about a key.
pub(super) fn about<T>(key: &Key, what: impl Into<String>) -> Result<T, Complaint> {
    Err(Complaint { what: what.into(), key: Some(key.clone()) })
}

/// A complaint about no key.
pub(super) fn complain<T>(what: impl Into<String>) -> Result<T, Complaint> {
    Err(Complaint { what: what.into(), key: None })
}

/// Keeps what is true, and lets all invariants judge.
pub(super) struct Watch {
    /// What is true.
    pub truth: Truth,
    invariants: Vec<Box<dyn Invariant>>,
    broken: Option<Broken>,
}

impl Watch {
    /// Nothing was seen yet.
    pub(super) fn new(shape: &Shape) -> Watch {
        Watch { truth: Truth::new(shape), invariants: invariants::all(shape), broken: None }
    }

    /// The first promise that was broken.
    pub(super) fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    fn see(&mut self, now: Instant, seen: &Seen<'_>) {
        if self.broken.is_some() {
            return;
        }
        for invariant in &mut self.invariants {
            if let Err(Complaint { what, key }) = invariant.see(&self.truth, now, seen) {
                let (invariant, source) = (invariant.name(), invariant.source());
                self.broken = Some(Broken { invariant, source, what, key, at: now });
                return;
            }
        }
    }

    /// A client begins a call.
    pub(super) fn invoked(&mut self, now: Instant, caller: Caller, node: At, request: &Request) {
        let call = self.truth.call(now, node, request);
        self.truth.calls.insert(caller, call);
    }

    /// A call is read by the node that it went to, and must have ended by then.
    pub(super) fn arrived(&mut self, caller: Caller, node: At, deadline: Instant) {
        if let Some(call) = self.truth.calls.get_mut(&caller) {
            (call.node, call.deadline) = (node, Some(deadline));
        }
    }

    /// A call is answered by the node that it went to.
    pub(super) fn answered(&mut self, now: Instant, caller: Caller, outcome: &Outcome) {
        let Some(call) = self.truth.calls.get(&caller).cloned() else { return };
        if self.truth.stands(&call, outcome) {
            self.see(now, &Seen::Answered { call: &call, outcome });
        }
    }

    /// A client hears how a call ended, or that it did.
    pub(super) fn heard(&mut self, now: Instant, caller: Caller, outcome: Option<&Outcome>) {
        let Some(call) = self.truth.calls.remove(&caller) else { return };
        let outcome = outcome.filter(|outcome| self.truth.stands(&call, outcome));
        self.see(now, &Seen::Heard { call: &call, outcome });
        self.truth.heard(now, &call, outcome);
    }

    /// A node appends to its log, whose core goes by this view.
    pub(super) fn appended(&mut self, now: Instant, node: At, view: &View, append: &Append) {
        let mut is_minted = false;
        if let Change::Version(arrived) = &append.change {
            let minted = self.truth.key(&append.key).minted.entry(arrived.dot);
            is_minted = matches!(minted, Entry::Vacant(_));
            minted.or_insert_with(|| Minted { update: arrived.update().cloned() });
        }
        if let Change::Drop { .. } = &append.change {
            self.truth.drops(node, view, &append.key);
        }
        self.see(now, &Seen::Appended { node, append, is_minted });
    }

    /// What a node appended is durable.
    pub(super) fn durable(&mut self, now: Instant, node: At, append: &Append) {
        self.see(now, &Seen::Durable { node, append });
        self.truth.keep(node, append);
    }

    /// A node asks another.
    pub(super) fn asks(&mut self, now: Instant, node: At, ask: &Ask) {
        self.see(now, &Seen::Asks { node, ask });
    }

    /// A node goes by another view.
    pub(super) fn viewed(&mut self, now: Instant, node: At, view: &Arc<View>) {
        self.see(now, &Seen::Viewed { node, view });
        self.truth.view(node, now, view);
    }

    /// A node has started.
    pub(super) fn restarted(&mut self, now: Instant, node: At, found: Found<'_>) {
        self.see(now, &Seen::Restarted { node, found });
        self.truth.restart(node, now, &found);
    }

    /// The process of a node has ended.
    pub(super) fn ended(&mut self, now: Instant, node: At) {
        self.truth.trouble(now, node);
        let of_node = &mut self.truth.nodes[node];
        (of_node.is_alive, of_node.is_still) = (false, false);
    }

    /// A core is looked at.
    pub(super) fn look_at_core(&mut self, now: Instant, (node, core): (At, CoreId), shard: &Shard, engine: &Engine) {
        self.see(now, &Seen::Core { node, core, shard, engine });
    }

    /// The cluster is at rest.
    pub(super) fn rested(&mut self, now: Instant, rest: &Rest) {
        self.see(now, &Seen::Rested(rest));
        self.truth.losses = 0;
    }

    /// A node did not start, and why; or something else that nothing may do was done.
    pub(super) fn accuse(&mut self, now: Instant, invariant: &'static str, what: String) {
        let named = self.invariants.iter().find(|known| known.name() == invariant);
        let source = named.map_or("docs/SIMULATION.md", |known| known.source());
        self.broken.get_or_insert(Broken { invariant, source, what, key: None, at: now });
    }
}
