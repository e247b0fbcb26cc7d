//! The connections that are open, and which of them a call takes: straight to an owner's core where there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::connection::Job;
use super::map::Map;
use crate::protocol::message::{Call, Request};
use crate::protocol::types::{CoreId, Key, NodeId};

/// A core of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub node: NodeId,
    pub core: CoreId,
}

/// A connection as callers see it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub jobs: mpsc::Sender<Job>,
    /// Set while calls are under way and nothing has been heard for a while.
    pub is_quiet: Arc<AtomicBool>,
}

/// What callers choose from. The driver replaces it when something changes.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub map: Option<Arc<Map>>,
    pub open: BTreeMap<Target, Link>,
    /// Where calls go that are about no key: the node that was named first, as long as it is there.
    pub home: Option<Target>,
    /// Nodes that were lost a moment ago.
    pub aside: BTreeSet<NodeId>,
}

/// What the driver is asked for.
#[derive(Debug)]
pub(super) enum Wish {
    /// A connection to this core, if it can be had.
    Open(Target),
    /// A new look at the ring: a node has gone quiet.
    Look,
    /// Connect to whoever is there and carry this.
    Carry(Job),
}

/// The way of one call.
#[derive(Debug, Default)]
pub(super) struct Way<'a> {
    /// `None` when nothing is open.
    pub link: Option<(NodeId, &'a Link)>,
    /// What would have been better.
    pub wish: Option<Wish>,
}

impl Links {
    /// The best connection for a call that `tried` nodes did not answer: to the core of the first owner that is there,
    /// to another core of it, to another owner, or to anybody, who forwards the call.
    pub(super) fn way(&self, call: &Call, tried: &[NodeId]) -> Way<'_> {
        let mut wish = None;
        let is_fit = |node: NodeId| !tried.contains(&node) && !self.aside.contains(&node);
        if let (Some(map), Some((key, is_alone))) = (&self.map, subject(call)) {
            for owner in map.owners(key).filter(|owner| is_fit(owner.node) && map.is_up(owner.node)) {
                let exact = self.open.get(&owner);
                let any = || self.of_node(owner.node).find(|link| link.is_usable());
                if let Some(link) = exact.filter(|link| link.is_usable()) {
                    return Way { link: Some((owner.node, link)), wish };
                }
                let link = any();
                if exact.is_some_and(Link::is_quiet) {
                    wish = wish.or(Some(Wish::Look));
                } else if exact.is_none() && (is_alone || link.is_none()) {
                    wish = wish.or(Some(Wish::Open(owner)));
                }
                if let Some(link) = link {
                    return Way { link: Some((owner.node, link)), wish };
                }
            }
        }
        let home = self.home.and_then(|home| Some((home, self.open.get(&home)?)));
        let all = || home.into_iter().chain(self.open.iter().map(|(target, link)| (*target, link)));
        let all = || all().map(|(target, link)| (target.node, link));
        let link = all()
            .find(|(node, link)| is_fit(*node) && link.is_usable())
            .or_else(|| all().find(|(_, link)| link.is_usable()))
            .or_else(|| all().find(|(_, link)| !link.jobs.is_closed()));
        let is_quiet = link.is_some_and(|(_, link)| link.is_quiet());
        Way { link, wish: wish.or(is_quiet.then_some(Wish::Look)) }
    }

    /// The owner that a request of a batch is sent to, if the ring is known.
    pub(super) fn owner(&self, key: &Key) -> Option<NodeId> {
        let map = self.map.as_ref()?;
        let is_fit = |owner: &Target| !self.aside.contains(&owner.node) && map.is_up(owner.node);
        map.owners(key).find(is_fit).map(|owner| owner.node)
    }

    fn of_node(&self, node: NodeId) -> impl Iterator<Item = &Link> {
        let first = Target { node, core: CoreId(0) };
        self.open.range(first..).take_while(move |(target, _)| target.node == node).map(|(_, link)| link)
    }
}

impl Link {
    pub(super) fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::Relaxed)
    }

    fn is_usable(&self) -> bool {
        !self.jobs.is_closed() && !self.is_quiet()
    }
}

/// The key that decides where a call goes, and whether it is the only one. A batch is of one owner's keys; a listing and
/// the copies that a node holds are that node's own.
fn subject(call: &Call) -> Option<(&Key, bool)> {
    match call {
        Call::One(Request::Get(get)) => Some((&get.key, true)),
        Call::One(Request::Put(put)) => Some((&put.key, true)),
        Call::One(Request::Delete(delete)) => Some((&delete.key, true)),
        Call::Many(requests) => requests.first().and_then(Request::key).map(|key| (key, false)),
        Call::One(Request::Siblings(_) | Request::Keys(_)) | Call::Ping | Call::Info | Call::Ring { .. } => None,
    }
}
