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
                let exact = self.open.get(&owner).filter(|link| !link.jobs.is_closed());
                if let Some(link) = exact.filter(|link| link.is_usable()) {
                    return Way { link: Some((owner.node, link)), wish };
                }
                let link = self.of_node(owner.node).find(|link| link.is_usable());
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

/// The key that decides where a call goes, and whether it is the only one. A batch is of one owner's keys; a listing
/// and the copies that a node holds are that node's own.
fn subject(call: &Call) -> Option<(&Key, bool)> {
    match call {
        Call::One(Request::Get(get)) => Some((&get.key, true)),
        Call::One(Request::Put(put)) => Some((&put.key, true)),
        Call::One(Request::Delete(delete)) => Some((&delete.key, true)),
        Call::Many(requests) => requests.first().and_then(Request::key).map(|key| (key, false)),
        Call::One(Request::Siblings(_) | Request::Keys(_)) | Call::Ping | Call::Info | Call::Ring { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{Get, RingMap, RingNode, Terms};
    use crate::protocol::ring::{Cores, LayoutStamp};

    const HOME: Target = Target { node: NodeId(0), core: CoreId(0) };

    fn target(node: u64, core: u16) -> Target {
        Target { node: NodeId(node), core: CoreId(core) }
    }

    /// Nodes 0 to 4 of two cores. The only partition belongs to 1, 2 and 3, and on all of them to the same core.
    fn map(is_up: impl Fn(u64) -> bool) -> Map {
        let node = |node| RingNode {
            node: NodeId(node),
            name: String::new(),
            address: ([127, 0, 0, 1], 7_600).into(),
            cores: Cores { count: 2, salt: 7 },
            is_up: is_up(node),
        };
        let owners = Some(vec![1, 2, 3]);
        let nodes = (0..5).map(node).collect();
        Map::of(RingMap { stamp: LayoutStamp::default(), partitions: 1, copies: 3, nodes, owners }, None).unwrap()
    }

    /// Open connections, each of which says by its receiver whether it is closed.
    fn links(open: &[Target], is_up: impl Fn(u64) -> bool) -> (Links, Vec<mpsc::Receiver<Job>>) {
        let (mut links, mut receivers) = (Links { map: Some(map(is_up).into()), ..Links::default() }, Vec::new());
        for target in open {
            let (jobs, receiver) = mpsc::channel(1);
            links.open.insert(*target, Link { jobs, is_quiet: Arc::default() });
            receivers.push(receiver);
        }
        links.home = links.open.contains_key(&HOME).then_some(HOME);
        (links, receivers)
    }

    fn get() -> Call {
        Call::One(Request::Get(Get { key: Key::new("a").unwrap(), terms: Terms::default() }))
    }

    /// The node that a call goes to, and the connection that is wished for.
    fn way(links: &Links, call: &Call, tried: &[u64]) -> (Option<u64>, Option<Target>) {
        let tried: Vec<NodeId> = tried.iter().copied().map(NodeId).collect();
        let way = links.way(call, &tried);
        let wish = way.wish.and_then(|wish| match wish {
            Wish::Open(target) => Some(target),
            Wish::Look | Wish::Carry(_) => None,
        });
        (way.link.map(|(node, _)| node.0), wish)
    }

    #[test]
    fn the_best_connection_that_is_there_is_taken_and_a_better_one_wished_for() {
        let core = map(|_| true).owners(&Key::new("a").unwrap()).next().unwrap().core.0;
        let best = |node| target(node, core);
        let other = |node| target(node, 1 - core);
        let wished = |node| Some(best(node));
        for (open, tried, expected) in [
            (&[HOME, best(1), other(1), best(2)][..], &[][..], (Some(1), None)),
            (&[HOME, other(1), best(2)], &[], (Some(1), wished(1))),
            (&[HOME, best(2)], &[], (Some(2), wished(1))),
            (&[HOME, best(4)], &[], (Some(0), wished(1))),
            (&[best(4)], &[], (Some(4), wished(1))),
            (&[], &[], (None, wished(1))),
            (&[HOME, best(1), best(2)], &[1], (Some(2), None)),
            (&[HOME, best(1), best(2)], &[1, 2], (Some(0), wished(3))),
            (&[HOME, best(1)], &[0, 1], (Some(0), wished(2))),
            (&[HOME, best(1)], &[0, 1, 2, 3], (Some(0), None)),
        ] {
            let (links, _receivers) = links(open, |_| true);
            assert_eq!(way(&links, &get(), tried), expected, "{open:?} without {tried:?}");
            let anywhere = if open.contains(&HOME) && !tried.contains(&0) { Some(0) } else { None };
            assert!(anywhere.is_none() || way(&links, &Call::Ping, tried).0 == anywhere, "a ping goes home: {open:?}");
        }
    }

    #[test]
    fn who_is_down_quiet_aside_or_closed_is_passed_over_while_there_is_anybody_else() {
        let core = map(|_| true).owners(&Key::new("a").unwrap()).next().unwrap().core.0;
        let open = [HOME, target(1, core), target(2, core)];

        let (down, _receivers) = links(&open, |node| node != 1);
        assert_eq!(way(&down, &get(), &[]), (Some(2), None));

        let (mut aside, _receivers) = links(&open, |_| true);
        aside.aside.insert(NodeId(1));
        assert_eq!(way(&aside, &get(), &[]), (Some(2), None));
        assert_eq!(aside.owner(&Key::new("a").unwrap()), Some(NodeId(2)));

        let (quiet, _receivers) = links(&open, |_| true);
        quiet.open[&open[1]].is_quiet.store(true, Ordering::Relaxed);
        assert_eq!(way(&quiet, &get(), &[]), (Some(2), None));
        assert!(matches!(quiet.way(&get(), &[]).wish, Some(Wish::Look)));

        let (closed, mut receivers) = links(&open, |_| true);
        drop(receivers.remove(1));
        assert_eq!(way(&closed, &get(), &[]), (Some(2), Some(open[1])), "and may be opened again");
        receivers.clear();
        assert_eq!(way(&closed, &get(), &[]).0, None, "all are closed");

        let (silent, _receivers) = links(&open, |_| true);
        silent.open.values().for_each(|link| link.is_quiet.store(true, Ordering::Relaxed));
        assert_eq!(way(&silent, &get(), &[]).0, Some(0), "one that is quiet is better than none");
    }

    #[test]
    fn a_node_that_hears_of_most_others_nothing_is_not_believed() {
        let (links, _receivers) = links(&[HOME, target(1, 0), target(1, 1)], |node| node == 0);
        assert_eq!(way(&links, &get(), &[]).0, Some(1));
    }
}
